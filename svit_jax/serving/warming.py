"""Programs compiled before the server says that it is ready: those that usual prompts meet."""

import threading
import time
from collections.abc import Callable

import numpy as np

from svit_jax.inference.continuous import ContinuousEngine, FullError
from svit_jax.inference.engine import Prompt, Token
from svit_jax.inference.sampler import GREEDY
from svit_jax.inference.shapes import bucket_length

_CLIENT = "warm-up"
_NEW_TOKENS = 2
"""The first comes from the prefill, the second from a decoding step."""


def usual_prompts(text_tokens: int, patches: int, image_size: int, max_length: int) -> list[Prompt]:
    """A prompt of each padded length that up to `text_tokens` tokens take by themselves, then
    beside a picture of `patches` tokens."""
    prompts = []
    for pictures in (0, 1):
        first = pictures * patches
        longest = min(first + text_tokens, max_length - _NEW_TOKENS)
        lengths = {bucket_length(n): n for n in range(first + 1, longest + 1)}
        for length in lengths.values():
            vision_index = np.full(length, -1, np.int32)
            vision_index[:first] = np.arange(first)
            images = np.zeros((pictures, image_size, image_size, 3), np.uint8)
            prompts.append(Prompt(np.zeros(length, np.int32), vision_index, images))
    return prompts


class WarmUp:
    """Answers prompts that nobody asked, in a thread of its own, by turns with those of clients.
    `going` until all are answered, or the engine takes no more."""

    def __init__(self, engine: ContinuousEngine, prompts: list[Prompt], say: Callable[[str], None]):
        self._engine, self._prompts, self._say = engine, prompts, say
        self.going = bool(prompts)

    def start(self) -> None:
        threading.Thread(target=self._run, name="warm-up", daemon=True).start()

    def _run(self) -> None:
        began = time.monotonic()
        try:
            for number, prompt in enumerate(self._prompts, 1):
                start = time.monotonic()
                if not self._answered(prompt):
                    self._say(f"warm-up ends after {number - 1} of {len(self._prompts)} programs")
                    return
                self._say(
                    f"warm-up {number} of {len(self._prompts)}: "
                    f"{bucket_length(len(prompt.tokens))} tokens"
                    f"{' with a picture' if len(prompt.images) else ''}, "
                    f"{time.monotonic() - start:.1f} s"
                )
            self._say(f"warm-up took {time.monotonic() - began:.1f} s")
        finally:
            self.going = False

    def _answered(self, prompt: Prompt) -> bool:
        ended = threading.Event()

        def deliver(tokens: list[Token], last: bool) -> None:
            if last:
                ended.set()

        try:
            ticket = self._engine.submit(prompt, _NEW_TOKENS, GREEDY, deliver, _CLIENT)
        except FullError:
            return False
        ended.wait()
        return ticket.ended_by in ("eos", "limit")
