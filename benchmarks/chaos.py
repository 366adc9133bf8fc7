"""Training killed with SIGKILL at twenty random moments, against a run never interrupted.

    python benchmarks/chaos.py --out benchmarks/results

Each kill is aimed at a phase: compiling, restoring, a step, a checkpoint that is saved, an
evaluation. The log says which phase each kill hit, whether a checkpoint was being written in the
background then, and whether both runs ended with the same bits.
"""

import argparse
import contextlib
import dataclasses
import functools
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from measuring import machine, record

from data_pipeline.common.files import write_json
from data_pipeline.instructions.vqa import convert_vqa
from data_pipeline.records.source import open_records
from data_pipeline.records.writer import write_dataset
from data_pipeline.text.corpus import training_texts
from data_pipeline.text.tokenizer import train_tokenizer
from data_pipeline.toy_world.generate import generate_world
from svit_jax.checkpoints.manager import load_parameters, newest_checkpoint, stored_parameters
from svit_jax.config import load_config, run_config
from svit_jax.training import loop
from svit_jax.training.state import TrainState
from svit_jax.training.telemetry import Stopwatch, read_metrics

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "svit_v1_5_7b_finetune.py"
STEPS = 150
SETTINGS = (
    "train.loss_groups=0",
    f"train.steps={STEPS}",
    *("train.log_every=1", "train.loss_chunk=32", "checkpoint.every=8"),
    *("data.batch_size=2", "data.row_length=128", "data.pictures_per_row=2"),
    *("model.compute.dtype=float32", "optim.learning_rate=1e-3"),
)
PHASES = ("compile", "restore", "step", "save", "evaluation")
EVALUATE_EVERY = 3


def make_inputs(folder: Path) -> None:
    """A few pictures of the toy world as a dataset, and a tokenizer."""
    generate_world(folder / "world", train_scenes=8, held_out_scenes=1, novel_scenes=0)
    split = folder / "world" / "train"
    vqa = split / "vqa" / "questions.json", split / "vqa" / "annotations.json"
    convert_vqa(*vqa, folder / "rows.json", pairs_per_dialogue=2)
    write_dataset([folder / "rows.json"], split / "images", folder / "data", "tiny")
    dialogues = [d for entry in open_records(folder / "data").entries for d in entry.dialogues]
    train_tokenizer(training_texts(dialogues), folder / "tokenizer.model", 400)


@dataclasses.dataclass(frozen=True)
class Moment:
    """When a run dies: `delay` seconds after it got into the phase, at the step or later."""

    phase: str
    step: int
    delay: float

    def is_here(self, phase: str, step: int) -> bool:
        return phase == self.phase and (phase in ("compile", "restore") or step >= self.step)


def run_in_phases(workdir: Path, moment: Moment | None) -> None:
    """Trains in this process, and keeps in a file beside the workdir where it stands.

    It kills itself: on a busy machine another process would often come too late."""
    inputs = workdir.parent / "inputs"
    data = f"data.train={inputs / 'data'}", f"data.tokenizer={inputs / 'tokenizer.model'}"
    config = run_config(load_config(f"{CONFIG}:tiny", [*data, *SETTINGS]))
    jax.config.update("jax_compilation_cache_dir", str(workdir.parent / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    phase = os.open(phase_file(workdir), os.O_WRONLY)
    step = 0

    def note(name: str) -> None:
        nonlocal moment
        os.pwrite(phase, f"{name} {step}".ljust(32).encode(), 0)
        if moment and moment.is_here(name, step):
            die = functools.partial(os.kill, os.getpid(), signal.SIGKILL)
            # A timer may come late where the machine is busy, and find the next phase.
            threading.Timer(moment.delay, die).start() if moment.delay else die()
            moment = None

    true_timing, true_restore = Stopwatch.timing, loop.restore_newest
    names = {"hook": "evaluation", "checkpoint": "save", "data": "step"}

    @contextlib.contextmanager
    def timing(watch: Stopwatch, activity: str) -> Iterator[None]:
        nonlocal step
        note(names.get(activity, activity))
        with true_timing(watch, activity):
            yield
        step += activity == "data"

    def restore(*arguments: Any) -> Any:
        nonlocal step
        note("restore")
        found = true_restore(*arguments)
        step = found[2]
        return found

    def evaluate(step: int, state: TrainState) -> None:
        norms = jax.device_get([(value**2).sum() for value in state.parameters().values()])
        write_json(workdir / "evaluation.json", {"step": step, "norm": float(sum(norms))})

    Stopwatch.timing, loop.restore_newest = timing, restore  # type: ignore[method-assign]
    loop.train(config, workdir, hooks=((EVALUATE_EVERY, evaluate),))


def phase_file(workdir: Path) -> Path:
    return workdir.with_suffix(".phase")


@dataclasses.dataclass(frozen=True)
class Run:
    """A run, each start of it a process of its own."""

    workdir: Path

    def start(self, *options: str) -> int:
        """Runs until it ends; returns its exit code."""
        phase_file(self.workdir).write_text("start 0")
        command = [sys.executable, "-X", "faulthandler", __file__, "--train", str(self.workdir)]
        with self.workdir.with_suffix(".log").open("a") as log:
            return subprocess.run([*command, *options], stdout=log, stderr=log).returncode

    def phase(self) -> tuple[str, int]:
        """The phase that the run is in, and its step."""
        name, step = phase_file(self.workdir).read_text().split()
        return name, int(step)

    def writes_checkpoint(self) -> bool:
        return any((self.workdir / "checkpoints").glob("*.orbax-checkpoint-tmp"))

    def kill(self, moment: Moment) -> dict[str, Any]:
        """Runs until the moment, and says what was hit; "nothing" where the run ended before."""
        begun = time.monotonic()
        ended = self.start("--kill", json.dumps(dataclasses.astuple(moment)))
        hit, at = self.phase()
        if ended != -signal.SIGKILL:
            hit = f"nothing: it ended with {ended}"
        seconds = round(time.monotonic() - begun, 1)
        return {
            "aimed_at": moment.phase,
            "hit": hit,
            "checkpoint_half_written": self.writes_checkpoint(),
            "step": at,
            "after_seconds": seconds,
        }

    def finish(self) -> None:
        if self.start():
            raise SystemExit(f"a run failed; see {self.workdir.with_suffix('.log')}")


def moments(kills: int, seed: int) -> Iterator[Moment]:
    """The moment of each kill: each phase as often, in random order, and steps that rise so that
    the run gets on. The first kill is of a compilation that no cache holds yet. A phase's first
    kill comes as it begins, the others after a while."""
    drawn = random.Random(f"chaos/{seed}")
    aims = [PHASES[n % len(PHASES)] for n in range(kills)]
    drawn.shuffle(aims)
    aims.insert(0, aims.pop(aims.index("compile")))
    steps = sorted(drawn.sample(range(5, STEPS - 10), kills))
    longest = {"compile": 1.0, "restore": 0.05, "step": 0.01, "save": 0.03, "evaluation": 0.005}
    for n, (aim, step) in enumerate(zip(aims, steps, strict=True)):
        yield Moment(aim, step, drawn.uniform(0, longest[aim]) if aim in aims[:n] else 0)


def same_bits(one: Path, other: Path) -> dict[str, Any]:
    """What two runs' ends have in common."""
    ours, theirs = newest_checkpoint(one), newest_checkpoint(other)
    shapes = stored_parameters(theirs)
    found, expected = (jax.device_get(load_parameters(each, shapes)) for each in (ours, theirs))
    rows = read_metrics(one), read_metrics(other)
    return {
        "parameters": sum(value.size for value in expected.values()),
        "parameters_identical": all(np.array_equal(found[k], expected[k]) for k in expected),
        "logged_steps": len(rows[1]),
        "log_identical": rows[0] == rows[1],
        "last_step": int(ours.name),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workdir", help="where the two runs stay, `whole` and `killed`")
    parser.add_argument("--out", help="folder of chaos.json")
    parser.add_argument("--train", help=argparse.SUPPRESS)
    parser.add_argument("--kill", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.train:
        return run_in_phases(Path(options.train), options.kill and Moment(*options.kill))
    with contextlib.ExitStack() as stack:
        scratch = stack.enter_context(tempfile.TemporaryDirectory())
        root = Path(options.workdir or scratch)
        make_inputs(root / "inputs")
        killed, whole = Run(root / "killed"), Run(root / "whole")
        log = []
        for moment in moments(options.kills, options.seed):
            log.append(killed.kill(moment))
            print(json.dumps(log[-1]), flush=True)
        killed.finish()
        whole.finish()
        result = {
            "steps": STEPS,
            "kills": log,
            "hits": dict(Counter(kill["hit"] for kill in log)),
            "checkpoints_half_written": sum(kill["checkpoint_half_written"] for kill in log),
            **same_bits(killed.workdir, whole.workdir),
            **machine(),
        }
        print(json.dumps({key: value for key, value in result.items() if key != "kills"}))
        record(result, options.out, "chaos")
        if not (result["parameters_identical"] and result["log_identical"]):
            raise SystemExit("the run that was killed ended otherwise than the whole one")


if __name__ == "__main__":
    main()
