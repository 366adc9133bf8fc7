"""A whole model on its way between formats: our parameters, what rides along, nothing read."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from data_pipeline.common.errors import UserError
from svit_jax.checkpoints.key_tables import (
    IGNORED,
    RULE_OF_PATH,
    RULES,
    UNUSED_IN_TOWER,
    Layout,
    Part,
    Rule,
    find_rule,
)
from svit_jax.checkpoints.lazy_array import LazyArray
from svit_jax.models.parameters import flat_parameters
from svit_jax.models.svit import SvitConfig, abstract_model

ImageMode = Literal["pad", "crop"]
Progress = Callable[[int], None]  # told how many bytes are done
Pieces = dict[tuple[Part, str], LazyArray]

# Beside the checkpoint: the tower's unused tensors under CLIP's names, and the dropped rows.
TOWER_PREFIX = "vision_model."
EXTRA_ROWS = {
    "decoder/embedding": "embed_tokens.weight.rows",
    "decoder/unembedding": "lm_head.weight.rows",
}


@dataclasses.dataclass(frozen=True)
class Portable:
    """`parameters` by our paths; `unused` by the names of `unused.safetensors`; `files` that come
    along as they are (tokenizer, processor); the source's own format and config.json."""

    model: SvitConfig
    parameters: dict[str, LazyArray]
    unused: dict[str, LazyArray]
    image_mode: ImageMode
    template: str
    files: Mapping[str, Path]
    format: str
    config: Mapping[str, Any]
    notes: tuple[str, ...] = ()

    def cast(self, dtype: np.dtype) -> "Portable":
        """Everything in another dtype."""
        return dataclasses.replace(
            self,
            parameters={path: x.cast(dtype) for path, x in self.parameters.items()},
            unused={name: x.cast(dtype) for name, x in self.unused.items()},
        )


@dataclasses.dataclass(frozen=True)
class Sorted:
    """A checkpoint's tensors by part and local name, and the keys that nobody needs."""

    pieces: Pieces
    ignored: tuple[str, ...]
    unknown: tuple[str, ...]


def sort_tensors(tensors: Mapping[str, LazyArray], layout: Layout) -> Sorted:
    """Tells known keys, keys without a use (`IGNORED`) and unknown ones apart."""
    pieces: Pieces = {}
    ignored, unknown = [], []
    for key, tensor in tensors.items():
        pair = layout.split(key)
        if pair and (find_rule(*pair) or (pair[0] == "tower" and pair[1] in UNUSED_IN_TOWER)):
            pieces[pair] = tensor
        elif IGNORED.fullmatch(key):
            ignored.append(key)
        else:
            unknown.append(key)
    return Sorted(pieces, tuple(ignored), tuple(unknown))


def assemble(
    pieces: Pieces, model: SvitConfig, layout: Layout, unknown: Iterable[str], where: str
) -> tuple[dict[str, LazyArray], dict[str, LazyArray]]:
    """Our parameters, layers stacked, and the tensors that the model does not use.

    Raises one UserError that lists every missing, unused and misshapen key.
    """
    shapes = {
        path: tuple(shape.shape) for path, shape in flat_parameters(abstract_model(model)).items()
    }
    rest = dict(pieces)
    problems: list[str] = []
    unused = {}
    for path, name in EXTRA_ROWS.items():
        rule = RULE_OF_PATH[path]
        table = rest.get((rule.part, rule.local))
        if table is not None and table.shape[:1] > shapes[path][:1]:
            rest[rule.part, rule.local] = _rows(table, 0, shapes[path][0])
            unused[name] = _rows(table, shapes[path][0], table.shape[0])
    parameters = take_parameters(rest, RULES, shapes, layout, problems)
    for (part, local), tensor in rest.items():
        found = find_rule(part, local)
        past_features = local in UNUSED_IN_TOWER or (
            found is not None
            and found[1] is not None
            and model.vision.stored_layers <= found[1] < model.vision.layers
        )
        if part == "tower" and past_features:
            unused[TOWER_PREFIX + local] = tensor
        else:
            problems.append(f"{tensor.origin} is not in the model")
    problems += [f"{key} is not in the model" for key in unknown]
    if problems:
        raise UserError(
            f"checkpoint {where} does not fit its configuration, nothing was written: "
            f"{'; '.join(problems)}. Check that config.json and the weights belong together."
        )
    return parameters, unused


def local_name(rule: Rule, layer: int | None) -> str:
    return rule.local if layer is None else rule.local.replace("{layer}", str(layer))


def take_parameters(
    rest: Pieces,
    rules: Iterable[Rule],
    shapes: Mapping[str, tuple[int, ...]],
    layout: Layout,
    problems: list[str],
) -> dict[str, LazyArray]:
    """The parameters of `rules`, stacked; their pieces leave `rest`, and what is missing or does
    not fit is added to `problems`."""
    parameters = {}
    for rule in rules:
        shape = shapes[rule.path]
        numbers: list[int | None] = list(range(shape[0])) if rule.stacked else [None]
        layers = [_take(rest, rule, number, shape, layout, problems) for number in numbers]
        known = [layer for layer in layers if layer is not None]
        if len(known) < len(layers):
            continue
        if len({layer.dtype for layer in known}) > 1:
            kinds = ", ".join(sorted({str(layer.dtype) for layer in known}))
            problems.append(f"the layers of {rule.local} are of several dtypes ({kinds})")
            continue
        parameters[rule.path] = _stacked(rule, known, shape)
    return parameters


def _take(
    rest: Pieces,
    rule: Rule,
    layer: int | None,
    shape: tuple[int, ...],
    layout: Layout,
    problems: list[str],
) -> LazyArray | None:
    """Takes one tensor out of `rest`; None, and a problem noted, where it is missing or odd."""
    local = local_name(rule, layer)
    tensor = rest.pop((rule.part, local), None)
    if tensor is None:
        name = layout.key(rule.part, local) if rule.part in layout.prefixes else local
        problems.append(f"{name} is missing")
        return None
    expected = rule.transform.their_shape(shape if layer is None else shape[1:])
    if tensor.shape != expected:
        problems.append(f"{tensor.origin} has shape {tensor.shape}, the model {expected}")
        return None
    return tensor


def _rows(tensor: LazyArray, start: int, stop: int) -> LazyArray:
    shape = (stop - start, *tensor.shape[1:])
    return LazyArray(shape, tensor.dtype, tensor.origin, lambda: tensor.read()[start:stop])


def _stacked(rule: Rule, layers: list[LazyArray], shape: tuple[int, ...]) -> LazyArray:
    def read() -> np.ndarray:
        if not rule.stacked:
            return np.ascontiguousarray(rule.transform.to_ours(layers[0].read(), shape))
        whole = np.empty(shape, layers[0].dtype)
        for index, layer in enumerate(layers):
            whole[index] = rule.transform.to_ours(layer.read(), shape[1:])
        return whole

    return LazyArray(shape, layers[0].dtype, layers[0].origin, read)
