"""Questions without an answer on file: counted as the official tool counts them, and named."""

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from data_pipeline.common.errors import UserError
from svit_jax.evaluation.benchmark import Question


class Unanswered(enum.Enum):
    """What a benchmark's own script does with a question that has no answer."""

    REFUSED = "refused"
    WRONG = "counted as wrong"
    LEFT_OUT = "left out, of the count too"


RULES: Mapping[str, Unanswered] = {
    # LLaVA's eval_science_qa.py puts FAILED in the place; convert_seed_for_submission.py counts
    # the question; convert_mmbench_for_submission.py leaves the cell empty.
    "scienceqa": Unanswered.WRONG,
    "seedbench": Unanswered.WRONG,
    "mmbench": Unanswered.WRONG,
    "mmbench_cn": Unanswered.WRONG,
    # POPE's evaluate.py, LLaVA's eval_textvqa.py and MMMU's main_eval_only.py go through answers.
    "pope": Unanswered.LEFT_OUT,
    "textvqa": Unanswered.LEFT_OUT,
    "mmmu": Unanswered.LEFT_OUT,
}
"""By benchmark; any other is refused, as the VQA challenge, GQA's eval.py and MME's pairs do."""


@dataclass(frozen=True)
class Settled:
    """What is scored, and a sentence about what was missing ("" where nothing was)."""

    questions: Sequence[Question]
    answers: Mapping[str, str]
    note: str


def settle(
    benchmark: str,
    questions: Sequence[Question],
    answers: Mapping[str, str],
    strict: bool = False,
) -> Settled:
    """Questions and answers as the benchmark's own script would count them; strictly a question
    without an answer is always wrong. Raises UserError where the script refuses such a file."""
    missing = [q.question_id for q in questions if q.question_id not in answers]
    if not missing:
        return Settled(questions, answers, "")
    rule = Unanswered.WRONG if strict else RULES.get(benchmark, Unanswered.REFUSED)
    shown = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
    state = f"{len(missing)} of {len(questions)} questions have no answer ({shown})"
    if rule is Unanswered.REFUSED:
        raise UserError(
            f"{benchmark}: {state}, which the official script refuses; finish the run, or count "
            "them as wrong with --strict."
        )
    note = f"{benchmark}: {state}: {rule.value}."
    if rule is Unanswered.LEFT_OUT:
        return Settled([q for q in questions if q.question_id in answers], answers, note)
    return Settled(questions, {**dict.fromkeys(missing, ""), **answers}, note)
