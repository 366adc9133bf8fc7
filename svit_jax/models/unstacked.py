"""The decoder's layers each with parameters of its own, as XLA's CPU code decodes fastest.

    decoder/blocks/q      [L, *in, *out]     becomes
    decoder/layers/0/q    [outputs, inputs]  and so on; what is no kernel stays as it was

From a stack that is scanned, CPU code copies every layer's weights, keys and values at each token
before it reads them; arrays that a loop only reads, it reads where they lie, if they are matrices
(others it copies into another order first). And it makes a product of a few rows sooner where what
is summed over lies together. TPUs and GPUs read a layer within the product, and are better off with
the one small program of a scan.
"""

import functools
import math
from collections.abc import Mapping

import jax
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Int

from svit_jax.models.decoder import PROJECTIONS, Decoder, DecoderBlock

_STACKED = "decoder/blocks/"


def suits(mesh: Mesh) -> bool:
    """Whether a model on this mesh decodes faster so: on one CPU device. Several of them are for
    tests, and keep what meshes of TPUs do."""
    return mesh.size == 1 and mesh.devices.flat[0].platform == "cpu"


def unstack(decoder: Decoder) -> None:
    """Gives an abstract decoder layers of their own, for `unstacked` parameters to be put in: the
    shapes it has itself stay those of the stack."""
    graphdef, state = nnx.split(decoder.blocks)

    def layer() -> DecoderBlock:
        # Of a copy: layers merged from one state would share its variables.
        block = nnx.merge(graphdef, jax.tree.map(lambda shape: shape, state))
        block.outputs_first = True
        return block

    decoder.layers = nnx.List([layer() for _ in range(decoder.config.layers)])
    del decoder.blocks


def unstacked(parameters: Mapping[str, jax.Array], spend: bool = False) -> dict[str, jax.Array]:
    """The parameters with those of each layer by themselves; what is so already stays.

    `spend` deletes each stacked array once its layers are there, whoever else holds it: so the
    model is never in memory twice, only its largest kernel.
    """
    found = {}
    for path, array in parameters.items():
        if not path.startswith(_STACKED):
            found[path] = array
            continue
        name = path.removeprefix(_STACKED)
        layers = [_layer(array, n, _inputs(name)) for n in range(len(array))]
        found |= {f"decoder/layers/{n}/{name}": layer for n, layer in enumerate(layers)}
        if spend:
            jax.block_until_ready(layers)
            array.delete()
    return found


def _inputs(name: str) -> int:
    """How many axes of one layer's kernel are summed over; 0 for what is no kernel."""
    if name not in PROJECTIONS:
        return 0
    x, w, _ = PROJECTIONS[name].replace("->", ",").split(",")
    return sum(axis in x for axis in w)


@functools.partial(jax.jit, static_argnames="inputs")
def _layer(stack: jax.Array, n: Int[Array, ""], inputs: int) -> jax.Array:
    layer = jax.lax.dynamic_index_in_dim(stack, n, keepdims=False)
    if not inputs:
        return layer
    return layer.reshape(math.prod(layer.shape[:inputs]), -1).T
