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
    """What is read and how it becomes batches. `batch_size` is the global number of rows.

    `train` is a folder, several ("a,b": all of each) or a mixture ("a=0.7,b=0.3": shares of the
    rows). `dialogue_length`: the most tokens of a dialogue, in rows that may be longer.
    `reference_devices`: for how many devices a padded plan groups its batches, as the reference's
    sampler would; 0 draws them at random.
    `heldout`: a folder of records to evaluate on, "" for none. `cache`: a local folder for the copy
    of a dataset that lies in a bucket."""

    train: str
    tokenizer: str
    batch_size: int
    row_length: int
    pictures_per_row: int
    split: str = "train"
    heldout: str = ""
    heldout_split: str = "train"
    template: str = "v1"
    after_eos: AfterEos = "4.31"
    plan: PlanKind = "packed"
    dialogue_length: int = 2048
    reference_devices: int = 8
    image_mode: AspectMode = "pad"
    workers: int = 0
    max_bad: int = 0
    cache: str = ""


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """`steps` updates, or, where it is 0, `epochs` over the plan's rows. `max_skipped` steps in a
    row without a finite loss and gradient stop the run, and so do `hang_seconds` in which no step,
    evaluation or save ends (0: never). A step goes through its rows in `accumulate` microbatches.
    The loss is the mean over its targets, or, with `loss_groups` of n, the mean of the means of n
    groups of rows, as n devices with a mean of their own have it. XLA compiles with
    `compiler_options` (NAME=VALUE), and `compilation_cache` keeps what it made ("": nothing).
    Evaluations come every `eval_every` steps (0: never) and at the end. `wandb`: a project of
    Weights & Biases to log to, "" for none."""

    steps: int = 0
    epochs: float = 1.0
    seed: int = 0
    log_every: int = 10
    eval_every: int = 0
    wandb: str = ""
    loss_chunk: int = 256
    loss_groups: int = 0
    accumulate: int = 1
    compiler_options: tuple[str, ...] = ()
    compilation_cache: str = "~/.cache/svit-jax"
    max_skipped: int = 10
    hang_seconds: float = 1800.0


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """`init`: "scratch", or the workdir or checkpoint that parameters come from; those that match
    `fresh` (regular expressions over paths) are initialised anew all the same, and so are LoRA's
    where the checkpoint is of a model without it. Saved every `every` steps (0: never, for a run
    that only measures); `Retention` says what stays."""

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
