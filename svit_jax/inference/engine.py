"""The engine: prefill and decode as two compiled functions over a key-value cache.

Prompts are right-padded to a bucketed length, so a prompt always meets the same shapes; each row
decodes from its own length, since slot s of the cache holds position s.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Int, Int32, Key, UInt8

from data_pipeline.common.errors import UserError
from svit_jax.inference.sampler import GREEDY, Sampling, pick
from svit_jax.models.attention import cache_mask
from svit_jax.models.decoder import Cache
from svit_jax.models.parameters import with_parameters
from svit_jax.models.svit import Compute, Svit, SvitConfig, abstract_model
from svit_jax.sharding.rules import Rules, active_rules

BUCKET = 64
"""Prompt lengths are rounded up to a multiple of this."""


@dataclasses.dataclass(frozen=True)
class Prompt:
    """tokens: ids with a pad id where patches go; vision_index: m * P + p there, -1 for text;
    images: the prompt's M pictures."""

    tokens: Int32[np.ndarray, "T"]
    vision_index: Int32[np.ndarray, "T"]
    images: UInt8[np.ndarray, "M Y X 3"]


def bucket_length(length: int) -> int:
    return -(-length // BUCKET) * BUCKET


class Engine:
    """Answers prompts in fixed-size batches. One instance serves one set of parameters."""

    def __init__(
        self,
        config: SvitConfig,
        parameters: Mapping[str, jax.Array],
        compute: Compute,
        mesh: Mesh,
        rules: Rules,
        eos_id: int,
        batch_size: int = 1,
        max_length: int = 4096,
    ):
        self.config, self.compute = config, compute
        self.parameters = dict(parameters)
        self.eos_id, self.batch_size, self.max_length = eos_id, batch_size, max_length
        self._structure = abstract_model(config)
        self._mesh, self._rules = mesh, rules
        self._prefill = jax.jit(self._prefill_rows, static_argnames=("slots", "sampling"))
        self._decode = jax.jit(self._decode_rows, static_argnames="sampling", donate_argnums=1)

    def _model(self, parameters: Mapping[str, Any]) -> Svit:
        return with_parameters(self._structure, parameters)

    def _prefill_rows(
        self,
        parameters: dict[str, jax.Array],
        tokens: Int[Array, "B T"],
        lengths: Int[Array, "B"],
        vision_index: Int[Array, "B T"],
        images: UInt8[Array, "B M Y X 3"],
        key: Key[Array, ""],
        slots: int,
        sampling: Sampling,
    ) -> tuple[Cache, Int[Array, "B"]]:
        with active_rules(self._mesh, self._rules):
            model = self._model(parameters)
            rows, length = tokens.shape
            x = model.embed(tokens, images, vision_index, self.compute)
            positions = jnp.broadcast_to(jnp.arange(length)[None], (rows, length))
            cache = model.decoder.empty_cache(rows, slots, x.dtype)
            hidden, filled = model.decoder(x, positions, cache_mask(positions, slots), cache)
            assert filled is not None
            last = jnp.take_along_axis(hidden, (lengths - 1)[:, None, None], axis=1)
            return filled, pick(model.decoder.unembed(last)[:, 0], sampling, key)

    def _decode_rows(
        self,
        parameters: dict[str, jax.Array],
        cache: Cache,
        tokens: Int[Array, "B"],
        positions: Int[Array, "B"],
        key: Key[Array, ""],
        sampling: Sampling,
    ) -> tuple[Cache, Int[Array, "B"]]:
        with active_rules(self._mesh, self._rules):
            model = self._model(parameters)
            x = model.decoder.embed(tokens[:, None], jnp.dtype(self.compute.dtype))
            mask = cache_mask(positions[:, None], cache.k.shape[2])
            hidden, grown = model.decoder(x, positions[:, None], mask, cache)
            assert grown is not None
            return grown, pick(model.decoder.unembed(hidden)[:, 0], sampling, key)

    def stream(
        self, prompts: Sequence[Prompt], max_new_tokens: int, sampling: Sampling = GREEDY
    ) -> Iterator[Int32[np.ndarray, "B"]]:
        """Yields, step by step, the next token of every prompt; rows that have ended repeat eos.

        At most `batch_size` prompts, all in one batch; stops when every row has ended.
        """
        if not 0 < len(prompts) <= self.batch_size:
            raise ValueError(f"{len(prompts)} prompts do not fit a batch of {self.batch_size}")
        if max_new_tokens < 1:
            raise UserError(f"max_new_tokens is {max_new_tokens}; ask for at least 1.")
        longest = max(len(prompt.tokens) for prompt in prompts)
        length = bucket_length(longest)
        slots = length + bucket_length(max_new_tokens)
        if longest + max_new_tokens > self.max_length:
            raise UserError(
                f"a prompt of {longest} tokens and {max_new_tokens} new ones pass the context of "
                f"{self.max_length}; shorten the conversation or ask for fewer tokens."
            )
        arrays, lengths = self._pad(prompts, length)
        keys = jax.random.split(jax.random.key(sampling.seed), max_new_tokens)
        # The seed is in the keys: as a static argument it would compile anew for each.
        sampling = dataclasses.replace(sampling, seed=0)
        cache, tokens = self._prefill(
            self.parameters, *arrays, keys[0], slots=slots, sampling=sampling
        )
        done = np.arange(self.batch_size) >= len(prompts)
        for step in range(max_new_tokens):
            picked = np.where(done, self.eos_id, np.asarray(tokens)).astype(np.int32)
            yield picked[: len(prompts)]
            done |= picked == self.eos_id
            if done.all() or step + 1 == max_new_tokens:
                return
            cache, tokens = self._decode(
                self.parameters, cache, tokens, lengths + step, keys[step + 1], sampling=sampling
            )

    def _pad(self, prompts: Sequence[Prompt], length: int) -> tuple[tuple[Any, ...], Any]:
        rows, size = self.batch_size, self.config.vision.image_size
        pictures = max(len(prompt.images) for prompt in prompts)
        tokens = np.zeros((rows, length), np.int32)
        index = np.full((rows, length), -1, np.int32)
        images = np.zeros((rows, pictures, size, size, 3), np.uint8)
        lengths = np.ones(rows, np.int32)
        for row, prompt in enumerate(prompts):
            count = len(prompt.tokens)
            tokens[row, :count], index[row, :count] = prompt.tokens, prompt.vision_index
            images[row, : len(prompt.images)] = prompt.images
            lengths[row] = count
        return (tokens, lengths, index, images), jnp.asarray(lengths)

    def generate(
        self, prompts: Sequence[Prompt], max_new_tokens: int, sampling: Sampling = GREEDY
    ) -> Iterator[list[int]]:
        """Yields each prompt's new tokens (without eos), in the order of the prompts.

        Prompts of one bucket and one number of pictures share a batch.
        """
        groups: dict[tuple[int, int], list[int]] = {}
        for place, prompt in enumerate(prompts):
            shape = (bucket_length(len(prompt.tokens)), len(prompt.images))
            groups.setdefault(shape, []).append(place)
        batches = [
            places[start : start + self.batch_size]
            for _, places in sorted(groups.items())
            for start in range(0, len(places), self.batch_size)
        ]
        # The batch that holds the earliest unanswered prompt comes first: answers leave in order.
        batches.sort(key=min)
        ready: dict[int, list[int]] = {}
        due = 0
        for places in batches:
            steps = list(self.stream([prompts[p] for p in places], max_new_tokens, sampling))
            for place, row in zip(places, np.stack(steps, axis=1), strict=True):
                ended = np.flatnonzero(row == self.eos_id)
                ready[place] = row[: ended[0] if len(ended) else None].tolist()
            while due in ready:
                yield ready.pop(due)
                due += 1
