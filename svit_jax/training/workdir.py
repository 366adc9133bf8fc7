"""Whose workdir it is: a run's settings stand in `run.json`, and another run's are refused."""

from collections.abc import Iterator
from typing import Any

from etils import epath

from data_pipeline.common.errors import UserError
from data_pipeline.common.files import content_hash, read_json, write_json

RUN_FILE = "run.json"

# Where arrays lie and how often things are logged or saved may change when a run goes on.
_FREE_SECTIONS = ("mesh", "rules")
_FREE_KEYS = {
    "compute": ("remat_vision", "remat_decoder", "attention"),
    "data": ("workers", "max_bad", "train", "tokenizer", "heldout", "heldout_split", "cache"),
    "train": (
        "log_every",
        "eval_every",
        "wandb",
        "max_skipped",
        "hang_seconds",
        "accumulate",
        "compiler_options",
        "compilation_cache",
    ),
    "checkpoint": ("every", "keep", "keep_every", "best", "init"),
}

Settings = dict[str, Any]


def settings_identity(settings: Settings) -> str:
    """Runs of equal identity train the same thing: what a workdir is bound to."""
    return content_hash(_binding(settings))


def owns_workdir(workdir: epath.Path, settings: Settings) -> bool:
    """Whether the run of these settings has started in the workdir; False where no run has.

    Raises UserError where the workdir belongs to another run.
    """
    marker = workdir / RUN_FILE
    if not marker.exists():
        return False
    found = read_json(marker, "run file")
    if found.get("identity") != settings_identity(settings):
        before, now = _binding(found.get("config", {})), _binding(_json_ready(settings))
        changed = sorted(_differences(before, now))
        raise UserError(
            f"workdir {workdir} belongs to another run (it differs in "
            f"{', '.join(changed[:5]) or 'its identity'}); choose another workdir, or use the "
            "config that it was started with."
        )
    return True


def claim_workdir(workdir: epath.Path, settings: Settings) -> None:
    """Binds the workdir to the run of these settings."""
    content = {"identity": settings_identity(settings), "config": _json_ready(settings)}
    write_json(workdir / RUN_FILE, content)


def _binding(settings: Settings) -> Settings:
    """The settings that decide what is trained."""
    return {
        section: {}
        if section in _FREE_SECTIONS
        else {key: value for key, value in values.items() if key not in _FREE_KEYS.get(section, ())}
        for section, values in settings.items()
    }


def _json_ready(value: Any) -> Any:
    """Tuples as lists, so that what is written equals what is read back."""
    if isinstance(value, dict):
        return {key: _json_ready(item) for key, item in value.items()}
    return [_json_ready(item) for item in value] if isinstance(value, (tuple, list)) else value


def _differences(old: Any, new: Any, prefix: str = "") -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in old.keys() | new.keys():
            yield from _differences(
                old.get(key), new.get(key), f"{prefix}.{key}" if prefix else key
            )
    elif old != new:
        yield prefix
