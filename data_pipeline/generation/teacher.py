"""Teacher: whoever answers the prompts, be it an endpoint or the offline templates."""

import dataclasses
from typing import Protocol, runtime_checkable

from data_pipeline.annotations.scene import Scene
from data_pipeline.endpoint.call import Model
from data_pipeline.generation.prompt import Prompt


@dataclasses.dataclass(frozen=True)
class Request:
    """One question to a teacher: `prompt` is `scene` in words; `seed` makes the answer repeatable
    for teachers that can (it is the run's seed; mix in the scene's id, the kind and `attempt`,
    which counts from 1 how often the same is asked because the answer was of no use)."""

    kind: str
    scene: Scene
    prompt: Prompt
    seed: int
    attempt: int = 1

    @property
    def key(self) -> str:
        """What the request is called in the journal, in the quarantine and in batch files."""
        return request_key(self.scene.image_id, self.kind, self.attempt)

    @property
    def system(self) -> str:
        return self.prompt.system

    @property
    def user(self) -> str:
        return self.prompt.user


def request_key(image_id: int, kind: str, attempt: int = 1) -> str:
    return f"{image_id}/{kind}" if attempt == 1 else f"{image_id}/{kind}/{attempt}"


@runtime_checkable
class Teacher(Model[Request], Protocol):
    """A model that answers requests about scenes."""
