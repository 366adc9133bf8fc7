"""What a folder holds: told by its config.json and its keys, never by its name."""

import dataclasses
from pathlib import Path
from typing import Literal, get_args

from data_pipeline.common.errors import UserError
from data_pipeline.common.files import PathLike, read_json
from svit_jax.checkpoints.bundle import MODEL_FILE
from svit_jax.checkpoints.key_tables import matching_layout
from svit_jax.checkpoints.source import ADAPTER_FILES, find_tensors

Format = Literal["llava", "llava-hf", "vicuna", "lora", "orbax"]
FORMATS: tuple[Format, ...] = get_args(Format)


@dataclasses.dataclass(frozen=True)
class Found:
    """A format, and by what it was told."""

    format: Format
    reason: str


def detect(path: PathLike) -> Found:
    """The format of a checkpoint folder. Raises UserError where it is none, or where its
    config.json says another than its keys."""
    folder = Path(path)
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}; give the folder of a checkpoint.")
    if (folder / "adapter_config.json").exists():
        return Found("lora", "it has an adapter_config.json")
    if (folder / "parameters").is_dir() or (folder / MODEL_FILE).exists():
        return Found("orbax", "it is a workdir of svit, or a checkpoint in one")
    names = (*ADAPTER_FILES, "mm_projector.bin", "mm_projector.safetensors")
    part = next((name for name in names if (folder / name).exists()), None)
    config_file = folder / "config.json"
    try:
        tensors = find_tensors(folder)
    except UserError:
        if part is None:
            raise
        raise UserError(
            f"{folder} holds {part} alone; "
            + (
                "fetch its adapter_config.json too."
                if part in ADAPTER_FILES
                else "give it as --projector, and a Vicuna as the source."
            )
        ) from None
    layout = matching_layout(tensors)
    if layout is None:
        raise UserError(
            f"none of the {len(tensors)} keys in {folder} (such as {min(tensors, default='none')}) "
            "is of a model that svit knows; give a LLaVA-1.5, SVIT-v1.5 or Vicuna."
        )
    if layout.format in ("clip", "projector"):
        flag = "--vision-tower" if layout.format == "clip" else "--projector"
        raise UserError(
            f"{folder} holds a {layout.format} alone; give it as {flag}, and a Vicuna as the "
            "source."
        )
    claimed = _claimed(config_file)
    if claimed and claimed != layout.format:
        raise UserError(
            f"{folder} contradicts itself: its keys are those of {layout.format}, its config.json "
            f"is that of {claimed}; fetch both again."
        )
    reason = f"{len(tensors)} keys in the layout of {layout.format}"
    return Found(layout.format, reason + (", as config.json says" if claimed else ""))  # type: ignore[arg-type]


def _claimed(config_file: Path) -> str | None:
    """The format that config.json speaks of; None where it does not say."""
    if not config_file.exists():
        return None
    config = read_json(config_file, "config")
    if not isinstance(config, dict):
        raise UserError(f"config {config_file} is no JSON object; fetch it again.")
    if "text_config" in config and "vision_config" in config:
        return "llava-hf"
    if "mm_projector_type" in config or "mm_vision_tower" in config:
        return "llava"
    return "vicuna" if config.get("model_type") == "llama" else None
