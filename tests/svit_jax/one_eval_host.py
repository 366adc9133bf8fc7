"""What one process does in test_eval_on_hosts.py: python one_eval_host.py OUT CHECKPOINT PICTURE.

Every one writes to OUT what it got, and which questions it answered itself.
"""

import json
import os
import sys
from pathlib import Path

import svit_jax
from data_pipeline.common.errors import UserError
from svit_jax import distributed
from svit_jax.evaluation.benchmark import NoPicture
from svit_jax.evaluation.hosts import across_all_hosts, on_all_hosts
from svit_jax.inference.sampler import Sampling


def drawn(question: str) -> Sampling:
    """A model that has hardly learnt anything says the same to all questions: each has a seed."""
    return Sampling(3.0, seed=sum(question.encode()))


def main(out: Path, checkpoint: str, picture: Path) -> None:
    assistant = svit_jax.load(checkpoint, batch_size=2)
    own: list[str] = []

    def answer_all(questions):
        for asked in questions:
            own.append(asked[1])
            if asked[1] == "the bad one":
                raise UserError("a host can't")
            yield from assistant.answer_all([asked], 6, drawn(asked[1]))

    questions = [(picture, f"What is number {n}?") for n in range(5)]
    questions += [(None, "Is it blank?"), (NoPicture.TEXT_ALONE, "What is red?")]
    found = on_all_hosts(answer_all, 2, lambda shared: list(shared(iter(questions))))
    asked_here = list(own)
    failure = None
    try:
        bad = [(None, "good"), (None, "the bad one")]
        on_all_hosts(answer_all, 2, lambda shared: list(shared(bad)))
    except UserError as error:
        failure = str(error)
    seen = {"answers": found, "own": asked_here, "failure": failure}
    seen["across"] = across(picture, out / "none.jpg")
    (out / f"{distributed.place()}.json").write_text(json.dumps(seen))


def across(picture: Path, missing: Path) -> list[object]:
    """The answerer tells what it was asked and shown; then it fails, then a picture is missing."""
    own: list[tuple[str, int]] = []

    def answer_all(questions):
        for shown, text in questions:
            own.append((text, len(shown) if isinstance(shown, bytes) else -1))
            if text == "the bad one":
                raise UserError("no host can")
            yield str(len(text))

    def run(shared, questions):
        return {str(n): float(said) for n, said in enumerate(shared(questions))}

    found: list[object] = []
    questions = [(picture, "a"), (NoPicture.TEXT_ALONE, "bb"), (None, "ccc")]
    for last in ((None, "dddd"), (None, "the bad one"), (missing, "?")):
        try:
            asked = [*questions, last]
            found.append(across_all_hosts(answer_all, 2, lambda shared, a=asked: run(shared, a)))
        except UserError as error:
            found.append(str(error))
    return [*found, own]


if __name__ == "__main__":
    with distributed.job(distributed.Launch.from_environment(os.environ), lambda error: None):
        main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
