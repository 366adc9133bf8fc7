"""A portable model -> LLaVA's or transformers' folder: weights, config, tokenizer, processor."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from data_pipeline.common.errors import UserError
from data_pipeline.text.chat_template import CHAT_TEMPLATE_FILE, chat_template
from data_pipeline.text.templates import get_template
from svit_jax.checkpoints.architecture import llava_hf_json, llava_json
from svit_jax.checkpoints.bundle import TOKENIZER_FILE
from svit_jax.checkpoints.companions import (
    CONFIG_FILE,
    GENERATION_FILE,
    IMAGE_TOKEN,
    PAD_TOKEN,
    processor_files,
    tokenizer_files,
    write_files,
)
from svit_jax.checkpoints.key_tables import LLAVA, LLAVA_HF, RULE_OF_PATH, Layout, Rule
from svit_jax.checkpoints.lazy_array import LazyArray
from svit_jax.checkpoints.portable import EXTRA_ROWS, TOWER_PREFIX, Portable, Progress, local_name
from svit_jax.checkpoints.safetensors import ShardedWriter
from svit_jax.host_memory import return_freed_memory

_CHAT_TEMPLATES = {CHAT_TEMPLATE_FILE, "chat_template.json"}
_ROW_MULTIPLE = 64  # llava-hf pads its vocabulary to one


def export_llava_hf(model: Portable, folder: Path, progress: Progress) -> None:
    """What transformers' LlavaForConditionalGeneration loads, without a missing or odd key."""
    vocabulary = model.model.decoder.vocab
    same = model.format == "llava-hf"
    image_token = model.config.get("image_token_index") if same else None
    if image_token is None:
        image_token = vocabulary
    rows = _extra_rows(model) if same else {}
    total = vocabulary + (next(iter(rows.values())).shape[0] if rows else 0)
    if total <= image_token:
        total = -(-(vocabulary + 2) // _ROW_MULTIPLE) * _ROW_MULTIPLE
        rows = {path: _mean_rows(model.parameters[path], total - vocabulary) for path in EXTRA_ROWS}
    _check_tower(model)
    _write_weights(model, folder, LLAVA_HF, rows, progress, tower=True)
    source = _without_dtype(model.config) if same else {}
    config = llava_hf_json(model.model, total, image_token, _dtype_name(model), source)
    vision = model.model.vision
    statistics = vision.image_mean, vision.image_std
    added = {IMAGE_TOKEN: image_token, PAD_TOKEN: image_token + 1}
    written = {
        CONFIG_FILE: config,
        GENERATION_FILE: {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": image_token + 1},
        **tokenizer_files(added, PAD_TOKEN),
        **processor_files(vision.image_size, vision.patch_size, statistics, model.image_mode),
    }
    if not same or not _CHAT_TEMPLATES & model.files.keys():
        text = chat_template(get_template(model.template))
        written |= {CHAT_TEMPLATE_FILE: text} if text else {}
    write_files(folder, _files(model, same), written)


def export_llava(model: Portable, folder: Path, progress: Progress, with_tower: bool) -> None:
    """The original code's folder. Its released checkpoints hold no tower; `with_tower` writes it
    too, as that code saves what it trained itself."""
    same = model.format == "llava"
    if with_tower:
        _check_tower(model)
    rows = _extra_rows(model) if same else {}
    _write_weights(model, folder, LLAVA, rows, progress, tower=with_tower)
    source = _without_dtype(model.config) if same else {}
    config = llava_json(model.model, _dtype_name(model), model.image_mode, source)
    config["vocab_size"] += next(iter(rows.values())).shape[0] if rows else 0
    written = {
        CONFIG_FILE: config,
        GENERATION_FILE: {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0},
        **tokenizer_files({}, "<unk>"),
    }
    write_files(folder, _files(model, same), written)


def _files(model: Portable, same: bool) -> Mapping[str, Path]:
    """All kept files go back to their own format; another takes the tokenizer's model alone."""
    if same:
        return model.files
    return {name: path for name, path in model.files.items() if name == TOKENIZER_FILE}


def _without_dtype(config: Mapping[str, Any]) -> dict[str, Any]:
    """config.json without what names the dtype, which may be another now."""
    return {
        key: _without_dtype(value) if isinstance(value, Mapping) else value
        for key, value in config.items()
        if key not in ("dtype", "torch_dtype")
    }


def _dtype_name(model: Portable) -> str:
    return str(model.parameters["decoder/embedding"].dtype)


def _extra_rows(model: Portable) -> dict[str, LazyArray]:
    return {path: model.unused[name] for path, name in EXTRA_ROWS.items() if name in model.unused}


def _mean_rows(parameter: LazyArray, count: int) -> LazyArray:
    """Rows for tokens that no text has: the mean of all, which favours none."""

    def read() -> np.ndarray:
        mean = parameter.read().astype(np.float32).mean(0)
        return np.broadcast_to(mean, (count, mean.shape[0])).astype(parameter.dtype)

    return LazyArray((count, parameter.shape[1]), parameter.dtype, parameter.origin, read)


def _tower_rest(model: Portable) -> dict[str, LazyArray]:
    return {
        name.removeprefix(TOWER_PREFIX): tensor
        for name, tensor in model.unused.items()
        if name.startswith(TOWER_PREFIX)
    }


def _check_tower(model: Portable) -> None:
    """Raises UserError where the tower's unused tensors, which the target has, are not there."""
    vision = model.model.vision
    layers = {n.split(".")[2] for n in _tower_rest(model) if n.startswith("encoder.layers.")}
    norm = any(name.startswith("post_layernorm") for name in _tower_rest(model))
    missing = [str(n) for n in range(vision.stored_layers, vision.layers) if str(n) not in layers]
    if missing or not norm:
        blocks = f"block {', '.join(missing)} and " if missing else ""
        raise UserError(
            f"the vision tower's {blocks}post_layernorm are not kept with this checkpoint, which "
            "never runs them, and the target has them; give the CLIP folder, or the checkpoint "
            "that training began with, as --vision-tower."
        )


def _write_weights(
    model: Portable,
    folder: Path,
    layout: Layout,
    rows: Mapping[str, LazyArray],
    progress: Progress,
    tower: bool,
) -> None:
    plans = [
        _plan(RULE_OF_PATH[path], parameter, layout, rows.get(path))
        for path, parameter in model.parameters.items()
        if tower or not path.startswith("tower/")
    ]
    rest = {layout.key("tower", local): x for local, x in _tower_rest(model).items() if tower}
    described = {key: x for plan in plans for key, x in plan.targets.items()} | rest
    # The reference's order, by name; ours is by parameter, so each shard grows at many places.
    writer = ShardedWriter(folder, dict(sorted(described.items())))
    for plan in plans:
        whole = plan.parameter.read()
        for (key, target), layer in zip(plan.targets.items(), plan.layers, strict=True):
            piece = plan.rule.transform.to_theirs(whole if layer is None else whole[layer])
            if plan.rows is not None:
                piece = np.concatenate([piece, plan.rows.read()])
            writer.write(key, piece)
            progress(target.nbytes)
        del whole, piece
        return_freed_memory(plan.parameter.nbytes)
    for key, tensor in rest.items():
        writer.write(key, tensor.read())
        progress(tensor.nbytes)
    writer.close()


@dataclasses.dataclass(frozen=True)
class _Plan:
    """One parameter, the keys that it becomes with their shapes, and each key's layer."""

    rule: Rule
    parameter: LazyArray
    rows: LazyArray | None
    targets: dict[str, LazyArray]
    layers: list[int | None]


def _plan(rule: Rule, parameter: LazyArray, layout: Layout, rows: LazyArray | None) -> _Plan:
    shape = parameter.shape
    layers: list[int | None] = list(range(shape[0])) if rule.stacked else [None]
    theirs = rule.transform.their_shape(shape[1:] if rule.stacked else shape)
    if rows is not None:
        theirs = (theirs[0] + rows.shape[0], *theirs[1:])
    target = LazyArray(theirs, parameter.dtype, parameter.origin, parameter.read)
    keys = [layout.key(rule.part, local_name(rule, layer)) for layer in layers]
    return _Plan(rule, parameter, rows, dict.fromkeys(keys, target), layers)
