"""The connector of LLaVA-1.5 (`mlp2x_gelu`): Linear, exact GELU, Linear."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from svit_jax.models.parameters import normal, zeros
from svit_jax.sharding import shard


class Projector(nnx.Module):
    def __init__(self, vision_embed: int, embed: int, rngs: nnx.Rngs):
        first, second = ("vision_embed", None), ("embed", None)
        self.fc1 = normal(rngs, (vision_embed, embed), first, (vision_embed) ** -0.5)
        self.fc1_bias = zeros((embed,), (None,))
        self.fc2 = normal(rngs, (embed, embed), second, (3 * embed) ** -0.5 * 3)
        self.fc2_bias = zeros((embed,), (None,))

    def __call__(self, features: Float[Array, "I P C"]) -> Float[Array, "I P D"]:
        dtype = features.dtype
        # Said, not left to the partitioner: the kernels are gathered, and pictures stay where they
        # are. Else it may move pictures to the kernels' shards, and for that have all everywhere.
        fc1 = shard(self.fc1[...].astype(dtype), None, None)
        fc2 = shard(self.fc2[...].astype(dtype), None, None)
        x = jnp.einsum("IPC,CD->IPD", features, fc1)
        x = jax.nn.gelu(x + self.fc1_bias[...].astype(dtype)[None, None], approximate=False)
        x = jnp.einsum("IPD,DE->IPE", x, fc2)
        return x + self.fc2_bias[...].astype(dtype)[None, None]
