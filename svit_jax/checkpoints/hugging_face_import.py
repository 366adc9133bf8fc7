"""LLaVA, llava-hf and Vicuna folders -> a portable model, unread."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from data_pipeline.common.errors import UserError
from data_pipeline.common.files import PathLike
from svit_jax.checkpoints.architecture import (
    Json,
    Statistics,
    check_llava,
    check_llava_hf,
    decoder_config,
    vision_config,
    vision_json_from_shapes,
)
from svit_jax.checkpoints.bundle import TOKENIZER_FILE
from svit_jax.checkpoints.companions import (
    CONFIG_FILE,
    find_companions,
    picture_statistics,
    read_config,
)
from svit_jax.checkpoints.key_tables import CLIP, PROJECTOR, Layout, kernel, matching_layout
from svit_jax.checkpoints.lazy_array import LazyArray, held
from svit_jax.checkpoints.portable import (
    TOWER_PREFIX,
    ImageMode,
    Pieces,
    Portable,
    assemble,
    sort_tensors,
)
from svit_jax.checkpoints.source import find_tensors, read_tensor_file
from svit_jax.models.parameters import flat_parameters
from svit_jax.models.projector import Projector
from svit_jax.models.svit import SvitConfig


@dataclasses.dataclass(frozen=True)
class ImportOptions:
    """What the source leaves open. `vocabulary`: rows past it are dropped (None: none are);
    `base`: the model that a LoRA was trained on."""

    statistics: Statistics
    vocabulary: int | None = 32000
    template: str = "v1"
    image_mode: ImageMode | None = None
    tokenizer: PathLike | None = None
    vision_tower: PathLike | None = None
    projector: PathLike | None = None
    base: PathLike | None = None


def import_hugging_face(
    folder: PathLike, options: ImportOptions, extra: Pieces | None = None
) -> Portable:
    """The model of a folder. `extra` takes the place of what the folder holds (a LoRA run's
    projector). Raises one UserError for all keys that do not fit."""
    root = Path(folder)
    tensors = find_tensors(root)
    layout = matching_layout(tensors)
    if layout is None:
        raise UserError(f"none of the keys in {root} is of a model that svit knows.")
    config = read_config(root)
    files = find_companions(root)
    sorted_tensors = sort_tensors(tensors, layout)
    pieces = dict(sorted_tensors.pieces)
    notes = []
    if sorted_tensors.ignored:
        notes.append(f"{len(sorted_tensors.ignored)} keys without a use were left out")
    tower = _tower(root, options, pieces, config)
    pieces = {pair: x for pair, x in pieces.items() if pair[0] != "tower"} | tower.pieces
    pieces |= _projector_file(options) | (extra or {})
    text, feature_layer, mode = _settings(layout, config, root)
    where = str(root / CONFIG_FILE)
    decoder = decoder_config(text, options.vocabulary, where)
    statistics = picture_statistics({**files, **tower.files}, options.statistics)
    vision = vision_config(tower.config, feature_layer, statistics, tower.where)
    if layout.format == "vicuna" and ("projector_in", "weight") not in pieces:
        pieces |= _new_projector(vision.embed, decoder.embed, _dtype(pieces))
        notes.append("the projector is new (seed 0), as no --projector was given")
    model = SvitConfig(vision, decoder)
    parameters, unused = assemble(pieces, model, layout, sorted_tensors.unknown, str(root))
    if options.tokenizer is not None:
        files[TOKENIZER_FILE] = Path(options.tokenizer)
    return Portable(
        model=model,
        parameters=parameters,
        unused=unused,
        image_mode=options.image_mode or mode,
        template=options.template,
        files=files,
        format=layout.format,
        config=config,
        notes=(*notes, *tower.notes),
    )


def _settings(layout: Layout, config: Json, root: Path) -> tuple[Json, Any, ImageMode]:
    """The text config, the feature layer and the picture mode that config.json tells."""
    where = str(root / CONFIG_FILE)
    if layout.format == "llava-hf":
        check_llava_hf(config, where)
        # As LLaVA-1.5 was trained; its llava-hf processors only crop.
        return config.get("text_config") or {}, config.get("vision_feature_layer", -2), "pad"
    if layout.format == "llava":
        check_llava(config, where)
        mode: ImageMode = "pad" if config.get("image_aspect_ratio") == "pad" else "crop"
        return config, config.get("mm_vision_select_layer", -2), mode
    return config, -2, "pad"


@dataclasses.dataclass(frozen=True)
class _Tower:
    pieces: Pieces
    config: Json
    where: str
    files: Mapping[str, Path]
    notes: tuple[str, ...] = ()


def _tower(root: Path, options: ImportOptions, pieces: Pieces, config: Json) -> _Tower:
    """The tower of --vision-tower, else the one inside."""
    if options.vision_tower is not None:
        return read_tower(options.vision_tower)
    own: Pieces = {pair: x for pair, x in pieces.items() if pair[0] == "tower"}
    if not own:
        named = config.get("mm_vision_tower")
        hint = f" (its config.json names {named})" if named else ""
        raise UserError(
            f"{root} holds no vision tower{hint}; give the folder of CLIP ViT-L/14-336 as "
            "--vision-tower."
        )
    if config.get("vision_config"):
        return _Tower(own, config["vision_config"], str(root / CONFIG_FILE), {})
    told = "the sizes of the tower inside were told by its shapes, with heads of 64"
    return _Tower(own, vision_json_from_shapes(own), f"of the tower in {root}", {}, (told,))


def read_tower(folder: PathLike) -> _Tower:
    """The tower of a CLIP, or of any checkpoint folder that has one inside."""
    root = Path(folder)
    tensors = find_tensors(root)
    layout = matching_layout(tensors) or CLIP
    found = sort_tensors(tensors, layout)
    pieces: Pieces = {pair: x for pair, x in found.pieces.items() if pair[0] == "tower"}
    if not pieces:
        raise UserError(f"--vision-tower {root} holds no vision tower; give the folder of a CLIP.")
    config = read_config(root)
    vision = config.get("vision_config") or (
        config if layout.format == "clip" else vision_json_from_shapes(pieces)
    )
    notes: tuple[str, ...] = ()
    if layout.format == "clip" and found.unknown:
        notes = (f"{len(found.unknown)} keys of {root} are not the tower's and were left out",)
    return _Tower(pieces, vision, str(root / CONFIG_FILE), find_companions(root), notes)


def unused_of_tower(tower: _Tower, stored_layers: int) -> dict[str, LazyArray]:
    """What a tower holds past the features, by the names of `unused.safetensors`."""
    found = {}
    for (_, local), tensor in tower.pieces.items():
        words = local.split(".")
        layer = int(words[2]) if local.startswith("encoder.layers.") else None
        if local.startswith("post_layernorm") or (layer is not None and layer >= stored_layers):
            found[TOWER_PREFIX + local] = tensor
    return found


def _projector_file(options: ImportOptions) -> Pieces:
    if options.projector is None:
        return {}
    path = Path(options.projector)
    if path.is_dir():
        names = ("mm_projector.safetensors", "mm_projector.bin")
        tensors = find_tensors(path, names)
    else:
        tensors = read_tensor_file(path)
    found = sort_tensors(tensors, PROJECTOR)
    if found.unknown or len(found.pieces) != 4:
        keys = ", ".join(sorted(tensors)[:5])
        raise UserError(
            f"--projector {path} holds {keys}; expected model.mm_projector.{{0,2}}.{{weight,bias}} "
            "alone, as stage 1 of LLaVA writes it."
        )
    return found.pieces


def _dtype(pieces: Pieces) -> np.dtype:
    return pieces["decoder", "embed_tokens.weight"].dtype if pieces else np.dtype(np.float32)


def _new_projector(vision_embed: int, embed: int, dtype: np.dtype) -> Pieces:
    """Initial weights as training would draw them, in torch's shapes."""
    module = jax.jit(lambda: flat_parameters(Projector(vision_embed, embed, nnx.Rngs(0))))()
    pieces: Pieces = {}
    for part, name in (("projector_in", "fc1"), ("projector_out", "fc2")):
        weight = kernel(1).to_theirs(np.asarray(module[name])).astype(dtype)
        bias = np.asarray(module[f"{name}_bias"]).astype(dtype)
        pieces[part, "weight"] = held(weight, f"new {name}")  # type: ignore[index]
        pieces[part, "bias"] = held(bias, f"new {name} bias")  # type: ignore[index]
    return pieces
