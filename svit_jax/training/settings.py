"""What a training run is told: one frozen dataclass for each section of its config."""

import dataclasses

from data_pipeline.images.transforms import AspectMode
from data_pipeline.loading.plan import PlanKind
from data_pipeline.text.templates import AfterEos
from svit_jax.checkpoints.retention import Retention
from svit_jax.models.svit import Compute, SvitConfig
from svit_jax.sharding.mesh import MeshConfig
from svit_jax.sharding.rules import Rules
from svit_jax.training.optimizer import OptimConfig


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """What is read and how it becomes batches. `batch_size` is the global number of rows; `cache`
    is a local folder for the copy of a dataset that lies in a bucket."""

    train: str
    tokenizer: str
    batch_size: int
    row_length: int
    pictures_per_row: int
    split: str = "train"
    template: str = "v1"
    after_eos: AfterEos = "4.31"
    plan: PlanKind = "packed"
    image_mode: AspectMode = "pad"
    workers: int = 0
    max_bad: int = 0
    cache: str = ""


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """`steps` updates, or, where it is 0, `epochs` over the plan's rows. `max_skipped` steps in a
    row without a finite loss and gradient stop the run, and so do `hang_seconds` in which no step,
    evaluation or save ends (0: never)."""

    steps: int = 0
    epochs: float = 1.0
    seed: int = 0
    log_every: int = 10
    loss_chunk: int = 256
    max_skipped: int = 10
    hang_seconds: float = 1800.0


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """`init`: "scratch", or the workdir or checkpoint that parameters come from; those that match
    `fresh` (regular expressions over paths) are initialised anew all the same, and so are LoRA's
    where the checkpoint is of a model without it. Saved every `every` steps; `Retention` says what
    stays."""

    init: str = "scratch"
    fresh: tuple[str, ...] = ()
    every: int = 500
    keep: int = 2
    keep_every: int = 0
    best: str = ""

    @property
    def retention(self) -> Retention:
        return Retention(self.keep, self.keep_every, self.best)


@dataclasses.dataclass(frozen=True)
class RunConfig:
    model: SvitConfig
    compute: Compute
    mesh: MeshConfig
    data: DataConfig
    optim: OptimConfig
    train: TrainConfig
    checkpoint: CheckpointConfig
    rules: Rules = dataclasses.field(default_factory=Rules)
