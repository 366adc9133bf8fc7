"""Which plans are run: those that `svit plan` found, fastest first."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from data_pipeline.common.errors import UserError
from data_pipeline.common.files import PathLike, content_hash, read_json
from svit_jax.planning.plan import Plan


@dataclasses.dataclass(frozen=True)
class Shortlist:
    """The plans that fit, fastest first. `left_out` says what else the files held."""

    plans: tuple[Plan, ...]
    left_out: tuple[str, ...] = ()


def read_shortlist(files: Sequence[PathLike], top: int) -> Shortlist:
    """The `top` plans of files of `svit plan --sweep --json`, `--find-best --json` or `--save`.

    Raises UserError for another file, and where no plan fits.
    """
    found = [plan for file in files for plan in _plans(file)]
    fitting = list({_identity(plan): plan for plan in found if plan.memory.fits}.values())
    fitting.sort(key=lambda plan: -plan.estimate.tokens_per_second)
    if not fitting:
        raise UserError(
            f"none of the {len(found)} plans in {', '.join(map(str, files))} fits; plan for more "
            "devices, or fewer rows a device."
        )
    too_large = sum(not plan.memory.fits for plan in found)
    left_out = []
    if too_large:
        left_out.append(f"{too_large} plans that do not fit")
    if len(fitting) > top:
        left_out.append(f"{len(fitting) - top} that are slower than the first {top} (--top)")
    return Shortlist(tuple(fitting[:top]), tuple(left_out))


def _plans(file: PathLike) -> list[Plan]:
    found = read_json(file, "shortlist")
    try:
        rows = [row["plan"] for row in found["candidates"]] if "candidates" in found else [found]
        return [Plan.from_json(row) for row in rows if row]
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{file} is no shortlist ({type(error).__name__}: {error}); make it with svit plan "
            "--sweep --json > FILE, or svit plan --save FILE."
        ) from None


def _identity(plan: Plan) -> str:
    return content_hash([plan.config, plan.overrides, plan.topology])


def row_name(plan: Plan, keys: Sequence[str], steps: int, warm_up: int) -> str:
    """What a row's files are called: the same for the same measurement alone."""
    return content_hash([_identity(plan), list(keys), steps, warm_up])


def check_keys(plans: Sequence[Plan], keys: Sequence[str]) -> None:
    """Raises UserError where a key of the command line would change what was planned, as
    section.key=value."""
    given = _by_key(keys)
    for plan in plans:
        for key, value in _by_key(plan.overrides).items():
            if given.get(key, value) != value:
                raise UserError(
                    f"--{key}={given[key]} is not what was planned ({value}); leave it out, or "
                    "plan anew with it."
                )


def _by_key(settings: Sequence[str]) -> dict[str, Any]:
    return dict(setting.split("=", 1) for setting in settings)
