"""One generation run: what it asks, and what its journal has of it."""

import dataclasses
from collections.abc import Callable, Collection, Iterator
from types import TracebackType

from etils import epath

from data_pipeline.annotations.scene import read_scenes
from data_pipeline.common.errors import UserError
from data_pipeline.common.files import (
    PathLike,
    content_hash,
    file_sha256,
    read_jsonl,
    require_file,
)
from data_pipeline.common.journal import Journal
from data_pipeline.endpoint.asking import answer_from_row
from data_pipeline.endpoint.budget import Budget
from data_pipeline.endpoint.call import Answer
from data_pipeline.generation.kinds import KINDS, require_kinds
from data_pipeline.generation.prompt import PROMPT_TOKENS, compose_prompt, load_templates
from data_pipeline.generation.teacher import Request, request_key

JOURNAL = "journal.jsonl"
QUARANTINE = "quarantine.jsonl"


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What is asked about: each scene, for each kind. Templates in `template_folder` replace ours.

    `prompt_tokens` is the room that a prompt has (estimated). `retry_rejected` asks again for what
    stands in the out folder's quarantine.
    """

    scenes: PathLike
    out_folder: PathLike
    kinds: Collection[str] = KINDS
    seed: int = 0
    template_folder: PathLike | None = None
    retry_rejected: bool = False
    prompt_tokens: int = PROMPT_TOKENS


class Run:
    """The requests of a run and its open journal; `teacher_name` and `budget` as in `Teacher`.

    Raises UserError where the journal belongs to other scenes, prompts, seed or teacher.
    """

    def __init__(self, inputs: Inputs, teacher_name: str, budget: Budget | None = None):
        self.kinds = require_kinds(inputs.kinds)
        self.seed = inputs.seed
        self.prompt_tokens = inputs.prompt_tokens
        self.out = epath.Path(inputs.out_folder)
        self.templates = load_templates(inputs.template_folder)
        self.image_ids: list[int] = []
        self.cut_lines = 0
        self._scenes_file = require_file(inputs.scenes, "scenes file")
        with self._scenes_file.open("r") as lines:
            self.scenes = sum(1 for line in lines if line.strip())
        # How often each was asked by the end of the last run: after a kill in the middle of asking
        # again, what was asked again since is not asked a third time.
        self._rejected = self._read_rejected() if inputs.retry_rejected else {}
        identity = content_hash(
            [
                teacher_name,
                self.templates,
                inputs.seed,
                inputs.prompt_tokens,
                file_sha256(self._scenes_file),
            ]
        )
        self.journal = Journal(
            str(self.out / JOURNAL), identity, budget.watch if budget is not None else None
        )

    def _read_rejected(self) -> dict[str, int]:
        path = self.out / QUARANTINE
        if not path.exists():
            return {}
        return {row["id"]: row["attempts"] for row in read_jsonl(path, "quarantine")}

    def requests(self, answered: Callable[[], object] | None = None) -> Iterator[Request]:
        """The requests without an answer in the journal, scene by scene; for each that has one,
        `answered` is called.

        When all are read, `image_ids` are those of all scenes. Raises UserError where two scenes
        share an id.
        """
        seen: set[int] = set()
        self.image_ids = []
        for scene in read_scenes(self._scenes_file):
            if scene.image_id in seen:
                raise UserError(
                    f"scenes file {self._scenes_file} has image {scene.image_id} twice; "
                    "write it again with `svit data annotate`."
                )
            seen.add(scene.image_id)
            self.image_ids.append(scene.image_id)
            for kind in self.kinds:
                attempt = self._attempt(scene.image_id, kind)
                if request_key(scene.image_id, kind, attempt) not in self.journal:
                    prompt = compose_prompt(kind, scene, self.templates, self.prompt_tokens)
                    self.cut_lines += prompt.cut_lines
                    yield Request(kind, scene, prompt, self.seed, attempt)
                elif answered is not None:
                    answered()

    def _attempt(self, image_id: int, kind: str) -> int:
        return 1 + self._rejected.get(request_key(image_id, kind), 0)

    @property
    def total(self) -> int:
        """How many requests there are, answered or not."""
        return self.scenes * len(self.kinds)

    def answers(self, image_id: int, kind: str) -> list[Answer]:
        """The journalled answers to one question, by attempt."""
        answers: list[Answer] = []
        while (key := request_key(image_id, kind, len(answers) + 1)) in self.journal:
            answers.append(answer_from_row(self.journal[key]))
        return answers

    def __enter__(self) -> "Run":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.journal.close()
