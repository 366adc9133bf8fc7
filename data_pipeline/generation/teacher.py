"""Teacher: whoever answers the prompts, be it an endpoint or the offline templates."""

import dataclasses
from typing import Protocol, runtime_checkable

from data_pipeline.annotations.scene import Scene
from data_pipeline.generation.prompt import Prompt


@dataclasses.dataclass(frozen=True)
class Request:
    """One question to a teacher: `prompt` is `scene` in words; `seed` makes the answer repeatable
    for teachers that can (it is the run's seed; mix in the scene's id and the kind)."""

    kind: str
    scene: Scene
    prompt: Prompt
    seed: int


@runtime_checkable
class Teacher(Protocol):
    """`name` says everything that changes the answers (model, temperature, version): a run that
    goes on with another name than it began with is refused."""

    name: str

    def answer(self, request: Request) -> str:
        """The raw response text. Raises BadRecordError where this request has no answer (a content
        filter, say), and UserError where no request will have one (a wrong key, say)."""
        ...
