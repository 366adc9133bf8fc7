"""Workdirs of random parameters: a base, and LoRA runs of it as training leaves them."""

import dataclasses
from pathlib import Path

import jax
import numpy as np

from svit_jax.checkpoints.bundle import write_bundle
from svit_jax.checkpoints.lazy_array import LazyArray
from svit_jax.checkpoints.orbax_store import write_parameters
from svit_jax.models.lora import LoraConfig, is_lora
from svit_jax.models.parameters import flat_parameters
from svit_jax.models.svit import SvitConfig, abstract_model, initial_model

Arrays = dict[str, np.ndarray]


def random_base(model: SvitConfig, seed: int = 3) -> Arrays:
    return jax.device_get(flat_parameters(jax.jit(lambda: initial_model(model, seed))()))


def random_adapter(model: SvitConfig, base: Arrays, lora: LoraConfig, seed: int) -> Arrays:
    """Random factors, and a projector beside the base's."""
    rng, found = np.random.default_rng(seed), {}
    shapes = flat_parameters(abstract_model(dataclasses.replace(model, lora=lora)))
    for path, shape in sorted(shapes.items()):
        if is_lora(path) or path.startswith("projector/"):
            drawn = 0.3 * rng.standard_normal(shape.shape).astype(np.float32)
            found[path] = drawn if is_lora(path) else drawn + base[path]
    return found


def write_run(
    workdir: Path, model: SvitConfig, parameters: Arrays, tokenizer: Path, template: str = "v1"
) -> Path:
    write_bundle(workdir, model, template, "pad", tokenizer)
    unread = {
        path: LazyArray(array.shape, array.dtype, path, lambda array=array: array)
        for path, array in parameters.items()
    }
    checkpoint = workdir / "checkpoints" / "0"
    checkpoint.mkdir(parents=True)
    write_parameters(checkpoint / "parameters", unread, lambda count: None)
    return workdir
