"""SVIT-v1.5: tower -> projector -> splice into the text -> decoder.

tokens        USER:  p  p  p  p  What  is  this ?  ASSISTANT:     (p: a placeholder's pad id)
vision_index    -1   0  1  2  3    -1  -1    -1 -1         -1
embedded         t   v0 v1 v2 v3    t   t     t  t          t     (v: a projected patch)
"""

import dataclasses
from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, Key, UInt8

from svit_jax.models.adapters import attach_adapters
from svit_jax.models.attention import Backend, Packed
from svit_jax.models.decoder import Decoder, DecoderConfig
from svit_jax.models.lora import LoraConfig, attach
from svit_jax.models.projector import Projector, ProjectorBank
from svit_jax.models.remat import Remat
from svit_jax.models.vision_tower import VisionConfig, VisionTower
from svit_jax.sharding import shard


@dataclasses.dataclass(frozen=True)
class SvitConfig:
    """`lora` None: a model without LoRA."""

    vision: VisionConfig
    decoder: DecoderConfig
    lora: LoraConfig | None = None


@dataclasses.dataclass(frozen=True)
class Compute:
    """How to compute, apart from what: activation dtype, the dtype that frozen parameters are kept
    in, what each tower's layers keep for the backward pass (`models.remat`), and which attention
    runs (`models.attention`)."""

    dtype: str = "bfloat16"
    frozen_dtype: Literal["bfloat16", "float32"] = "float32"
    remat_vision: Remat = "none"
    remat_decoder: Remat = "none"
    attention: Backend = "auto"


def splice(
    text: Float[Array, "B T D"],
    features: Float[Array, "B MP D"],
    vision_index: Int[Array, "B T"],
) -> Float[Array, "B T D"]:
    """`text` with row b's feature vision_index[b, t] in place of token t wherever it is not -1."""
    picked = jnp.take_along_axis(features, jnp.maximum(vision_index, 0)[:, :, None], axis=1)
    return jnp.where((vision_index >= 0)[:, :, None], picked, text)


class Svit(nnx.Module):
    def __init__(self, config: SvitConfig, rngs: nnx.Rngs):
        self.config = config
        self.tower = VisionTower(config.vision, rngs)
        self.projector: Projector | ProjectorBank = Projector(
            config.vision.embed, config.decoder.embed, rngs
        )
        self.decoder = Decoder(config.decoder, rngs)
        # Last, so that a seed gives the same base with LoRA and without.
        if config.lora:
            attach(self.decoder.blocks, config.lora, rngs)

    def features(
        self,
        images: UInt8[Array, "B M Y X 3"],
        compute: Compute,
        adapter: Int[Array, "B"] | None = None,
    ) -> Float[Array, "B MP D"]:
        """Projected patches of each row's M pictures, by the projector of its adapter. The tower's
        work is split over the whole mesh by flattening B x M; its features return to the batch
        axes once, here."""
        rows, pictures = images.shape[:2]
        flat = images.reshape(rows * pictures, *images.shape[2:])
        flat = shard(flat, "pictures", None, None, None)
        x = self.tower(flat, jnp.dtype(compute.dtype), compute.remat_vision, compute.attention)
        x = self.projector(x, None if adapter is None else jnp.repeat(adapter, pictures))
        x = x.reshape(rows, pictures * self.config.vision.patches, -1)
        return shard(x, "batch", None, "act_embed")

    def embed(
        self,
        tokens: Int[Array, "B T"],
        pictures: UInt8[Array, "B M Y X 3"] | Float[Array, "B MP D"],
        vision_index: Int[Array, "B T"],
        compute: Compute,
        adapter: Int[Array, "B"] | None = None,
    ) -> Float[Array, "B T D"]:
        """What the decoder reads: text embeddings with projected patches spliced in. `pictures` may
        be their `features` already. M may be 0."""
        text = self.decoder.embed(tokens, jnp.dtype(compute.dtype))
        if pictures.shape[1] == 0:
            return text
        given = pictures.ndim == 3
        features = pictures if given else self.features(pictures, compute, adapter)
        return splice(text, features, vision_index)

    def hidden(
        self,
        tokens: Int[Array, "B T"],
        segment_ids: Int[Array, "B T"],
        positions: Int[Array, "B T"],
        images: UInt8[Array, "B M Y X 3"],
        vision_index: Int[Array, "B T"],
        compute: Compute,
        dropout: Key[Array, ""] | None = None,
        adapter: Int[Array, "B"] | None = None,
    ) -> Float[Array, "B T D"]:
        """Final hidden states of packed rows; `decoder.unembed` makes logits of them. `dropout` is
        the key of LoRA's dropout; None drops nothing. `adapter` is each row's, of several."""
        x = self.embed(tokens, images, vision_index, compute, adapter)
        x, _ = self.decoder(
            x,
            positions,
            Packed(segment_ids),
            remat=compute.remat_decoder,
            dropout=dropout,
            backend=compute.attention,
            adapter=adapter,
        )
        return x


def abstract_model(config: SvitConfig, adapters: Sequence[LoraConfig] = ()) -> Svit:
    """The model with shapes for parameters: nothing is allocated. With `adapters` each row of a
    batch may have one of them (`models.adapters`)."""

    def make() -> Svit:
        model = Svit(config, nnx.Rngs(0))
        if adapters:
            attach_adapters(model.decoder.blocks, adapters, nnx.Rngs(0))
            sizes = config.vision.embed, config.decoder.embed
            model.projector = ProjectorBank(1 + len(adapters), *sizes)
        return model

    return nnx.eval_shape(make)


def initial_model(config: SvitConfig, seed: int | Int[Array, ""]) -> Svit:
    return Svit(config, nnx.Rngs(params=jax.random.key(seed)))
