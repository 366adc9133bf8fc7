"""How fast an endpoint may be asked: rate limits, pauses that it demands, waits between tries."""

import random
import time
from collections.abc import Callable

BURST_SECONDS = 5.0
LONGEST_WAIT = 60.0


class Rate:
    """A token bucket: so much flows in a minute, and at most BURST_SECONDS of it are saved up.

    What is taken beyond the bucket is owed, and waited for: those who come first go first, and a
    single request may be larger than the bucket. `None` is no limit.
    """

    def __init__(self, per_minute: float | None, clock: Callable[[], float] = time.monotonic):
        self._per_second = None if per_minute is None else per_minute / 60
        self._clock = clock
        self._level = 0.0
        self._filled = clock()

    def take(self, amount: int) -> float:
        """Takes from the bucket and returns the seconds to wait until that is allowed."""
        if self._per_second is None:
            return 0.0
        now = self._clock()
        flowed = self._level + (now - self._filled) * self._per_second
        self._level = min(flowed, BURST_SECONDS * self._per_second) - amount
        self._filled = now
        return max(0.0, -self._level / self._per_second)

    def give_back(self, amount: int) -> None:
        """Corrects an estimate: so much was taken and not used (negative: used and not taken)."""
        self._level += amount


class Pace:
    """The limits of one endpoint, in requests and in tokens a minute."""

    def __init__(
        self,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._requests = Rate(requests_per_minute, clock)
        self._tokens = Rate(tokens_per_minute, clock)
        self._clock = clock
        self._held_until = 0.0

    def take(self, tokens: int) -> float:
        """Seconds to wait before a request of so many tokens may be sent."""
        return max(self._requests.take(1), self._tokens.take(tokens), self.held())

    def held(self) -> float:
        """Seconds until the endpoint wants to hear from anybody again."""
        return max(0.0, self._held_until - self._clock())

    def hold(self, seconds: float) -> None:
        """The endpoint asked to be left alone: nothing is sent to it for so long."""
        self._held_until = max(self._held_until, self._clock() + seconds)

    def correct(self, estimated: int, used: int) -> None:
        self._tokens.give_back(estimated - used)


def backoff(failures: int, first_wait: float) -> float:
    """Seconds to wait after so many failures: doubled each time, at most LONGEST_WAIT, and between
    half and all of that at random, so that requests that failed together don't return together."""
    longest = min(LONGEST_WAIT, first_wait * 2 ** (failures - 1))
    return longest * random.uniform(0.5, 1.0)
