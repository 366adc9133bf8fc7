"""Plans that were made before, by content: a second sweep of the same things compiles nothing."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from etils import epath

from data_pipeline.common.files import content_hash, write_json
from svit_jax.planning.plan import Plan
from svit_jax.planning.sweep.children import Answer
from svit_jax.planning.sweep.grid import Candidate

FOLDER = "~/.cache/svit-jax/plans"

# What the plan is computed by, beside the config: the model, the step, and the planner itself. A
# sweep (a folder below `planning`) changes no plan.
_SOURCES = ("*.py", "models/*.py", "sharding/*.py", "training/*.py", "planning/*.py")


class PlanCache:
    """A folder of plans, a file each, under the hash of what decides them ("": keeps nothing).

    What the compiler refused is kept with its reason, too."""

    def __init__(self, folder: str, versions: dict[str, str]):
        self._folder = epath.Path(folder).expanduser() if folder else None
        self._versions = versions

    @property
    def keeps(self) -> bool:
        return self._folder is not None

    def path(self, identity: Any) -> epath.Path | None:
        """Where the plan of this config and topology lies, in these versions."""
        if self._folder is None:
            return None
        return self._folder / f"{content_hash([identity, self._versions])}.json"

    def find(self, identity: Any, candidate: Candidate) -> Answer | None:
        """What was found before; a file that can't be read is as good as none."""
        path = self.path(identity)
        if path is None or not path.exists():
            return None
        try:
            found = json.loads(path.read_text())
            if found["plan"] is None:
                return Answer(None, found["reason"])
            plan = Plan.from_json(found["plan"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        # Another file may say the same, under its own name.
        return Answer(
            dataclasses.replace(plan, config=candidate.config, overrides=candidate.settings)
        )

    def keep(self, identity: Any, answer: Answer) -> None:
        path = self.path(identity)
        if path is None or not answer.final:
            return
        plan = answer.plan.to_json() if answer.plan else None
        write_json(path, {"plan": plan, "reason": answer.reason})


def source_hash() -> str:
    """A hash of the code that decides a plan."""
    package = Path(__file__).parents[2]
    files = sorted(path for pattern in _SOURCES for path in package.glob(pattern))
    return content_hash({str(path.relative_to(package)): path.read_text() for path in files})
