"""A run's data, opened: records, tokenizer, template, and the plan of its rows."""

import dataclasses
from collections.abc import Iterator

from etils import epath

from data_pipeline.common.errors import UserError
from data_pipeline.common.quarantine import Quarantine
from data_pipeline.loading.pipeline import ImageSpec, Loaded, make_loader
from data_pipeline.loading.plan import Plan, build_plan, plan_inputs
from data_pipeline.records.local_copy import local_copy
from data_pipeline.records.source import RecordSource, open_records
from data_pipeline.text.templates import Template, get_template
from data_pipeline.text.tokenizer import Tokenizer
from svit_jax.training.settings import RunConfig


@dataclasses.dataclass(frozen=True)
class Inputs:
    """Everything that batches are made of."""

    source: RecordSource
    tokenizer: Tokenizer
    template: Template
    plan: Plan

    @classmethod
    def open(cls, config: RunConfig, workdir: epath.Path, keep_plan: bool) -> "Inputs":
        """`keep_plan`: the plan in the workdir is this run's and must fit; else it is made anew."""
        data = config.data
        source = open_records(local_copy(data.train, data.split, data.cache), data.split)
        if source.header.resize:
            source.header.resize.require_fit(config.model.vision.image_size, data.image_mode)
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
        )
        folder = workdir / "plan"
        if keep_plan and (folder / "plan.json").exists():
            plan = Plan.load(folder, inputs)
        else:
            quarantine = Quarantine(workdir / "unplanned.jsonl", data.max_bad)
            plan = build_plan(source, tokenizer, template, inputs, quarantine).save(folder)
            if len(quarantine):
                quarantine.save()
        return cls(source, tokenizer, template, plan)

    def loader(
        self, config: RunConfig, local_rows: tuple[int, ...], start: int, steps: int
    ) -> Iterator[Loaded]:
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
            max_bad=config.data.max_bad,
        )
