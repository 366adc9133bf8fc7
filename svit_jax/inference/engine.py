"""The engine: prompts in, tokens out, in batches of a fixed number of rows.

Prompts are right-padded to a bucketed length (`shapes.py`), and share a batch only with prompts of
the same bucket, so that a prompt always meets the same programs, whatever comes with it.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float32, Int32, UInt8

from data_pipeline.common.errors import UserError
from svit_jax.inference.programs import CHUNK, Programs, Prompts, batch_parts
from svit_jax.inference.sampler import GREEDY, Sampling, Settings
from svit_jax.inference.shapes import bucket_length, cache_slots
from svit_jax.models import unstacked
from svit_jax.models.int8 import attach_scales, has_scales
from svit_jax.models.lora import LoraConfig
from svit_jax.models.svit import Compute, SvitConfig, abstract_model
from svit_jax.sharding.rules import Rules


@dataclasses.dataclass(frozen=True)
class Prompt:
    """tokens: ids with a pad id where patches go; vision_index: m * P + p there, -1 for text;
    images: the prompt's M pictures; adapter: which of the engine's answers, from 1; 0: the base."""

    tokens: Int32[np.ndarray, "T"]
    vision_index: Int32[np.ndarray, "T"]
    images: UInt8[np.ndarray, "M Y X 3"]
    adapter: int = 0

    def followed_by(self, tokens: Sequence[int]) -> "Prompt":
        """The prompt with these tokens of text after it."""
        more = np.asarray(tokens, np.int32)
        return dataclasses.replace(
            self,
            tokens=np.concatenate([self.tokens, more]),
            vision_index=np.concatenate([self.vision_index, np.full_like(more, -1)]),
        )


@dataclasses.dataclass(frozen=True)
class Token:
    """A token that was chosen, and its log-probability under the model."""

    id: int
    log_probability: float


@dataclasses.dataclass(frozen=True)
class Completion:
    """What follows a prompt, without eos; `ended` says whether eos came, or the limit."""

    tokens: list[int]
    log_probabilities: list[float]
    ended: bool


T = TypeVar("T")
Complete = Callable[[Sequence[int]], bool]
"""Whether an answer of these tokens, still without eos, needs no more of them."""


class Engine:
    """Answers prompts in batches of `batch_size` rows: at least as many as asked for, and what the
    mesh divides. One instance serves one set of parameters, which may be in int8 (`models.int8`)
    and may hold those of `adapters`, too (`models.adapters`); with `int8_cache` keys and values
    are kept in int8, too. On a CPU the decoder's layers are laid out each by itself
    (`models.unstacked`)."""

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
        int8_cache: bool = False,
        adapters: Sequence[LoraConfig] = (),
    ):
        parts = batch_parts(mesh, rules)
        self.config, self.compute = config, compute
        self.eos_id, self.max_length = eos_id, max_length
        self.batch_size = -(-batch_size // parts) * parts
        self.mesh, self.rules = mesh, rules
        self.structure = abstract_model(config, adapters)
        if has_scales(parameters):
            attach_scales(self.structure.decoder.blocks)
        self._unstacked = unstacked.suits(mesh)
        if self._unstacked:
            unstacked.unstack(self.structure.decoder)
        self.parameters = parameters
        self.int8_cache = int8_cache
        self.programs = self.programs_of(self.batch_size)

    @property
    def parameters(self) -> Mapping[str, jax.Array]:
        """As the programs take them; any other set of this model's may be put in their place."""
        return self._parameters

    @parameters.setter
    def parameters(self, parameters: Mapping[str, jax.Array]) -> None:
        laid = unstacked.unstacked(parameters) if self._unstacked else dict(parameters)
        self._parameters = laid

    def programs_of(self, rows: int) -> Programs:
        """The model's programs for batches of `rows`."""
        where = self.mesh, self.rules
        return Programs(self.structure, self.compute, *where, self.eos_id, rows, self.int8_cache)

    def stream(
        self, prompt: Prompt, max_new_tokens: int, sampling: Sampling = GREEDY
    ) -> Iterator[Token]:
        """Yields the tokens that follow one prompt, without eos, each as soon as it is there."""
        for tokens, logs in self._decode([prompt], max_new_tokens, [sampling], chunk=1):
            if tokens[0, 0] == self.eos_id:
                return
            yield Token(int(tokens[0, 0]), float(logs[0, 0]))

    def generate(
        self,
        prompts: Sequence[Prompt],
        max_new_tokens: int,
        sampling: Sampling | Sequence[Sampling] = GREEDY,
        complete: Complete | None = None,
    ) -> Iterator[Completion]:
        """Yields what follows each prompt, in the order of the prompts.

        Prompts of one bucket and one number of pictures share a batch. `sampling` is one for all,
        or one for each. A batch ends early once every row has ended or is `complete`, which is
        asked now and then; a completion may hold tokens past that point.
        """
        samplings = [sampling] * len(prompts) if isinstance(sampling, Sampling) else sampling
        places = [(bucket_length(len(p.tokens)), len(p.images)) for p in prompts]

        def answer(batch: list[int]) -> list[Completion]:
            pieces = []
            open_rows = set(range(len(batch)))
            for piece in self._decode(
                [prompts[i] for i in batch], max_new_tokens, [samplings[i] for i in batch], CHUNK
            ):
                pieces.append(piece)
                tokens = np.concatenate([tokens for tokens, _ in pieces])
                open_rows -= {
                    row
                    for row in open_rows
                    if self.eos_id in tokens[:, row]
                    or (complete is not None and complete(tokens[:, row].tolist()))
                }
                if not open_rows:
                    break
            logs = np.concatenate([logs for _, logs in pieces])
            return [self._completion(tokens[:, row], logs[:, row]) for row in range(len(batch))]

        yield from self._in_order(places, answer)

    def score(
        self, prompts: Sequence[Prompt], continuations: Sequence[Sequence[int]]
    ) -> Iterator[Float32[np.ndarray, "n"]]:
        """Yields, for each prompt, the log-probability of every token of its continuation, given
        the prompt and what stands before; in the order of the prompts."""
        whole = [p.followed_by(c) for p, c in zip(prompts, continuations, strict=True)]
        for prompt in whole:
            self._require_room(len(prompt.tokens), 0)
        places = [
            (bucket_length(len(p.tokens)), bucket_length(len(c)), len(p.images))
            for p, c in zip(whole, continuations, strict=True)
        ]

        def log_probabilities(batch: list[int]) -> list[np.ndarray]:
            _, width, _ = places[batch[0]]
            wanted = np.ones((self.batch_size, width), np.int32)
            counts = [len(continuations[i]) for i in batch]
            for row, (i, count) in enumerate(zip(batch, counts, strict=True)):
                wanted[row, :count] = len(prompts[i].tokens) + np.arange(count)
            rows = self._pad([whole[i] for i in batch])
            found = self.programs.score(self.parameters, rows, self.programs.put(wanted))
            return [row[:n] for row, n in zip(np.asarray(found), counts, strict=False)]

        yield from self._in_order(places, log_probabilities)

    def _decode(
        self,
        prompts: Sequence[Prompt],
        max_new_tokens: int,
        samplings: Sequence[Sampling],
        chunk: int,
    ) -> Iterator[tuple[Int32[np.ndarray, "C n"], Float32[np.ndarray, "C n"]]]:
        """Yields (tokens, log-probabilities) of one batch, up to `chunk` steps at a time, until all
        rows have ended; those that have repeat eos.

        The devices are one call ahead of what is yielded, so that they need not wait for the host.
        If all rows have ended by then that call does nothing.
        """
        if max_new_tokens < 1:
            raise UserError(f"max_new_tokens is {max_new_tokens}; ask for at least 1.")
        longest = max(len(prompt.tokens) for prompt in prompts)
        self._require_room(longest, max_new_tokens)
        idle = self.batch_size - len(prompts)
        limit = np.array([max_new_tokens] * len(prompts) + [0] * idle, np.int32)
        settings = Settings.of([*samplings, *[GREEDY] * idle])
        state, emitted = self.programs.prefill(
            self.parameters,
            self._pad(prompts),
            *self.programs.put((settings, limit)),
            slots=cache_slots(longest, max_new_tokens, self.max_length),
        )
        asked, ended = 1, np.zeros(len(prompts), bool)
        while True:
            made = emitted
            steps = min(chunk, max_new_tokens - asked)
            if steps:
                state, emitted = self.programs.decode(self.parameters, state, np.int32(steps))
                asked += steps
            tokens, logs, count = jax.device_get(made)
            tokens, logs = tokens[:count, : len(prompts)], logs[:count, : len(prompts)]
            yield tokens, logs
            ended |= (tokens == self.eos_id).any(axis=0)
            if ended.all() or made is emitted:
                return

    def _require_room(self, length: int, new_tokens: int) -> None:
        if length + new_tokens > self.max_length:
            raise UserError(
                f"a prompt of {length} tokens and {new_tokens} new ones pass the context of "
                f"{self.max_length}; shorten the conversation or ask for fewer tokens."
            )

    def _pad(self, prompts: Sequence[Prompt]) -> Prompts:
        """The prompts as rows on the devices, with rows of nothing after them."""
        rows, size = self.batch_size, self.config.vision.image_size
        length = bucket_length(max(len(prompt.tokens) for prompt in prompts))
        tokens = np.zeros((rows, length), np.int32)
        lengths = np.ones(rows, np.int32)
        vision_index = np.full((rows, length), -1, np.int32)
        images = np.zeros((rows, len(prompts[0].images), size, size, 3), np.uint8)
        adapter = np.zeros(rows, np.int32)
        for row, prompt in enumerate(prompts):
            lengths[row] = count = len(prompt.tokens)
            tokens[row, :count] = prompt.tokens
            vision_index[row, :count] = prompt.vision_index
            images[row] = prompt.images
            adapter[row] = prompt.adapter
        return Prompts(*self.programs.put((tokens, lengths, vision_index, images, adapter)))

    def _completion(
        self, tokens: Int32[np.ndarray, "n"], logs: Float32[np.ndarray, "n"]
    ) -> Completion:
        ends = np.flatnonzero(tokens == self.eos_id)
        count = int(ends[0]) if len(ends) else len(tokens)
        return Completion(tokens[:count].tolist(), logs[:count].tolist(), bool(len(ends)))

    def _in_order(
        self, shapes: Sequence[tuple[int, ...]], run: Callable[[list[int]], Sequence[T]]
    ) -> Iterator[T]:
        """Yields the result for each place in order, as soon as it can, having run places of one
        shape together."""
        groups: dict[tuple[int, ...], list[int]] = {}
        for place, shape in enumerate(shapes):
            groups.setdefault(shape, []).append(place)
        batches = [
            places[start : start + self.batch_size]
            for _, places in sorted(groups.items())
            for start in range(0, len(places), self.batch_size)
        ]
        # The batch that holds the earliest open place comes first: results leave in order.
        ready: dict[int, T] = {}
        due = 0
        for places in sorted(batches, key=min):
            ready |= zip(places, run(places), strict=True)
            while due in ready:
                yield ready.pop(due)
                due += 1
