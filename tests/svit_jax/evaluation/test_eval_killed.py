"""Several benchmarks in one start, killed within and between them: what was answered stays so."""

import multiprocessing
import os
import signal
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from svit_jax.evaluation.registry import BENCHMARKS
from svit_jax.evaluation.run import evaluate

NAMES = ("gqa", "pope", "mme", "vizwiz")
PRELOADED = ["svit_jax.evaluation.run"]


def answer(data: Path, images: Path, out: Path, log: Path, lives: int | None = None) -> None:
    """Tells each question to the log, then answers it; hangs over the one after so many answers."""
    given = 0
    asked_log = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND)

    def answer_all(asked: Iterable[tuple[object, str]]) -> Iterator[str]:
        nonlocal given
        for picture, question in asked:
            os.write(asked_log, f"{picture} {question!r}\n".encode())
            if given == lives:
                signal.pause()
            given += 1
            yield f"Yes, {question.split()[-1]}"

    evaluate(answer_all, "model", NAMES, data, images, out)


def lines(log: Path) -> list[str]:
    return log.read_text().splitlines() if log.exists() else []


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_kill_9_within_and_between_benchmarks_loses_no_answer(
    benchmarks: Path, images: Path, tmp_path: Path
) -> None:
    counts = [len(BENCHMARKS[name].read(benchmarks / name, images)) for name in NAMES]
    assert counts == [2, 4, 8, 2]
    out, log = tmp_path / "out", tmp_path / "log"
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    # Answers of each start: one within gqa; gqa's last, then over pope's first; all of pope and one
    # of mme; none at all; and the rest.
    for lives in (1, 1, 5, 0):
        before = len(lines(log))
        child = context.Process(target=answer, args=(benchmarks, images, out, log, lives))
        child.start()
        end = time.monotonic() + 60
        while len(lines(log)) < before + lives + 1:
            assert child.is_alive() and time.monotonic() < end
            time.sleep(0.005)
        child.kill()
        child.join()
        assert child.exitcode == -signal.SIGKILL
    assert (out / "gqa.scores.json").exists() and (out / "pope.scores.json").exists()
    assert not (out / "mme.scores.json").exists() and not (out / "vizwiz.journal.jsonl").exists()
    answer(benchmarks, images, out, log)
    answer(benchmarks, images, tmp_path / "whole", tmp_path / "whole.log")
    asked, whole = lines(log), lines(tmp_path / "whole.log")
    assert len(whole) == sum(counts) and len(asked) == len(whole) + 4
    # Only what the killed ones hung over is asked again, and at once.
    hung_over = [place for place, line in enumerate(asked[1:], start=1) if line == asked[place - 1]]
    assert [line for place, line in enumerate(asked) if place not in hung_over] == whole
    assert files(out) == files(tmp_path / "whole")
