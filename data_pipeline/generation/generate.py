"""The generation run: every scene and kind is asked once, however often the run is interrupted."""

from collections.abc import Callable, Collection

from data_pipeline.common.errors import UserError
from data_pipeline.common.files import PathLike
from data_pipeline.common.progress import note, progress_bar
from data_pipeline.endpoint.asking import Conduct, ask_all
from data_pipeline.endpoint.budget import Budget, BudgetError
from data_pipeline.endpoint.call import Answer
from data_pipeline.generation.assemble import GenerationReport, assemble, read_answer
from data_pipeline.generation.kinds import KINDS
from data_pipeline.generation.prompt import PROMPT_TOKENS
from data_pipeline.generation.run import Inputs, Run
from data_pipeline.generation.teacher import Request, Teacher


def generate(
    scenes_path: PathLike,
    out_folder: PathLike,
    teacher: Teacher,
    kinds: Collection[str] = KINDS,
    seed: int = 0,
    max_bad: int | None = None,
    template_folder: PathLike | None = None,
    conduct: Conduct = Conduct(),
    budget: Budget | None = None,
    retry_rejected: bool = False,
    ask: bool = True,
    prompt_tokens: int = PROMPT_TOKENS,
) -> GenerationReport:
    """Asks `teacher` about every scene and writes `<kind>.json` in SVIT's raw format.

    `out_folder` (local disk) also gets `journal.jsonl` (raw responses: a run that was killed goes
    on from it, and ends with the same files), `quarantine.jsonl` and `report.json` (the same too,
    but for `cut_lines`, which is of the last run's calls). Past `max_bad` rejected parts the run
    stops with a UserError. With `ask=False` nobody is asked, and the files
    hold what is answered. Raises UserError where the journal belongs to other scenes, prompts, seed
    or teacher, two scenes share an id, or `budget` is used up.
    """
    inputs = Inputs(
        scenes_path, out_folder, kinds, seed, template_folder, retry_rejected, prompt_tokens
    )
    budget = budget or Budget()
    with Run(inputs, teacher.name, budget) as run:
        for leftover in run.out.glob(".*.partial") if run.out.exists() else ():
            leftover.unlink()  # what a killed run was writing
        if ask and run.journal.in_flight:
            note(
                f"{len(run.journal.in_flight)} calls were in flight when the last run was stopped; "
                "their answers are lost, and they are asked again."
            )
        inspect = None if max_bad is None else _limit(max_bad)
        with progress_bar(run.total, "generate", "call") as bar:
            requests = run.requests(answered=bar.update)
            if ask:
                try:
                    ask_all(requests, teacher, run.journal, budget, conduct, bar, inspect)
                except BudgetError as error:
                    raise UserError(
                        f"{error} Or write files from what is answered with --assemble."
                    ) from None
            else:
                for _ in requests:
                    bar.update()
        return assemble(run, max_bad)


def _limit(max_bad: int) -> Callable[[Request, Answer], None]:
    """Stops paying for answers when this run's alone have too many rejected parts."""
    rejected = 0

    def inspect(request: Request, answer: Answer) -> None:
        nonlocal rejected
        rejections = read_answer(request.kind, answer).rejections
        rejected += len(rejections)
        if rejected > max_bad:
            raise UserError(
                f"{rejected} parts of answers were rejected, more than the {max_bad} allowed; the "
                f"last is of {request.key}: {rejections[-1].reason} Mend the prompts, or raise the "
                "limit (--max-bad) and run the same command again: answers are kept."
            )

    return inspect
