"""What lets a workdir answer questions by itself: `model.json` and `tokenizer.model` beside the
checkpoints."""

import dataclasses
from typing import Any, Literal

from etils import epath

from data_pipeline.common.errors import UserError
from data_pipeline.common.files import PathLike, open_atomic, read_json, write_json
from svit_jax.models.decoder import DecoderConfig
from svit_jax.models.lora import LoraConfig
from svit_jax.models.svit import SvitConfig
from svit_jax.models.vision_tower import VisionConfig

MODEL_FILE, TOKENIZER_FILE = "model.json", "tokenizer.model"


@dataclasses.dataclass(frozen=True)
class Bundle:
    """An architecture, and how its text and pictures were prepared in training."""

    model: SvitConfig
    template: str
    image_mode: Literal["pad", "crop"]
    tokenizer: str


def write_bundle(
    workdir: PathLike,
    model: SvitConfig,
    template: str,
    image_mode: Literal["pad", "crop"],
    tokenizer: PathLike,
) -> None:
    """Writes both files; `tokenizer` is the SentencePiece model to copy."""
    folder = epath.Path(workdir)
    with open_atomic(folder / TOKENIZER_FILE, "wb") as file:
        file.write(epath.Path(tokenizer).read_bytes())
    content = {"template": template, "image_mode": image_mode, **dataclasses.asdict(model)}
    write_json(folder / MODEL_FILE, content)


def read_bundle(workdir: PathLike) -> Bundle:
    """The bundle of a workdir. Raises UserError where the folder is not one."""
    folder = epath.Path(workdir)
    if not (folder / MODEL_FILE).exists():
        raise UserError(
            f"{folder} has no {MODEL_FILE}; give the workdir of a training run (svit train)."
        )
    content: dict[str, Any] = read_json(folder / MODEL_FILE, "model file")
    try:
        vision, lora = (_tuples(content.get(section) or {}) for section in ("vision", "lora"))
        model = SvitConfig(
            VisionConfig(**vision),
            DecoderConfig(**content["decoder"]),
            LoraConfig(**lora) if lora else None,
        )
        return Bundle(
            model, content["template"], content["image_mode"], str(folder / TOKENIZER_FILE)
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"model file {folder / MODEL_FILE} is of another version ({error}); "
            "train again or fetch a matching release."
        ) from None


def _tuples(section: dict[str, Any]) -> dict[str, Any]:
    return {
        key: tuple(value) if isinstance(value, list) else value for key, value in section.items()
    }
