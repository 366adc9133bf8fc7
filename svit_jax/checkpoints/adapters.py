"""A LoRA run as an adapter of a base that is loaded: only what the run has for itself is kept."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from etils import epath
from jax.sharding import Mesh

from data_pipeline.common.errors import UserError
from data_pipeline.common.files import PathLike
from svit_jax.checkpoints.bundle import Bundle, read_bundle
from svit_jax.checkpoints.lora_files import ADAPTER_CONFIG
from svit_jax.checkpoints.manager import (
    check_parameters,
    load_some,
    locate_checkpoint,
    stored_parameters,
)
from svit_jax.models.adapters import is_adapted
from svit_jax.models.lora import LoraConfig
from svit_jax.models.parameters import flat_parameters, logical_axes
from svit_jax.models.svit import SvitConfig, abstract_model
from svit_jax.sharding.rules import Rules, tree_shardings


@dataclasses.dataclass(frozen=True)
class LoadedAdapter:
    """`parameters`: LoRA's factors and the projector, as they are stored."""

    bundle: Bundle
    checkpoint: epath.Path
    config: LoraConfig
    parameters: dict[str, jax.Array]


def load_adapter(
    name: str,
    path: PathLike,
    base: Bundle,
    base_parameters: Mapping[str, jax.Array],
    mesh: Mesh,
    rules: Rules,
) -> LoadedAdapter:
    """The newest checkpoint of a LoRA run whose other parameters are the base's.

    A run's checkpoint holds the whole model, so these are compared with the base's, one at a time
    in its own sharding. Raises UserError where they differ by more than the rounding to another
    dtype, or the model or the tokenizer is another one.
    """
    if (epath.Path(path) / ADAPTER_CONFIG).exists():
        raise UserError(
            f"adapter {name}: {path} is LLaVA's or PEFT's; convert it first: svit convert {path} "
            "--base BASE --to orbax RUN --keep-lora."
        )
    checkpoint, workdir = locate_checkpoint(path)
    bundle = read_bundle(workdir)
    config = bundle.model.lora
    if config is None:
        raise UserError(
            f"adapter {name}: {path} has no LoRA; give the workdir of a LoRA run, or serve it as "
            "--checkpoint."
        )
    _check_bundle(f"adapter {name}: {path}", bundle, base)
    structure = abstract_model(bundle.model)
    shapes = flat_parameters(structure)
    check_parameters(checkpoint, shapes)
    shardings = tree_shardings(mesh, rules, shapes, logical_axes(structure))
    stored = {
        found: shape.update(sharding=shardings[found])
        for found, shape in stored_parameters(checkpoint).items()
    }
    own = load_some(checkpoint, {p: shape for p, shape in stored.items() if is_adapted(p)})
    changed = [
        found
        for found, shape in stored.items()
        if not is_adapted(found)
        and not _equal(load_some(checkpoint, {found: shape})[found], base_parameters[found])
    ]
    if changed:
        rest = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        raise UserError(
            f"adapter {name}: {path} differs from the base in {', '.join(changed[:3])}{rest}, so "
            "it was trained on another base, or trained these in full; give its own base as "
            "--checkpoint, or serve it alone."
        )
    return LoadedAdapter(bundle, checkpoint, config, own)


def _check_bundle(what: str, bundle: Bundle, base: Bundle) -> None:
    theirs, ours = (_sizes(each.model) for each in (bundle, base))
    differing = [
        f"{key} is {theirs[key]}, not {ours[key]}" for key in ours if theirs[key] != ours[key]
    ]
    if differing:
        raise UserError(
            f"{what} is of another model than the base ({'; '.join(differing)}); give the base "
            "that it was trained on."
        )
    if epath.Path(bundle.tokenizer).read_bytes() != epath.Path(base.tokenizer).read_bytes():
        raise UserError(
            f"{what} has another tokenizer than the base; give the base that it was trained on."
        )


def _sizes(model: SvitConfig) -> dict[str, Any]:
    return {
        f"{section}.{field}": value
        for section in ("vision", "decoder")
        for field, value in dataclasses.asdict(getattr(model, section)).items()
    }


def _equal(one: jax.Array, other: jax.Array) -> bool:
    """Whether one is the other, or the other in its dtype."""
    return bool(_same(one, other) or _same(other, one))


@jax.jit
def _same(one: jax.Array, other: jax.Array) -> jax.Array:
    return jnp.array_equal(one, other.astype(one.dtype))
