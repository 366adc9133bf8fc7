"""What stands beside the weights: tokenizer and processor files, kept, copied or written anew."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data_pipeline.common.errors import UserError
from data_pipeline.common.files import PathLike, read_json
from data_pipeline.text.chat_template import CHAT_TEMPLATE_FILE
from svit_jax.checkpoints.architecture import Statistics
from svit_jax.checkpoints.bundle import TOKENIZER_FILE

CONFIG_FILE, GENERATION_FILE = "config.json", "generation_config.json"
PREPROCESSOR_FILE = "preprocessor_config.json"
KEPT_FILES = (
    TOKENIZER_FILE,
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.json",
    CHAT_TEMPLATE_FILE,
    "processor_config.json",
    PREPROCESSOR_FILE,
    GENERATION_FILE,
)
IMAGE_TOKEN, PAD_TOKEN = "<image>", "<pad>"


def find_companions(folder: PathLike) -> dict[str, Path]:
    """Those of `KEPT_FILES` that stand in a folder."""
    root = Path(folder)
    return {name: root / name for name in KEPT_FILES if (root / name).is_file()}


def read_config(folder: PathLike) -> dict[str, Any]:
    """config.json of a checkpoint folder."""
    file = Path(folder) / CONFIG_FILE
    config = read_json(file, "config")
    if not isinstance(config, dict):
        raise UserError(f"config {file} is no JSON object; fetch it again.")
    return config


def picture_statistics(files: Mapping[str, Path], default: Statistics) -> Statistics:
    """Mean and standard deviation of the processor file, or the default where there is none."""
    if PREPROCESSOR_FILE not in files:
        return default
    content = read_json(files[PREPROCESSOR_FILE], "processor file")
    try:
        mean, std = (
            tuple(map(float, content.get(key) or fallback))
            for key, fallback in zip(("image_mean", "image_std"), default, strict=True)
        )
        red, green, blue = mean
        red_std, green_std, blue_std = std
    except (AttributeError, TypeError, ValueError):
        raise UserError(
            f"processor file {files[PREPROCESSOR_FILE]} has no three numbers as image_mean and "
            "image_std; fetch it again."
        ) from None
    return (red, green, blue), (red_std, green_std, blue_std)


def _special(text: str) -> dict[str, Any]:
    return {
        "content": text,
        "lstrip": False,
        "normalized": False,
        "rstrip": False,
        "single_word": False,
        "special": True,
    }


def tokenizer_files(added: Mapping[str, int], pad_token: str) -> dict[str, Any]:
    """Name -> JSON of the files beside a Llama `tokenizer.model`, with tokens added past it."""
    ids = {"<unk>": 0, "<s>": 1, "</s>": 2, **added}
    tokens = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": pad_token}
    return {
        "tokenizer_config.json": {
            "tokenizer_class": "LlamaTokenizer",
            "add_bos_token": True,
            "add_eos_token": False,
            "clean_up_tokenization_spaces": False,
            "legacy": False,
            "model_max_length": 2048,
            "padding_side": "right",
            "added_tokens_decoder": {str(number): _special(text) for text, number in ids.items()},
            **tokens,
        },
        "special_tokens_map.json": tokens,
    } | ({"added_tokens.json": dict(added)} if added else {})


def processor_files(
    image_size: int, patch_size: int, statistics: Statistics, image_mode: str
) -> dict[str, Any]:
    """Name -> JSON of transformers' picture processor and of LLaVA's, which joins both."""
    size = {"height": image_size, "width": image_size}
    mean, std = statistics
    pictures = {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": image_size},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": size,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(mean),
        "image_std": list(std),
    }
    if image_mode == "pad":
        # transformers' own LLaVA processor pads to a square first, as LLaVA-1.5 was trained.
        pictures |= {"image_processor_type": "LlavaImageProcessor", "do_pad": True}
    return {
        PREPROCESSOR_FILE: {**pictures, "processor_class": "LlavaProcessor"},
        "processor_config.json": {
            "processor_class": "LlavaProcessor",
            "image_token": IMAGE_TOKEN,
            "num_additional_image_tokens": 1,
            "patch_size": patch_size,
            "vision_feature_select_strategy": "default",
        },
    }


def write_files(folder: Path, kept: Mapping[str, Path], written: Mapping[str, Any]) -> None:
    """Copies `kept` and writes `written` (a text, or what becomes JSON), where both have a name,
    the kept one."""
    for name, content in written.items():
        if name not in kept:
            text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
            (folder / name).write_text(content if isinstance(content, str) else text)
    for name, source in kept.items():
        (folder / name).write_bytes(source.read_bytes())
