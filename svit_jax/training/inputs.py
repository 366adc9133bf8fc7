"""A run's data, opened: records, tokenizer, template, and the plan of its rows."""

import dataclasses
import sys
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor

from etils import epath

from data_pipeline.common.errors import UserError
from data_pipeline.common.files import PathLike
from data_pipeline.common.progress import note
from data_pipeline.common.quarantine import Quarantine
from data_pipeline.loading.mixture import Mixture
from data_pipeline.loading.pipeline import ImageSpec, Loaded, make_loader
from data_pipeline.loading.plan import Plan, build_plan, plan_inputs
from data_pipeline.loading.source import DialogueSource, JoinedSource
from data_pipeline.records.local_copy import local_copy
from data_pipeline.records.source import open_records
from data_pipeline.text.templates import Template, get_template
from data_pipeline.text.tokenizer import Tokenizer
from svit_jax import distributed
from svit_jax.batch import Batch
from svit_jax.training.settings import RunConfig

PAPER_SAMPLES = 128
"""Of SVIT-v1.5's and LLaVA-1.5's stage 2, a step."""


@dataclasses.dataclass(frozen=True)
class Inputs:
    """Everything that batches are made of."""

    source: DialogueSource
    tokenizer: Tokenizer
    template: Template
    plan: Plan

    @classmethod
    def open(cls, config: RunConfig, workdir: PathLike, keep_plan: bool) -> "Inputs":
        """`keep_plan`: the plan in the workdir is this run's and must fit; else it is made anew."""
        data = config.data
        mixture = Mixture.parse(data.train)
        folders = [local_copy(folder, data.split, data.cache) for folder in mixture.folders]
        opened = [open_records(folder, data.split) for folder in folders]
        for records in opened:
            if records.header.resize:
                records.header.resize.require_fit(config.model.vision.image_size, data.image_mode)
        source = JoinedSource(tuple(opened)) if len(opened) > 1 else opened[0]
        tokenizer = Tokenizer(data.tokenizer)
        if tokenizer.vocab_size > config.model.decoder.vocab:
            raise UserError(
                f"tokenizer {data.tokenizer} has {tokenizer.vocab_size} pieces, more than "
                f"model.decoder.vocab={config.model.decoder.vocab}; raise that key."
            )
        template = get_template(data.template, data.after_eos)
        inputs = plan_inputs(
            source,
            tokenizer,
            template,
            patches=config.model.vision.patches,
            row_length=data.row_length,
            pictures_per_row=data.pictures_per_row,
            seed=config.train.seed,
            kind=data.plan,
            dialogue_length=data.dialogue_length,
            batch_size=data.batch_size,
            reference_devices=data.reference_devices,
            parts=tuple(zip(map(len, opened), mixture.shares, strict=True))
            if mixture.shares
            else (),
        )
        root = epath.Path(workdir)
        folder = root / "plan"

        def make_plan() -> None:
            if keep_plan and (folder / "plan.json").exists():
                return
            quarantine = Quarantine(root / "unplanned.jsonl", data.max_bad)
            build_plan(source, tokenizer, template, inputs, quarantine).save(folder)
            if len(quarantine):
                quarantine.save()

        distributed.by_first("plan", make_plan)
        if not (folder / "plan.json").exists():
            raise UserError(
                f"{distributed.name()} finds no plan in {folder}, where process 0 wrote it; give a "
                "workdir that all hosts share."
            )
        plan = Plan.load(folder, inputs)
        note(batch_line(plan, data.batch_size))
        return cls(source, tokenizer, template, plan)

    def loader(
        self, config: RunConfig, local_rows: tuple[int, ...], start: int, steps: int
    ) -> Generator[Loaded, None, None]:
        """This host's rows of the batches of steps `start` to `steps`, in order."""
        return make_loader(
            self.plan,
            self.source,
            self.tokenizer,
            self.template,
            ImageSpec(config.model.vision.image_size, config.data.image_mode),
            config.data.batch_size,
            start,
            steps - start,
            local_rows=local_rows,
            workers=config.data.workers,
            # Of several processes each sees some of the records: they count together, in News.
            max_bad=config.data.max_bad if distributed.alone() else sys.maxsize,
        )


def batch_line(plan: Plan, batch_size: int) -> str:
    """How many dialogues a step holds, and of a packed plan, how many rows would hold the paper's
    128; of a mixture, how long each part lasts."""
    found = plan.statistics()
    samples = found.dialogues_per_row * batch_size
    line = f"batch: {batch_size} rows a step hold {samples:.0f} dialogues"
    if plan.inputs.kind == "packed" and abs(samples / PAPER_SAMPLES - 1) > 0.05:
        rows = max(1, round(PAPER_SAMPLES / found.dialogues_per_row))
        held = rows * found.dialogues_per_row
        line += f"; the paper's {PAPER_SAMPLES}: data.batch_size={rows} holds {held:.0f}"
    shares = plan.inputs.shares
    for number, (rows, share) in enumerate(zip(plan.part_rows, shares, strict=True), start=1):
        if len(shares) > 1:
            part = share / sum(shares)
            steps = rows / part / batch_size
            line += f"; part {number}: {part:.1%} of the rows, all of its own in {steps:.0f} steps"
    return line


class Ahead:
    """A host's batches on the devices, each made and put there while the step before it runs.

    `next` gives the next one with what the loader says of it; `ready` tells whether it would not
    wait for that.
    """

    def __init__(self, loader: Generator[Loaded, None, None], put: Callable[[Batch], Batch]):
        self._loader = loader
        self._put = put
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="next-batch")
        self._next = self._thread.submit(self._make)

    def _make(self) -> tuple[Loaded, Batch] | None:
        loaded = next(self._loader, None)
        return None if loaded is None else (loaded, self._put(loaded.batch))

    @property
    def ready(self) -> bool:
        return self._next.done()

    def __next__(self) -> tuple[Loaded, Batch]:
        made = self._next.result()
        if made is None:
            raise StopIteration
        self._next = self._thread.submit(self._make)
        return made

    def close(self) -> None:
        self._thread.shutdown(cancel_futures=True)
        self._loader.close()
