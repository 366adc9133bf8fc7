"""The Llama-2 / Vicuna decoder: RMSNorm, rotary positions, grouped-query attention, SwiGLU.

Layers are stacked and scanned, or each by itself (`models.unstacked`). Sources: Llama 2 (arXiv
2307.09288); rotate-half RoPE as in the Hugging Face layout, first half paired with second half.
"""

import dataclasses
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Int, Int8, Key

from svit_jax.models import decode_cpu
from svit_jax.models.attention import DECODER_AXES, Backend, Seen, attention, cached_attention
from svit_jax.models.parameters import normal, ones
from svit_jax.models.products import product, swiglu
from svit_jax.models.remat import PRODUCT, QKV, Remat, rematerialised
from svit_jax.sharding import shard
from svit_jax.sharding.rules import placement


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
    vocab: int
    embed: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    mlp: int
    norm_eps: float = 1e-5
    rope_theta: float = 10000.0


# Small beside what a block adds (its matrices keep variance), so that what attention finds is heard
# from the first step on: with embeddings of 1, looking things up takes far longer to learn.
EMBEDDING_STDDEV = 0.2
# A new MLP's matrices are this much smaller than variance asks: it all but passes over what comes
# in, until it has learnt something to add. Like the above, only training from scratch sees it.
MLP_GAIN = 0.3


PROJECTIONS = {
    "q": "BTD,DNH->BTNH",
    "k": "BTD,DKH->BTKH",
    "v": "BTD,DKH->BTKH",
    "o": "BTNH,NHD->BTD",
    "gate": "BTD,DF->BTF",
    "up": "BTD,DF->BTF",
    "down": "BTF,FD->BTD",
}
"""A block's matrices, and the product of activations and kernel that each takes part in."""


class Cache(NamedTuple):
    """Keys and values of S positions for each layer; slot s holds position s. A head's slots lie
    together, as its products want them. In int8 each vector of H has a scale of its own. Of layers
    that aren't stacked each has a cache by itself, L = 1."""

    k: Float[Array, "L B K S H"] | Int8[Array, "L B K S H"]
    v: Float[Array, "L B K S H"] | Int8[Array, "L B K S H"]
    k_scale: Float[Array, "L B K S"] | None = None
    v_scale: Float[Array, "L B K S"] | None = None

    @property
    def slots(self) -> int:
        return self.k.shape[3]

    def with_slots(self, slots: int) -> "Cache":
        """With zeros up to so many."""
        missing = slots - self.slots
        padding = [(0, 0), (0, 0), (0, 0), (0, missing)]
        return jax.tree.map(lambda x: jnp.pad(x, [*padding, *[(0, 0)] * (x.ndim - 4)]), self)

    def in_int8(self) -> "Cache":
        """The same, rounded."""
        (k, k_scale), (v, v_scale) = to_int8(self.k, (-1,)), to_int8(self.v, (-1,))
        return Cache(k, v, k_scale[..., 0], v_scale[..., 0])

    def with_tokens(
        self,
        layer: Int[Array, ""] | int,
        positions: Int[Array, "B T"],
        k: Float[Array, "B T K H"],
        v: Float[Array, "B T K H"],
    ) -> "Cache":
        """With the keys and values of a layer's new tokens at their positions."""
        place = (layer, jnp.arange(k.shape[0])[:, None], slice(None), positions)
        new = Cache(k, v)
        if self.k_scale is not None:
            new = new.in_int8()
        return jax.tree.map(lambda old, x: old.at[place].set(x), self, new)

    def of_layer(
        self, layer: Int[Array, ""] | int, dtype: Any
    ) -> tuple[Float[Array, "B K S H"], Float[Array, "B K S H"]]:
        """The keys and values of one layer."""
        if self.k_scale is None or self.v_scale is None:
            return self.k[layer], self.v[layer]
        k, v = self.k[layer].astype(dtype), self.v[layer].astype(dtype)
        k_scale, v_scale = self.k_scale[layer][..., None], self.v_scale[layer][..., None]
        return k * k_scale.astype(dtype), v * v_scale.astype(dtype)


Caches = Cache | tuple[Cache, ...]
"""Of all layers, stacked or each by itself, as the decoder's blocks are."""


def to_int8(
    x: Float[Array, "..."], axes: tuple[int, ...]
) -> tuple[Int8[Array, "..."], Float[Array, "..."]]:
    """x / scale rounded to -127 .. 127, and the float32 scale, one for all along `axes` (which it
    keeps, with size 1): the largest magnitude there is 127 of them."""
    wide = x.astype(jnp.float32)
    largest = jnp.abs(wide).max(axes, keepdims=True)
    scale = jnp.where(largest > 0, largest / 127, 1)
    return jnp.round(wide / scale).astype(jnp.int8), scale


class RmsNorm(nnx.Module):
    def __init__(self, shape: tuple[int, ...], logical: tuple[str | None, ...], eps: float):
        self.scale = ones(shape, logical)
        self.eps = eps

    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """x / rms(x) in float32, cast back, then scaled (the order of Llama's reference)."""
        wide = x.astype(jnp.float32)
        normed = wide * jax.lax.rsqrt((wide * wide).mean(-1, keepdims=True) + self.eps)
        return normed.astype(x.dtype) * self.scale[...].astype(x.dtype)[None, None]


class Rotation(NamedTuple):
    """Cosines and sines of rotary angles, the same in every layer: position * theta^(-2h/H) for the
    pair of components h and h + H/2. Float32."""

    cos: Float[Array, "B T 1 h"]
    sin: Float[Array, "B T 1 h"]

    @classmethod
    def of(cls, positions: Int[Array, "B T"], head_dim: int, theta: float) -> "Rotation":
        half = head_dim // 2
        frequencies = theta ** (-jnp.arange(half, dtype=jnp.float32) / half)
        angles = positions.astype(jnp.float32)[:, :, None, None] * frequencies.reshape(1, 1, 1, -1)
        return cls(jnp.cos(angles), jnp.sin(angles))


@jax.custom_vjp
def rotary(x: Float[Array, "B T N H"], by: Rotation) -> Float[Array, "B T N H"]:
    """x with its pairs of components rotated, in float32.

    Its gradient is rotated back; derived from the slices here, it would be padded and added.
    """
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    rotated = (first * by.cos - second * by.sin, second * by.cos + first * by.sin)
    return jnp.concatenate(rotated, axis=-1).astype(x.dtype)


rotary.defvjp(
    lambda x, by: (rotary(x, by), by),
    lambda by, g: (rotary(g, Rotation(by.cos, -by.sin)), None),
)


class DecoderBlock(nnx.Module):
    """One layer's computation; its parameters are those of all L layers, stacked in front, or where
    layers aren't stacked its own. `outputs_first`: kernels are matrices [outputs, inputs]."""

    def __init__(self, config: DecoderConfig, rngs: nnx.Rngs):
        layers, embed, mlp = config.layers, config.embed, config.mlp
        heads, kv_heads, head_dim = config.heads, config.kv_heads, config.head_dim
        self.config = config
        self.outputs_first = False
        norm = ((layers, embed), ("layers", "embed"))
        self.attention_norm = RmsNorm(*norm, config.norm_eps)
        self.mlp_norm = RmsNorm(*norm, config.norm_eps)
        std = embed**-0.5
        q_axes = ("layers", "embed", "heads", "head_dim")
        kv_axes = ("layers", "embed", "kv_heads", "head_dim")
        self.q = normal(rngs, (layers, embed, heads, head_dim), q_axes, std)
        self.k = normal(rngs, (layers, embed, kv_heads, head_dim), kv_axes, std)
        self.v = normal(rngs, (layers, embed, kv_heads, head_dim), kv_axes, std)
        o_axes = ("layers", "heads", "head_dim", "embed")
        o_std = (heads * head_dim) ** -0.5
        self.o = normal(rngs, (layers, heads, head_dim, embed), o_axes, o_std)
        up_axes = ("layers", "embed", "mlp")
        self.gate = normal(rngs, (layers, embed, mlp), up_axes, MLP_GAIN * std)
        self.up = normal(rngs, (layers, embed, mlp), up_axes, MLP_GAIN * std)
        down_axes = ("layers", "mlp", "embed")
        self.down = normal(rngs, (layers, mlp, embed), down_axes, MLP_GAIN * mlp**-0.5)

    def project(
        self,
        name: str,
        x: Array,
        dropout: Key[Array, ""] | None,
        adapter: Int[Array, "B"] | None,
    ) -> Array:
        """x times one of the kernels (and its scales, where it is in int8), plus what LoRA adds to
        it where the model has LoRA: with several adapters, each row's own."""
        kernel = getattr(self, name)[...]
        if self.outputs_first:
            y = times_rows_of(kernel, x.reshape(*x.shape[:2], -1))
            y = y.reshape(*x.shape[:2], *self._outputs(name))
        else:
            y = product(PROJECTIONS[name], x, kernel.astype(x.dtype))
            y = checkpoint_name(y, PRODUCT)
        scale = getattr(self, f"{name}_scale", None)
        if scale is not None:
            y = y * scale[...].astype(x.dtype)[None, None]
        lora = getattr(self, f"{name}_lora", None)
        return y if lora is None else y + lora(x, dropout, adapter)

    def _outputs(self, name: str) -> tuple[int, ...]:
        """The shape of what a kernel makes of a token."""
        of = self.config
        if name in ("gate", "up"):
            return (of.mlp,)
        heads = {"q": of.heads, "k": of.kv_heads, "v": of.kv_heads}
        return (heads[name], of.head_dim) if name in heads else (of.embed,)

    def __call__(
        self,
        x: Float[Array, "B T D"],
        positions: Int[Array, "B T"],
        rotation: Rotation,
        seen: Seen,
        cache: tuple[Cache, Int[Array, ""] | int] | None,
        dropout: Key[Array, ""] | None = None,
        backend: Backend = "xla",
        adapter: Int[Array, "B"] | None = None,
        only: Int[Array, "B"] | None = None,
    ) -> tuple[Float[Array, "B R D"], tuple[Array, Array] | Cache]:
        """The layer's output, and the keys and values of its tokens; or, given the cache and which
        layer this is, the cache with those in it, which attention then reads. `only`: the one token
        of each row that has an output (R is 1, else T), and sees all before it; without a cache."""
        y = self.attention_norm(x)
        asked = x, y, rotation
        if only is not None:
            asked = jax.tree.map(lambda each: tokens_at(each, only), asked)
        x, z, turned = asked
        q = self.project("q", z, dropout, adapter)
        k, v = (self.project(name, y, dropout, adapter) for name in ("k", "v"))
        if self.outputs_first and decode_cpu.suits(x.dtype, placement(DECODER_AXES)):
            # XLA would make the cosines and sines anew in each layer.
            q, k = decode_cpu.rotate(q, *turned), decode_cpu.rotate(k, *rotation)
        else:
            q, k = rotary(q, turned), rotary(k, rotation)
        q = shard(q, "batch", "length", "act_heads", None)
        made: tuple[Array, Array] | Cache
        if cache is not None:
            held, layer = cache
            made = held.with_tokens(layer, positions, k, v)
            y = cached_attention(q, *made.of_layer(layer, x.dtype), positions)
        else:
            made = k.swapaxes(1, 2), v.swapaxes(1, 2)
            if only is None:
                q, k, v = (checkpoint_name(array, QKV) for array in (q, k, v))
                y = attention(q, k, v, seen, backend)
            else:
                y = cached_attention(q, *made, only[:, None])
        x = x + self.project("o", y, dropout, adapter)
        y = self.mlp_norm(x)
        gate, up = (self.project(name, y, dropout, adapter) for name in ("gate", "up"))
        y = shard(swiglu(gate, up), "batch", "length", "act_mlp")
        x = x + self.project("down", y, dropout, adapter)
        return shard(x, "batch", "length", "act_embed"), made


def tokens_at(x: Float[Array, "B T *D"], places: Int[Array, "B"]) -> Float[Array, "B 1 *D"]:
    """One token of each row."""
    return jnp.take_along_axis(x, places.reshape(-1, *[1] * (x.ndim - 1)), axis=1)


def times_rows_of(
    kernel: Float[Array, "O I"] | Int8[Array, "O I"], x: Float[Array, "B T I"]
) -> Float[Array, "B T O"]:
    """x times a kernel [outputs, inputs], in x's dtype.

    For a token a row it is made in C where that can be. Else the kernel is the left side of the
    product, as XLA's CPU code reads it in half the time (benchmarks/decode.py); without the barrier
    XLA would turn the product around again.
    """
    few = x.shape[1] == 1 and len(x) <= decode_cpu.MOST_ROWS
    if few and decode_cpu.suits(x.dtype, placement(DECODER_AXES)):
        return decode_cpu.few_rows(kernel, x[:, 0])[:, None]
    kernel = kernel.astype(x.dtype)
    if x.shape[1] != 1:
        return jnp.einsum("BTI,OI->BTO", x, kernel)
    by_output = jax.lax.dot_general(kernel, x[:, 0], (((1,), (1,)), ((), ())))
    return jax.lax.optimization_barrier(by_output).T[:, None]


def unembed(kernel: Float[Array, "V D"], hidden: Float[Array, "B T D"]) -> Float[Array, "B T V"]:
    """Float32 logits of final hidden states."""
    kernel = kernel.astype(hidden.dtype)
    logits = jnp.einsum("BTD,VD->BTV", hidden, kernel, preferred_element_type=jnp.float32)
    return shard(logits, "batch", "length", "act_vocab")


class Decoder(nnx.Module):
    def __init__(self, config: DecoderConfig, rngs: nnx.Rngs):
        self.config = config
        axes = ("vocab", "embed")
        self.embedding = normal(rngs, (config.vocab, config.embed), axes, EMBEDDING_STDDEV)
        self.blocks = DecoderBlock(config, rngs)
        # In place of `blocks`, where layers aren't stacked.
        self.layers = nnx.List[DecoderBlock]([])
        self.norm = RmsNorm((config.embed,), ("embed",), config.norm_eps)
        self.unembedding = normal(rngs, (config.vocab, config.embed), axes, config.embed**-0.5)

    def embed(self, tokens: Int[Array, "B T"], dtype: jnp.dtype) -> Float[Array, "B T D"]:
        # Gathered over the batch's devices, for the reason given in the projector.
        table = shard(self.embedding[...].astype(dtype), "act_vocab", None)
        x = table[tokens]
        return shard(x, "batch", "length", "act_embed")

    def __call__(
        self,
        x: Float[Array, "B T D"],
        positions: Int[Array, "B T"],
        seen: Seen,
        cache: Caches | Literal["new"] | None = None,
        remat: Remat = "none",
        dropout: Key[Array, ""] | None = None,
        backend: Backend = "xla",
        adapter: Int[Array, "B"] | None = None,
        only: Int[Array, "B"] | None = None,
    ) -> tuple[Float[Array, "B R D"], Caches | None]:
        """Final hidden states (after the last norm) of embedded tokens, and the grown cache; a new
        one holds these tokens alone, S = T. With a cache a token sees the slots up to its position,
        and `seen` is not asked.

        `dropout` is the key of LoRA's dropout; None drops nothing. `adapter`: which of the
        adapters each row is answered with, where there are several (`models.adapters`). Layers
        that aren't stacked are for inference: nothing of them is dropped or rematerialised.
        `only`: the one token of each row whose hidden state is wanted (R is 1, else T), of rows
        that are one segment up to it, without a cache to read; the last of layers that aren't
        stacked then works for no other.
        """
        rotation = Rotation.of(positions, self.config.head_dim, self.config.rope_theta)
        if self.layers:
            caches = []
            for n, block in enumerate(self.layers):
                held = None if cache is None or isinstance(cache, str | Cache) else (cache[n], 0)
                of = only if n == len(self.layers) - 1 else None
                x, made = block(x, positions, rotation, seen, held, None, backend, adapter, of)
                caches.append(made if isinstance(made, Cache) else Cache(*(y[None] for y in made)))
            return self.norm(x), None if cache is None else tuple(caches)

        graphdef, parameters = nnx.split(self.blocks)
        keys = None if dropout is None else jax.random.split(dropout, self.config.layers)

        if isinstance(cache, Cache):

            def cached(
                carry: tuple[Array, Any], layer: tuple[nnx.State, Array]
            ) -> tuple[tuple[Array, Any], None]:
                x, cache = carry
                parameters, index = layer
                block = nnx.merge(graphdef, parameters)
                held = cache, index
                return block(x, positions, rotation, seen, held, None, backend, adapter), None

            # Carried, the cache is written in place; as what the layers give it would be copied.
            layers = (parameters, jnp.arange(self.config.layers))
            (x, grown), _ = jax.lax.scan(cached, (x, cache), layers)
            return self.norm(x), grown

        def scanned(x: Array, layer: tuple[nnx.State, Any]) -> tuple[Array, object]:
            parameters, key = layer
            block = nnx.merge(graphdef, parameters)
            x, made = block(x, positions, rotation, seen, None, key, backend, adapter)
            return x, made if cache == "new" else None

        x, made = jax.lax.scan(rematerialised(scanned, remat), x, (parameters, keys))
        if only is not None:
            x = tokens_at(x, only)
        return self.norm(x), None if made is None else Cache(*made)

    def unembed(self, hidden: Float[Array, "B T D"]) -> Float[Array, "B T V"]:
        """Float32 logits."""
        kernel = self.unembedding[...]
        if self.layers:
            return times_rows_of(kernel, hidden).astype(jnp.float32)
        return unembed(kernel, hidden)
