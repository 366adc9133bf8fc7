"""Where rejected records go, each with its reason, so that nothing is dropped in silence."""

from collections import Counter
from typing import Any

from data_pipeline.common.errors import UserError
from data_pipeline.common.files import PathLike, write_jsonl


class Quarantine:
    """Collects rejected records; past `max_bad` the run stops. `save` writes them as JSONL."""

    def __init__(self, path: PathLike, max_bad: int | None = None):
        self.path = path
        self.max_bad = max_bad
        self.rows: list[dict[str, Any]] = []

    def add(self, record_id: str, reason: str, **details: Any) -> None:
        self.rows.append({"id": record_id, "reason": reason, **details})
        if self.max_bad is not None and len(self.rows) > self.max_bad:
            self.save()
            raise UserError(
                f"{len(self.rows)} bad records, more than the {self.max_bad} allowed; the last is "
                f"{record_id}: {reason} All are listed in {self.path}; mend them or raise "
                "the limit (--max-bad; in training --data.max_bad)."
            )

    def counts(self) -> dict[str, int]:
        """How many records were rejected for each reason kind (the text before the first colon)."""
        return dict(Counter(row["reason"].split(":")[0] for row in self.rows))

    def save(self) -> None:
        write_jsonl(self.path, self.rows)

    def __len__(self) -> int:
        return len(self.rows)
