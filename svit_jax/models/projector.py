"""The connector of LLaVA-1.5 (`mlp2x_gelu`): Linear, exact GELU, Linear."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from svit_jax.models.parameters import normal, zeros
from svit_jax.sharding import shard


class Projector(nnx.Module):
    def __init__(self, vision_embed: int, embed: int, rngs: nnx.Rngs):
        first, second = ("vision_embed", None), ("embed", None)
        self.fc1 = normal(rngs, (vision_embed, embed), first, (vision_embed) ** -0.5)
        self.fc1_bias = zeros((embed,), (None,))
        self.fc2 = normal(rngs, (embed, embed), second, (3 * embed) ** -0.5 * 3)
        self.fc2_bias = zeros((embed,), (None,))

    def __call__(
        self, features: Float[Array, "I P C"], adapter: Int[Array, "I"] | None = None
    ) -> Float[Array, "I P D"]:
        """The decoder's embeddings; `adapter` is for `ProjectorBank`."""
        dtype = features.dtype
        # Said, not left to the partitioner: the kernels are gathered, and pictures stay where they
        # are. Else it may move pictures to the kernels' shards, and for that have all everywhere.
        fc1 = shard(self.fc1[...].astype(dtype), None, None)
        fc2 = shard(self.fc2[...].astype(dtype), None, None)
        x = jnp.einsum("IPC,CD->IPD", features, fc1)
        x = jax.nn.gelu(x + self.fc1_bias[...].astype(dtype)[None, None], approximate=False)
        x = jnp.einsum("IPD,DE->IPE", x, fc2)
        return x + self.fc2_bias[...].astype(dtype)[None, None]


class ProjectorBank(nnx.Module):
    """N projectors, the base's and those of its adapters, of which each picture takes one."""

    def __init__(self, count: int, vision_embed: int, embed: int):
        self.fc1 = zeros((count, vision_embed, embed), (None, "vision_embed", None))
        self.fc1_bias = zeros((count, embed), (None, None))
        self.fc2 = zeros((count, embed, embed), (None, "embed", None))
        self.fc2_bias = zeros((count, embed), (None, None))

    def __call__(
        self, features: Float[Array, "I P C"], adapter: Int[Array, "I"] | None = None
    ) -> Float[Array, "I P D"]:
        """The embeddings of picture i by projector `adapter[i]`."""
        assert adapter is not None, "which projector a picture has must be said"
        fc1, fc2 = (self._taken(kernel, adapter, features.dtype) for kernel in (self.fc1, self.fc2))
        x = jnp.einsum("IPC,ICD->IPD", features, fc1)
        x = x + self.fc1_bias[...].astype(x.dtype)[adapter][:, None]
        x = jnp.einsum("IPD,IDE->IPE", jax.nn.gelu(x, approximate=False), fc2)
        return x + self.fc2_bias[...].astype(x.dtype)[adapter][:, None]

    def _taken(self, kernels: nnx.Param, adapter: Int[Array, "I"], dtype: jnp.dtype) -> Array:
        """Each picture's kernel, where the picture is; all are gathered, as in `Projector`."""
        gathered = shard(kernels[...].astype(dtype), None, None, None)
        return shard(gathered[adapter], "pictures", None, None)
