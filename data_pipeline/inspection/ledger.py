"""Whether shards hold exactly the rows of the JSON files: a balance, kept in one pass over each."""

from collections import Counter
from collections.abc import Iterator

from data_pipeline.common.dialogue import Dialogue, picture_names
from data_pipeline.inspection.dialogue_checks import text_digest


class Ledger:
    """For each id and picture, rows less dialogues of records, in number and in hashed text.

    What balances is forgotten. A gigabyte at most for 3M rows.
    """

    def __init__(self) -> None:
        self._open: dict[str, tuple[int, int]] = {}

    def add_row(self, image: str | None, dialogue: Dialogue) -> None:
        self._add(1, image, dialogue)

    def add_recorded(self, image: str | None, dialogue: Dialogue) -> None:
        self._add(-1, image, dialogue)

    def _add(self, sign: int, image: str | None, dialogue: Dialogue) -> None:
        key = _key(image, dialogue.id)
        count, text = self._open.get(key, (0, 0))
        balance = count + sign, text + sign * text_digest(image, dialogue)
        if balance == (0, 0):
            del self._open[key]
        else:
            self._open[key] = balance

    def differences(
        self, rejected: Counter[tuple[str | None, str]]
    ) -> Iterator[tuple[str, str, str]]:
        """Yields (defect, dialogue, what differs) for all that does not balance.

        `rejected` counts the rows by (picture, id) that the writer left out with a reason.
        """
        excused = Counter({_key(image, row_id): n for (image, row_id), n in rejected.items()})
        for key, (count, _) in self._open.items():
            image, row_id = key.split("\0", 1)
            about = f"about {', '.join(picture_names(image))}" if image else "without a picture"
            if count == 0:
                yield "text_differs", row_id, f"{about}: the record's text is not the row's."
            elif count > excused[key]:
                missing = count - excused[key]
                yield "not_in_shards", row_id, f"{about}: {missing} of its rows in no record."
            elif count < 0:
                yield "not_in_json", row_id, f"{about}: {-count} more in records than rows."


def _key(image: str | None, row_id: str) -> str:
    # No path holds a NUL, an id may hold anything.
    return f"{image or ''}\0{row_id}"
