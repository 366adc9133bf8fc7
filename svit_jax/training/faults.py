"""Steps whose loss or gradient is not finite: counted, and past a limit the run stops and says on
which records."""

import dataclasses
from typing import Any

from etils import epath

from data_pipeline.common.dialogue import picture_names
from data_pipeline.common.errors import UserError
from data_pipeline.common.files import write_jsonl
from data_pipeline.loading.plan import Plan
from data_pipeline.loading.source import DialogueSource
from svit_jax import distributed

NON_FINITE_FILE = "non_finite.jsonl"

_NAMED = 8


@dataclasses.dataclass
class SkippedSteps:
    """How many steps were skipped so far, and those that now stand in a row, as steps are numbered
    in the metrics. It is kept in checkpoints, so that a resumed run counts as an unbroken one."""

    total: int = 0
    in_row: list[int] = dataclasses.field(default_factory=list)

    def add(self, step: int, skipped: bool) -> None:
        self.total += skipped
        self.in_row = [*self.in_row, step] if skipped else []


def stop_for_skipped(
    skipped: SkippedSteps, workdir: epath.Path, plan: Plan, source: DialogueSource, batch_size: int
) -> None:
    """Writes what the skipped steps in a row held to `NON_FINITE_FILE`, a line for each step, and
    raises a UserError with the record ids of the last one."""
    path = workdir / NON_FINITE_FILE
    batches = _batches(skipped.in_row, plan, source, batch_size)
    distributed.by_first("skipped steps", lambda: write_jsonl(path, batches))
    last = batches[-1]
    ids = list(dict.fromkeys(d["id"] for row in last["rows"] for d in row["dialogues"]))
    more = f" and {len(ids) - _NAMED} more" if len(ids) > _NAMED else ""
    raise UserError(
        f"loss or gradient was not finite in {len(skipped.in_row)} steps in a row "
        f"(train.max_skipped), up to step {last['step']}, whose batch holds the records "
        f"{', '.join(ids[:_NAMED])}{more}; {path} lists each of these batches, and the "
        "same command with --replay finds the rows: mend the records or lower "
        "optim.learning_rate in a new run (checkpoint.init), or go on with a higher "
        "train.max_skipped."
    )


def _batches(
    steps: list[int], plan: Plan, source: DialogueSource, batch_size: int
) -> list[dict[str, Any]]:
    places = {
        step: range((step - 1) * batch_size, step * batch_size)  # step s used batch s - 1
        for step in steps
    }
    planned = {index: plan.row(index).tolist() for rows in places.values() for index in rows}
    wanted = {record for row in planned.values() for record, *_ in row}
    found = {n: entry for n, entry in enumerate(source.entries) if n in wanted}

    def dialogue(record: int, place: int, tokens: int, pictures: int) -> dict[str, Any]:
        entry = found[record]
        return {
            "id": ", ".join(picture_names(entry.image_id)) or f"record {record}",
            "record": record,
            "dialogue": entry.dialogues[place].id,
            "tokens": tokens,
            "pictures": pictures,
        }

    return [
        {
            "step": step,
            "rows": [
                {"row": index, "dialogues": [dialogue(*each) for each in planned[index]]}
                for index in rows
            ],
        }
        for step, rows in places.items()
    ]
