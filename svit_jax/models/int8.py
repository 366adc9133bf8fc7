"""Weights in int8: the kernels of the decoder's blocks, with a scale for each output channel.

    y = x W   becomes   y = (x W8) s,   W8 = round(W / s),   s = max |W| / 127 over the inputs

Beside a kernel W [L, *in, *out] at `decoder/blocks/q` lie its scales, `decoder/blocks/q_scale`
[L, *out]. Products are made in the activations' dtype, so what is saved is memory, and the time to
read it. Embeddings, norms, LoRA, projector and tower stay as they are.
"""

from collections.abc import Iterable, Mapping

import jax

from svit_jax.models.decoder import PROJECTIONS, DecoderBlock, to_int8
from svit_jax.models.parameters import ones

_SCALES = {f"decoder/blocks/{name}": f"decoder/blocks/{name}_scale" for name in PROJECTIONS}


def has_scales(paths: Iterable[str]) -> bool:
    """Whether these are the parameters of a model in int8."""
    return any(path.startswith("decoder/") and path.endswith("/q_scale") for path in paths)


def attach_scales(block: DecoderBlock) -> None:
    """Gives the block scales beside each kernel."""
    for name in PROJECTIONS:
        kernel = getattr(block, name)
        shape, logical = kernel.shape, kernel.get_metadata()["logical_axes"]
        outputs = _outputs(name)
        scales = ones((shape[0], *shape[outputs:]), (logical[0], *logical[outputs:]))
        setattr(block, f"{name}_scale", scales)


def in_int8(parameters: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """The parameters with the blocks' kernels in int8, each laid out as it was, and scales."""
    found = dict(parameters)
    for name in PROJECTIONS:
        path = f"decoder/blocks/{name}"
        axes = tuple(range(1, _outputs(name)))
        found[path], scale = jax.jit(to_int8, static_argnums=1)(parameters[path], axes)
        found[_SCALES[path]] = scale.squeeze(axes)
    return found


def _outputs(name: str) -> int:
    """Where a stacked kernel's output axes begin."""
    x, w, _ = PROJECTIONS[name].replace("->", ",").split(",")
    return 1 + sum(axis in x for axis in w)
