"""The CLIP vision tower as LLaVA-1.5 uses it: patch features of the second-last layer.

Source: openai/clip-vit-large-patch14-336; LLaVA's mm_vision_select_layer -2, "patch" features. The
last block and the post-norm never run, so they are not stored either.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, UInt8

from svit_jax.models.attention import TOWER_AXES, Backend, attention
from svit_jax.models.parameters import normal, ones, zeros
from svit_jax.models.remat import QKV, Remat, rematerialised
from svit_jax.sharding import shard


@dataclasses.dataclass(frozen=True)
class VisionConfig:
    """Sizes of the tower. `layers` counts the blocks of the published model, `feature_layer` says
    which hidden state is the feature (-2: the stream after the last block but one)."""

    image_size: int
    patch_size: int
    embed: int
    layers: int
    heads: int
    mlp: int
    image_mean: tuple[float, float, float]
    image_std: tuple[float, float, float]
    feature_layer: int = -2
    norm_eps: float = 1e-5

    @property
    def patches(self) -> int:
        return (self.image_size // self.patch_size) ** 2

    @property
    def stored_layers(self) -> int:
        return self.layers + 1 + self.feature_layer

    @property
    def head_dim(self) -> int:
        return self.embed // self.heads


# CLIP began with embed**-0.5 and had 400 million pictures to grow it. What a patch shows grows as
# training goes on: with 1 here, its place is less than 1 % of the features' variance in the end.
# Only training from scratch sees it.
POSITION_STDDEV = 6.0


class LayerNorm(nnx.Module):
    def __init__(self, shape: tuple[int, ...], logical: tuple[str | None, ...], eps: float):
        self.scale = ones(shape, logical)
        self.bias = zeros(shape, logical)
        self.eps = eps

    def __call__(self, x: Float[Array, "... C"]) -> Float[Array, "... C"]:
        """LayerNorm over the last axis, computed in float32, returned in x's dtype."""
        wide = x.astype(jnp.float32)
        centred = wide - wide.mean(-1, keepdims=True)
        variance = (centred * centred).mean(-1, keepdims=True)
        normed = centred * jax.lax.rsqrt(variance + self.eps)
        rank = (1,) * (x.ndim - 1)
        scale, bias = (
            p[...].astype(jnp.float32).reshape(*rank, -1) for p in (self.scale, self.bias)
        )
        return (normed * scale + bias).astype(x.dtype)


def quick_gelu(x: Float[Array, "*S"]) -> Float[Array, "*S"]:
    """x * sigmoid(1.702 x), CLIP's activation."""
    return x * jax.nn.sigmoid(1.702 * x)


class VisionBlock(nnx.Module):
    """Pre-norm transformer block; its parameters are those of all L layers, stacked in front."""

    def __init__(self, config: VisionConfig, rngs: nnx.Rngs):
        layers, embed, mlp = config.stored_layers, config.embed, config.mlp
        heads, head_dim = config.heads, config.head_dim
        norm = ((layers, embed), ("layers", "vision_embed"))
        self.norm1 = LayerNorm(*norm, config.norm_eps)
        self.norm2 = LayerNorm(*norm, config.norm_eps)
        qkv = ("layers", "vision_embed", "heads", "head_dim")
        for name in ("q", "k", "v"):
            kernel = normal(rngs, (layers, embed, heads, head_dim), qkv, embed**-0.5)
            setattr(self, name, kernel)
            bias = zeros((layers, heads, head_dim), ("layers", "heads", "head_dim"))
            setattr(self, f"{name}_bias", bias)
        depth = (2 * layers) ** -0.5  # GPT-2's: keeps the residual stream's variance near one
        out = ("layers", "heads", "head_dim", "vision_embed")
        self.out = normal(rngs, (layers, heads, head_dim, embed), out, depth * embed**-0.5)
        self.out_bias = zeros((layers, embed), ("layers", "vision_embed"))
        up = ("layers", "vision_embed", "mlp")
        self.fc1 = normal(rngs, (layers, embed, mlp), up, embed**-0.5)
        self.fc1_bias = zeros((layers, mlp), ("layers", "mlp"))
        down = ("layers", "mlp", "vision_embed")
        self.fc2 = normal(rngs, (layers, mlp, embed), down, depth * mlp**-0.5)
        self.fc2_bias = zeros((layers, embed), ("layers", "vision_embed"))

    def __call__(self, x: Float[Array, "I P C"], backend: Backend = "xla") -> Float[Array, "I P C"]:
        dtype = x.dtype

        def project(name: str, y: Array) -> Array:
            kernel, bias = getattr(self, name)[...], getattr(self, f"{name}_bias")[...]
            y = jnp.einsum("IPC,CNH->IPNH", y, kernel.astype(dtype))
            return y + bias.astype(dtype)[None, None]

        y = self.norm1(x)
        q, k, v = (checkpoint_name(project(name, y), QKV) for name in ("q", "k", "v"))
        y = attention(q, k, v, None, backend, TOWER_AXES)
        x = x + jnp.einsum("IPNH,NHC->IPC", y, self.out[...].astype(dtype))
        x = x + self.out_bias[...].astype(dtype)[None, None]
        y = self.norm2(x)
        y = jnp.einsum("IPC,CF->IPF", y, self.fc1[...].astype(dtype))
        y = quick_gelu(y + self.fc1_bias[...].astype(dtype)[None, None])
        y = jnp.einsum("IPF,FC->IPC", y, self.fc2[...].astype(dtype))
        x = x + y + self.fc2_bias[...].astype(dtype)[None, None]
        return shard(x, "pictures", "patches", "act_embed")


def initial_patches(rngs: nnx.Rngs, size: int, embed: int) -> nnx.Param:
    """Weights [patch y, patch x, colour, C] that sum to zero over a patch: an even patch starts
    as nothing, so that the ground's colour does not drown what lies on it.

    Each pixel's weights are those of another pixel, at random, with the sign turned. (Subtracting a
    mean would round differently on different meshes, and initial weights must not.)
    """
    pixels = size * size
    half = jax.random.normal(rngs.params(), ((pixels + 1) // 2, 3, embed))
    half = (3 * pixels) ** -0.5 * half  # the fan-in is a patch's pixels and colours
    places = np.random.default_rng(0).permutation(pixels)
    weights = jnp.concatenate([half, -half])[places].reshape(size, size, 3, embed)
    return nnx.Param(weights, logical_axes=(None, None, None, "vision_embed"))


class VisionTower(nnx.Module):
    def __init__(self, config: VisionConfig, rngs: nnx.Rngs):
        size, embed = config.patch_size, config.embed
        self.config = config
        self.patch_embedding = initial_patches(rngs, size, embed)
        self.class_embedding = normal(rngs, (embed,), ("vision_embed",), embed**-0.5)
        self.position_embedding = normal(
            rngs, (config.patches + 1, embed), ("patches", "vision_embed"), POSITION_STDDEV
        )
        self.pre_norm = LayerNorm((embed,), ("vision_embed",), config.norm_eps)
        self.blocks = VisionBlock(config, rngs)

    def __call__(
        self,
        images: UInt8[Array, "I Y X 3"],
        dtype: jnp.dtype,
        remat: Remat = "none",
        backend: Backend = "xla",
    ) -> Float[Array, "I P C"]:
        """Patch features of uint8 pictures, row-major, the class token left out."""
        config = self.config
        grid, size = config.image_size // config.patch_size, config.patch_size
        mean = jnp.asarray(config.image_mean).reshape(1, 1, 1, 3)
        std = jnp.asarray(config.image_std).reshape(1, 1, 1, 3)
        pixels = (images.astype(jnp.float32) * (1 / 255) - mean) / std
        pixels = shard(pixels.astype(dtype), "pictures", None, None, None)
        pixels = pixels.reshape(-1, grid, size, grid, size, 3).swapaxes(2, 3)
        # The kernel lies as it is kept: given the axes apart, XLA turns it over at every step.
        pixels = pixels.reshape(-1, config.patches, size * size * 3)
        kernel = self.patch_embedding[...].astype(dtype).reshape(-1, config.embed)
        x = jnp.einsum("IPX,XC->IPC", pixels, kernel)
        first = jnp.broadcast_to(
            self.class_embedding[...].astype(dtype), (x.shape[0], 1, config.embed)
        )
        x = jnp.concatenate([first, x], axis=1) + self.position_embedding[...].astype(dtype)[None]
        x = self.pre_norm(x)
        graphdef, parameters = nnx.split(self.blocks)

        def block(x: Array, layer: nnx.State) -> tuple[Array, None]:
            return nnx.merge(graphdef, layer)(x, backend), None

        x, _ = jax.lax.scan(rematerialised(block, remat), x, parameters)
        return x[:, 1:]
