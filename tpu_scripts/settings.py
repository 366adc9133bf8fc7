"""One TOML file says which slice, what runs on it, and what it may cost."""

import dataclasses
import math
import re
import tomllib
from pathlib import Path
from typing import Any

from data_pipeline.common.errors import UserError
from tpu_scripts.accelerators import PRICES, Accelerator

CAPACITIES = ("on-demand", "spot", "reserved")


@dataclasses.dataclass(frozen=True)
class Settings:
    """`budget` is in dollars, of everything under this `name`; `max_hours` of a babysitter's whole
    watch, waiting for capacity included. `slices`: of one job, joined by the data-centre network.
    `train`: what `svit train` is given beside --workdir; `experiment`: where it is given, the plans
    and options of `tpu_scripts.experiments`, which then runs in training's place. `mounts`: buckets
    (or BUCKET/FOLDER) that every host mounts read-only under ~/svit/mounts. `install` and `python`
    are run on every host, in the folder of the code. `workdir` "": the bucket's folder of this
    name. `price_per_chip_hour` 0: the table's. `cluster` and `image` are for GKE alone."""

    project: str
    zone: str
    name: str
    accelerator_type: str
    bucket: str
    budget: float
    train: tuple[str, ...] = ()
    experiment: tuple[str, ...] = ()
    capacity: str = "spot"
    queued: bool = True
    slices: int = 1
    max_hours: float = 72.0
    max_restarts: int = 20
    price_per_chip_hour: float = 0.0
    workdir: str = ""
    mounts: tuple[str, ...] = ()
    install: str = "bash tpu_scripts/host/install.sh tpu,gcs"
    python: str = "../venv/bin/python"
    runtime_version: str = ""
    service_account: str = ""
    cluster: str = ""
    image: str = ""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", self.name):
            raise UserError(
                f"name is '{self.name}'; write lower-case letters, digits and hyphens, beginning "
                "with a letter, as gcloud wants it."
            )
        if self.capacity not in CAPACITIES:
            raise UserError(
                f"capacity is '{self.capacity}'; choose one of {', '.join(CAPACITIES)}."
            )
        if not self.bucket.startswith("gs://"):
            raise UserError(f"bucket is '{self.bucket}'; write it as gs://NAME.")
        if not 0 < self.budget < math.inf:
            raise UserError(
                f"budget is {self.budget}; give the dollars that '{self.name}' may cost in all: "
                "nothing is created without a limit."
            )
        if self.slices < 1 or (self.slices > 1 and not self.queued):
            raise UserError(
                f"slices is {self.slices} with queued={str(self.queued).lower()}; give 1 or more, "
                "and several only as a queued resource."
            )
        Accelerator.parse(self.accelerator_type)

    @property
    def accelerator(self) -> Accelerator:
        return Accelerator.parse(self.accelerator_type)

    @property
    def hosts(self) -> int:
        """Of all slices."""
        return self.accelerator.hosts * self.slices

    @property
    def runtime(self) -> str:
        return self.runtime_version or self.accelerator.runtime

    @property
    def nodes(self) -> tuple[str, ...]:
        """The TPU VMs, as gcloud names them."""
        if self.slices == 1:
            return (self.name,)
        return tuple(f"{self.name}-{index}" for index in range(self.slices))

    @property
    def per_chip_hour(self) -> float:
        return self.price_per_chip_hour or PRICES[self.accelerator.generation]

    @property
    def per_hour(self) -> float:
        """Dollars, while all of it runs."""
        return self.accelerator.chips * self.slices * self.per_chip_hour

    @property
    def run_folder(self) -> str:
        return self.workdir or f"{self.bucket.rstrip('/')}/{self.name}"

    @property
    def command(self) -> tuple[str, ...]:
        """What every host runs, in the code's folder. The same command goes on with the run."""
        if self.experiment:
            where = f"--out={self.run_folder}/experiment", f"--hosts={self.hosts}"
            keys = [text for text in self.train if re.match(r"--\w+\.", text)]
            return (self.python, "-m", "tpu_scripts.experiments", *self.experiment, *where, *keys)
        workdir = f"--workdir={self.run_folder}"
        return (self.python, "-m", "svit_jax.cli", "train", workdir, *self.train)

    @property
    def doctor(self) -> tuple[str, ...]:
        """What looks at every host before that, in the same folder: of `train` it knows the config
        and its keys alone."""
        workdir = f"--workdir={self.run_folder}"
        devices = f"--devices={self.accelerator.chips * self.slices}"
        given = [text for text in self.train if re.match(r"--(config=|\w+\.)", text)]
        if "--config" in self.train[:-1]:
            place = self.train.index("--config")
            given = [*self.train[place : place + 2], *given]
        return (self.python, "-m", "svit_jax.cli", "doctor", workdir, devices, *given)


def read_settings(path: str | Path) -> Settings:
    """The settings of a TOML file. Raises UserError for a key that is unknown, missing or of
    another type."""
    file = Path(path)
    if not file.is_file():
        raise UserError(f"there is no file {file}; copy tpu_scripts/example.toml and fill it in.")
    try:
        found = tomllib.loads(file.read_text())
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{file} is not valid TOML ({error}); correct it.") from None
    fields = {field.name: field for field in dataclasses.fields(Settings)}
    unknown = sorted(found.keys() - fields.keys())
    if unknown:
        raise UserError(f"{file} has the unknown key '{unknown[0]}'; keys are {', '.join(fields)}.")
    missing = [
        name
        for name, field in fields.items()
        if field.default is dataclasses.MISSING and name not in found
    ]
    if missing:
        raise UserError(f"{file} lacks {', '.join(missing)}; see tpu_scripts/example.toml.")
    return Settings(**{key: _typed(file, key, found[key], fields[key].type) for key in found})


def _typed(file: Path, key: str, value: Any, kind: Any) -> Any:
    if kind == tuple[str, ...] and isinstance(value, list):
        if all(isinstance(item, str) for item in value):
            return tuple(value)
    elif kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    elif type(value) is kind:
        return value
    names = {tuple[str, ...]: "list of strings", float: "number", int: "whole number", bool: "true"}
    raise UserError(f"{file}: {key} is {value!r}; it must be a {names.get(kind, 'string')}.")
