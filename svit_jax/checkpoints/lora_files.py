"""LoRA's files: LLaVA's run folder and PEFT's adapter come in, merged or apart; PEFT's goes out."""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from data_pipeline.common.errors import UserError
from data_pipeline.common.files import PathLike, read_json
from svit_jax.checkpoints.architecture import check_llava
from svit_jax.checkpoints.companions import CONFIG_FILE, read_config, write_files
from svit_jax.checkpoints.key_tables import (
    DECODER_PROJECTIONS,
    LAYOUTS,
    RULES,
    Layout,
    Part,
    Rule,
    lora_rules,
    matching_layout,
)
from svit_jax.checkpoints.lazy_array import LazyArray
from svit_jax.checkpoints.portable import (
    ImageMode,
    Pieces,
    Portable,
    Progress,
    local_name,
    take_parameters,
)
from svit_jax.checkpoints.safetensors import SafetensorsWriter
from svit_jax.checkpoints.source import ADAPTER_FILES, find_tensors, read_tensor_file
from svit_jax.models.lora import LoraConfig, is_lora, merge
from svit_jax.models.parameters import flat_parameters
from svit_jax.models.svit import abstract_model

ADAPTER_CONFIG, ADAPTER_FILE = "adapter_config.json", "adapter_model.safetensors"
_OTHERS_FILE = "non_lora_trainables.bin"
_PREFIX = "base_model.model."
_LORA_KEY = re.compile(r"(.+)\.lora_([AB])(?:\.default)?\.weight")
# transformers' names in memory, which PEFT wraps.
_MEMORY = next(x for x in LAYOUTS if x.format == "llava-hf" and x.prefixes["head"] == "lm_head.")
_NEUTRAL: dict[str, Any] = {
    "peft_type": "LORA",
    "bias": "none",
    "use_dora": False,
    "use_rslora": False,
    "fan_in_fan_out": False,
    "lora_bias": False,
    "layers_to_transform": None,
    "rank_pattern": {},
    "alpha_pattern": {},
}


@dataclasses.dataclass(frozen=True)
class Adapter:
    """A run's LoRA tensors by part and local name, and the tensors that it trained in full."""

    config: LoraConfig
    lora: Pieces
    trained: Pieces
    layout: Layout
    where: str
    image_mode: ImageMode | None


def read_adapter(folder: PathLike) -> Adapter:
    """LLaVA's LoRA run or a PEFT adapter, unread. Raises one UserError for all that does not fit:
    SVIT's LoRA is on the decoder's projections, of one rank."""
    root = Path(folder)
    content = read_json(root / ADAPTER_CONFIG, "adapter config")
    if not isinstance(content, dict):
        raise UserError(
            f"adapter config {root / ADAPTER_CONFIG} is no JSON object; fetch it again."
        )
    tensors = find_tensors(root, ADAPTER_FILES)
    if (root / _OTHERS_FILE).exists():
        tensors = tensors | read_tensor_file(root / _OTHERS_FILE)
    problems: list[str] = []
    rank, alpha, dropout = _numbers(content, problems)
    bare: dict[str, LazyArray] = {}
    halves: dict[tuple[str, str], LazyArray] = {}
    for name, tensor in tensors.items():
        key = name.removeprefix(_PREFIX)
        matched = _LORA_KEY.fullmatch(key)
        if matched:
            halves[matched[1] + ".weight", matched[2]] = tensor
        else:
            bare[key] = tensor
    layout = matching_layout({key for key, _ in halves} | bare.keys())
    if not halves or layout is None:
        raise UserError(
            f"adapter {root} holds no LoRA tensors of a LLaVA's decoder (such as "
            f"{min(tensors, default='none')}); give the folder of a LoRA run."
        )
    lora: Pieces = {}
    targets = set()
    names = {theirs: ours for ours, (theirs, _) in DECODER_PROJECTIONS.items()}
    for (key, half), tensor in halves.items():
        part, local = layout.split(key) or ("decoder", key)
        module = re.sub(r"^layers\.\d+\.|\.weight$", "", local)
        if part != "decoder" or module not in names:
            problems.append(f"{tensor.origin} is no projection of the decoder")
            continue
        targets.add(names[module])
        lora[part, f"{local.removesuffix('weight')}lora_{half}.weight"] = tensor
    known = {(rule.part, rule.local) for rule in RULES if not rule.stacked}
    trained: Pieces = {}
    for key, tensor in bare.items():
        pair = layout.split(key)
        if pair in known:
            trained[pair] = tensor  # type: ignore[index]
        else:
            problems.append(f"{tensor.origin} is not in the model")
    if problems:
        raise UserError(
            f"adapter {root} cannot be converted: {'; '.join(problems)}. Only LoRA of one rank on "
            f"the decoder's {', '.join(DECODER_PROJECTIONS)} is known."
        )
    ordered = tuple(name for name in DECODER_PROJECTIONS if name in targets)
    config = LoraConfig(rank, alpha, dropout, ordered)
    return Adapter(config, lora, trained, layout, str(root), _image_mode(root))


def _numbers(content: Mapping[str, Any], problems: list[str]) -> tuple[int, float, float]:
    """Rank, alpha and dropout of an adapter config; what SVIT's LoRA cannot be is a problem."""
    problems += [
        f"{field} is {content[field]!r}, SVIT's LoRA has {value!r}"
        for field, value in _NEUTRAL.items()
        if field in content and (content[field] or value) != value
    ]
    rank, alpha, dropout = (content.get(key) for key in ("r", "lora_alpha", "lora_dropout"))
    if type(rank) is not int or rank < 1 or not isinstance(alpha, int | float):
        problems.append(f"r is {rank!r} and lora_alpha {alpha!r}, which are no numbers above 0")
        return 1, 1.0, 0.0
    return rank, float(alpha), float(dropout or 0.0)


def _image_mode(root: Path) -> ImageMode | None:
    """What the run's own config.json says of pictures, if it says anything."""
    if not (root / CONFIG_FILE).exists():
        return None
    config = read_config(root)
    if "mm_projector_type" not in config:
        return None
    check_llava(config, str(root / CONFIG_FILE))
    return "pad" if config.get("image_aspect_ratio") == "pad" else "crop"


def with_adapter(base: Portable, adapter: Adapter) -> Portable:
    """The base with the adapter apart, and what the run trained in full in place of the base's.
    Raises one UserError for every missing, unused and misshapen key."""
    if base.model.lora is not None:
        raise UserError(
            "the base holds a LoRA of its own; merge it first: svit convert BASE --to orbax MERGED."
        )
    model = dataclasses.replace(base.model, lora=adapter.config)
    shapes = {
        path: tuple(shape.shape) for path, shape in flat_parameters(abstract_model(model)).items()
    }
    rest = {**adapter.lora, **adapter.trained}
    rules = [
        *lora_rules(adapter.config.targets),
        *(rule for rule in RULES if (rule.part, rule.local) in rest),
    ]
    problems: list[str] = []
    found = take_parameters(rest, rules, shapes, adapter.layout, problems)
    problems += [f"{tensor.origin} is not in the model" for tensor in rest.values()]
    if problems:
        raise UserError(
            f"adapter {adapter.where} does not fit the base, nothing was written: "
            f"{'; '.join(problems)}. Give the base that it was trained on as --base."
        )
    return dataclasses.replace(
        base,
        model=model,
        parameters=base.parameters | found,
        image_mode=adapter.image_mode or base.image_mode,
    )


def merged(model: Portable) -> Portable:
    """The model without LoRA that answers the same; the model itself where it has none."""
    config = model.model.lora
    if config is None:
        return model
    parameters = {path: x for path, x in model.parameters.items() if not is_lora(path)}
    for name in config.targets:
        parameters[f"decoder/blocks/{name}"] = _merged(model, name, config)
    return dataclasses.replace(
        model,
        model=dataclasses.replace(model.model, lora=None),
        parameters=parameters,
        notes=(*model.notes, "LoRA was merged into the decoder"),
    )


def _merged(model: Portable, name: str, config: LoraConfig) -> LazyArray:
    path = f"decoder/blocks/{name}"
    one = dataclasses.replace(config, targets=(name,))
    parts = {key: model.parameters[key] for key in (path, f"{path}_lora/a", f"{path}_lora/b")}
    kernel = parts[path]

    def read() -> np.ndarray:
        arrays = {key: part.read() for key, part in parts.items()}
        whole = arrays[path]
        if not whole.flags.writeable:
            whole = whole.copy()
        # A layer at a time: the whole in float32 would be twice or three times as large.
        for layer in range(len(whole)):
            slices = {key: array[layer : layer + 1] for key, array in arrays.items()}
            whole[layer] = np.asarray(merge(slices, one)[path])[0]
        return whole

    return LazyArray(kernel.shape, kernel.dtype, kernel.origin, read)


def export_adapter(model: Portable, folder: Path, progress: Progress) -> None:
    """A PEFT adapter for transformers' LlavaForConditionalGeneration: LoRA, and the projector,
    which LLaVA trains in full beside it, as a module to save."""
    config = model.model.lora
    if config is None:
        raise UserError(
            "the source has no LoRA, so there is no adapter to write; choose --to llava, llava-hf "
            "or orbax."
        )
    parts: tuple[Part, ...] = ("projector_in", "projector_out")
    rules = [*lora_rules(config.targets), *(rule for rule in RULES if rule.part in parts)]
    plans = [(rule, model.parameters[rule.path]) for rule in rules]
    described = {
        key: LazyArray(_their_shape(rule, x), x.dtype, key, x.read)
        for rule, x in plans
        for key, _ in _keys(rule, x)
    }
    writer = SafetensorsWriter(folder / ADAPTER_FILE, dict(sorted(described.items())))
    for rule, parameter in plans:
        whole = parameter.read()
        for key, layer in _keys(rule, parameter):
            writer.write(key, rule.transform.to_theirs(whole if layer is None else whole[layer]))
        progress(parameter.nbytes)
    writer.close()
    names = "|".join(DECODER_PROJECTIONS[name][0].split(".")[1] for name in config.targets)
    content = {
        **_NEUTRAL,
        "base_model_name_or_path": None,
        "inference_mode": True,
        "r": config.rank,
        "lora_alpha": int(config.alpha) if config.alpha.is_integer() else config.alpha,
        "lora_dropout": config.dropout,
        # By the whole name: the tower has modules that are called the same.
        "target_modules": rf".*language_model.*\.({names})",
        "modules_to_save": ["multi_modal_projector"],
        "task_type": None,
    }
    write_files(folder, model.files, {ADAPTER_CONFIG: content})


def _their_shape(rule: Rule, parameter: LazyArray) -> tuple[int, ...]:
    shape = parameter.shape[1:] if rule.stacked else parameter.shape
    return rule.transform.their_shape(shape)


def _keys(rule: Rule, parameter: LazyArray) -> list[tuple[str, int | None]]:
    """The adapter's key of each layer of a parameter (layer None: it is of no layer)."""
    layers: list[int | None] = list(range(parameter.shape[0])) if rule.stacked else [None]
    prefixes = _MEMORY.prefixes
    return [(_PREFIX + prefixes[rule.part] + local_name(rule, n), n) for n in layers]
