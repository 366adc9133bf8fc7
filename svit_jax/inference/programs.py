"""What runs on the devices: prefill, decode and score, compiled once for each shape.

All that decoding carries from token to token is one `State`, which stays on the devices; a row of
it knows its own length, settings and end, so that rows need nothing of each other.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Array, Bool, Float, Int, Int32, UInt8

from svit_jax.inference.sampler import GREEDY, Settings, log_probability, pick
from svit_jax.models.attention import Packed
from svit_jax.models.decoder import Cache, Caches
from svit_jax.models.parameters import with_parameters
from svit_jax.models.svit import Compute, Svit
from svit_jax.sharding.rules import Rules, active_rules, axis_names, parts, shard, spec

CHUNK = 32
"""The most tokens of a row that one call of `decode` makes."""


class Prompts(NamedTuple):
    """Right-padded rows of one bucket. vision_index: m * P + p where patch p of a row's picture m
    goes, -1 for text. pictures: M of each row, or what `Programs.features` made of them. adapter:
    which of the model's adapters answers a row, from 1; 0: the base alone."""

    tokens: Int32[Array, "B T"]
    lengths: Int32[Array, "B"]
    vision_index: Int32[Array, "B T"]
    pictures: UInt8[Array, "B M Y X 3"] | Float[Array, "B MP D"]
    adapter: Int32[Array, "B"]


class State(NamedTuple):
    """token: the newest one, not in the cache yet, and the position where it goes; number: of new
    tokens so far; left: how many more may come, 0 where a row has ended; seen: what the repetition
    penalty counts."""

    cache: Caches
    token: Int[Array, "B"]
    position: Int[Array, "B"]
    number: Int[Array, "B"]
    left: Int[Array, "B"]
    seen: Bool[Array, "B V"]
    settings: Settings
    adapter: Int[Array, "B"]


class Emitted(NamedTuple):
    """The next tokens of each row, `steps` of them; eos and 0 where a row has ended before."""

    tokens: Int[Array, "C B"]
    log_probabilities: Float[Array, "C B"]
    steps: Int[Array, ""]


def inference_rules(mesh: Mesh, rules: Rules, rows: int) -> Rules:
    """The rules for decoding: a single token can't be cut up, so the mesh axes of `length` take
    rows. Pictures lie where rows do if there are too few to split over the whole mesh."""
    batch = (*axis_names(rules.batch), *axis_names(rules.length))
    pictures = rules.pictures if rows % parts(mesh, rules.pictures) == 0 else batch
    return dataclasses.replace(rules, batch=batch, length=None, pictures=pictures)


def batch_parts(mesh: Mesh, rules: Rules) -> int:
    """Over how many devices the rows of a batch are split."""
    return parts(mesh, rules.batch) * parts(mesh, rules.length)


class Programs:
    """The compiled functions of one model (`structure`, without its parameters) on one mesh, for
    batches of `rows`."""

    def __init__(
        self,
        structure: Svit,
        compute: Compute,
        mesh: Mesh,
        rules: Rules,
        eos_id: int,
        rows: int,
        int8_cache: bool = False,
    ):
        self._structure = structure
        self._compute, self._eos_id, self._rows = compute, eos_id, rows
        self._int8_cache = int8_cache
        self._mesh, self._rules = mesh, inference_rules(mesh, rules, rows)
        whole, row = self._place(), self._place("batch")
        vectors = self._place(None, "batch", "kv_heads", None, None)
        scales = self._place(None, "batch", "kv_heads", None) if int8_cache else None
        state = State(
            cache=self._caches(lambda layers: Cache(vectors, vectors, scales, scales)),
            token=row,
            position=row,
            number=row,
            left=row,
            seen=self._place("batch", "act_vocab"),
            settings=Settings(row, row, row, row, row),
            adapter=row,
        )
        self._places = state
        # What the host reads is whole on every device: of several hosts each reads all of it.
        emitted = Emitted(whole, whole, whole)
        self.prefill: Any = jax.jit(
            self._prefill, static_argnames="slots", out_shardings=(state, emitted)
        )
        self.decode: Any = jax.jit(self._decode, donate_argnums=1, out_shardings=(state, emitted))
        # What `decode` does in so many steps, for plans: `decode` knows only while it runs.
        self.steps: Any = jax.jit(
            self._steps, static_argnames="count", donate_argnums=1, out_shardings=(state, row)
        )
        self.score: Any = jax.jit(self._score, out_shardings=whole)
        self.features: Any = jax.jit(self._features, out_shardings=whole)
        self.idle: Any = jax.jit(self._idle, static_argnames="slots", out_shardings=state)
        self.insert: Any = jax.jit(_insert, donate_argnums=0, out_shardings=state)
        self.release: Any = jax.jit(_release, donate_argnums=0, out_shardings=state)

    def _place(self, *logical: str | None) -> Any:
        return NamedSharding(self._mesh, spec(self._rules, logical))

    def _caches(self, make: Callable[[int], Cache]) -> Caches:
        """What `make` gives for a number of layers, as the decoder wants it: one for all, or one
        for each."""
        layers = self._structure.config.decoder.layers
        if self._structure.decoder.layers:
            return tuple(make(1) for _ in range(layers))
        return make(layers)

    def abstract(self, rows: Any) -> Any:
        """What `put` would give of such host arrays, without data."""
        place = self._place("batch")
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), rows)

    def abstract_state(self, slots: int) -> Any:
        """What `idle` would give, without data."""
        shapes = jax.eval_shape(lambda: self._idle(slots))
        return jax.tree.map(
            lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place),
            shapes,
            self._places,
        )

    def put(self, rows: Any) -> Any:
        """Host arrays, batch axis first, laid on the devices by their rows. Of several hosts each
        has all rows, and gives its devices theirs."""
        place = self._place("batch")
        if not self._mesh.is_multi_process:
            return jax.device_put(rows, place)
        return jax.tree.map(
            lambda array: jax.make_array_from_callback(array.shape, place, array.__getitem__), rows
        )

    def compiled(self) -> int:
        """How many programs there are by now."""
        # `insert` and `release` are the same functions for all models; JAX keeps one count of them.
        return sum(f._cache_size() for f in (self.prefill, self.decode, self.score, self.features))

    def _model(self, parameters: Mapping[str, Any]) -> Svit:
        return with_parameters(self._structure, parameters)

    def _prefill(
        self,
        parameters: dict[str, jax.Array],
        prompts: Prompts,
        settings: Settings,
        limit: Int[Array, "B"],
        slots: int,
    ) -> tuple[State, Emitted]:
        """The state after each prompt's first token; rows with a limit of 0 stay idle."""
        with active_rules(self._mesh, self._rules):
            model = self._model(parameters)
            tokens, lengths, vision_index, pictures, adapter = prompts
            rows, length = tokens.shape
            x = model.embed(tokens, pictures, vision_index, self._compute, adapter)
            within = jnp.arange(length)[None] < lengths[:, None]
            positions = jnp.broadcast_to(jnp.arange(length)[None], (rows, length))
            # What padding leaves in the cache lies ahead of the row, until it is overwritten.
            seen = Packed(within.astype(jnp.int32))
            hidden, cache = model.decoder(
                *(x, positions, seen, "new"),
                backend=self._compute.attention,
                adapter=adapter,
                only=lengths - 1,
            )
            assert cache is not None
            cache = _each(cache, lambda one: self._kept(one).with_slots(slots))
            state = State(
                cache=cache,
                token=jnp.zeros(rows, jnp.int32),
                position=lengths - 1,
                number=jnp.zeros(rows, jnp.int32),
                left=limit,
                seen=_seen(prompts, within, settings, self._structure.config.decoder.vocab),
                settings=settings,
                adapter=adapter,
            )
            state, token, log = self._next(state, model.decoder.unembed(hidden)[:, 0])
            return state, Emitted(token[None], log[None], jnp.int32(1))

    def _decode(
        self, parameters: dict[str, jax.Array], state: State, steps: Int[Array, ""]
    ) -> tuple[State, Emitted]:
        """Up to `steps` more tokens of each row, fewer where all rows end before."""

        def more(carry: tuple[State, Emitted]) -> Array:
            state, emitted = carry
            return (emitted.steps < steps) & jnp.any(state.left > 0)

        def step(carry: tuple[State, Emitted]) -> tuple[State, Emitted]:
            state, (tokens, logs, made) = carry
            state, token, log = self._step(parameters, state)
            return state, Emitted(tokens.at[made].set(token), logs.at[made].set(log), made + 1)

        with active_rules(self._mesh, self._rules):
            shape = (CHUNK, *state.token.shape)
            none = Emitted(jnp.full(shape, self._eos_id, jnp.int32), jnp.zeros(shape), jnp.int32(0))
            return jax.lax.while_loop(more, step, (state, none))

    def _step(
        self, parameters: dict[str, jax.Array], state: State
    ) -> tuple[State, Int[Array, "B"], Float[Array, "B"]]:
        """One more token of each row."""
        with active_rules(self._mesh, self._rules):
            model = self._model(parameters)
            x = model.decoder.embed(state.token[:, None], jnp.dtype(self._compute.dtype))
            positions = state.position[:, None]
            hidden, cache = model.decoder(x, positions, None, state.cache, adapter=state.adapter)
            assert cache is not None
            logits = model.decoder.unembed(hidden)[:, 0]
            return self._next(state._replace(cache=cache), logits)

    def _steps(
        self, parameters: dict[str, jax.Array], state: State, count: int
    ) -> tuple[State, Int[Array, "B"]]:
        def step(_: Array, carry: tuple[State, Array]) -> tuple[State, Array]:
            state, token, _ = self._step(parameters, carry[0])
            return state, token

        return jax.lax.fori_loop(0, count, step, (state, state.token))

    def _next(
        self, state: State, logits: Float[Array, "B V"]
    ) -> tuple[State, Int[Array, "B"], Float[Array, "B"]]:
        """The state with the token that follows, that token, and its log-probability."""
        picked = pick(logits, state.settings, state.seen, state.number).astype(jnp.int32)
        live = state.left > 0
        token = jnp.where(live, picked, self._eos_id)
        log = jnp.where(live, log_probability(logits, picked), 0.0)
        state = state._replace(
            token=jnp.where(live, picked, state.token),
            # An ended row writes to the slot that it wrote to before.
            position=jnp.where(live, state.position + 1, state.position),
            number=jnp.where(live, state.number + 1, state.number),
            left=jnp.where(live & (picked != self._eos_id), state.left - 1, 0),
            seen=state.seen.at[jnp.arange(len(picked)), picked].set(True),
        )
        return state, token, log

    def _score(
        self,
        parameters: dict[str, jax.Array],
        prompts: Prompts,
        places: Int[Array, "B C"],
    ) -> Float[Array, "B C"]:
        """The log-probability of the tokens at `places` (from 1 on), each after all before it."""
        with active_rules(self._mesh, self._rules):
            model = self._model(parameters)
            tokens, lengths, vision_index, pictures, adapter = prompts
            length = tokens.shape[1]
            segments = (jnp.arange(length)[None] < lengths[:, None]).astype(jnp.int32)
            positions = jnp.broadcast_to(jnp.arange(length)[None], tokens.shape)
            hidden = model.hidden(
                *(tokens, segments, positions, pictures, vision_index, self._compute),
                adapter=adapter,
            )
            # Logits of the places alone: those of all tokens would be as large as the model.
            before = jnp.take_along_axis(hidden, (places - 1)[:, :, None], axis=1)
            logits = model.decoder.unembed(shard(before, "batch", "length", "act_embed"))
            return log_probability(logits, jnp.take_along_axis(tokens, places, axis=1))

    def _features(
        self,
        parameters: dict[str, jax.Array],
        images: UInt8[Array, "B Y X 3"],
        adapter: Int[Array, "B"],
    ) -> Float[Array, "B P D"]:
        """What the decoder reads of each picture, by the projector of an adapter."""
        with active_rules(self._mesh, self._rules):
            return self._model(parameters).features(images[:, None], self._compute, adapter)

    def _kept(self, cache: Cache) -> Cache:
        return cache.in_int8() if self._int8_cache else cache

    def _idle(self, slots: int) -> State:
        """Rows that wait for `insert`."""
        decoder, rows = self._structure.config.decoder, self._rows

        def empty(layers: int) -> Cache:
            shape = layers, rows, decoder.kv_heads, slots, decoder.head_dim
            vectors = jnp.zeros(shape, self._compute.dtype)
            return self._kept(Cache(vectors, vectors))

        none = jnp.zeros(rows, jnp.int32)
        return State(
            cache=self._caches(empty),
            token=none,
            position=none,
            number=none,
            left=none,
            seen=jnp.zeros((rows, decoder.vocab), bool),
            settings=jax.tree.map(jnp.asarray, Settings.of([GREEDY] * rows)),
            adapter=none,
        )


def _each(caches: Caches, change: Callable[[Cache], Cache]) -> Caches:
    found: Caches = jax.tree.map(change, caches, is_leaf=lambda x: isinstance(x, Cache))
    return found


def _insert(rows: State, made: State, source: Int[Array, ""], target: Int[Array, ""]) -> State:
    """`rows` with row `source` of a prefill in place of row `target`. What the row before it left
    in later slots of the cache lies ahead of it, until it is overwritten."""

    def place(array: Array, new: Array) -> Array:
        axis = 1 if array.ndim > 2 else 0  # the cache has its layers first
        row = jax.lax.dynamic_slice_in_dim(new, source, 1, axis)
        start = [target if n == axis else jnp.int32(0) for n in range(array.ndim)]
        return jax.lax.dynamic_update_slice(array, row, start)

    return jax.tree.map(place, rows, made)


def _release(rows: State, released: Bool[Array, "B"]) -> State:
    """`rows` of which these make no more tokens."""
    return rows._replace(left=jnp.where(released, 0, rows.left))


def _seen(
    prompts: Prompts, within: Bool[Array, "B T"], settings: Settings, vocab: int
) -> Bool[Array, "B V"]:
    """Which tokens stand in each prompt's text, if any row has a penalty for them."""
    nothing = jnp.zeros((len(within), vocab), bool)
    rows = jnp.arange(len(within))[:, None]

    def text() -> Array:
        return nothing.at[rows, prompts.tokens].max(within & (prompts.vision_index < 0))

    return jax.lax.cond(jnp.any(settings.repetition_penalty != 1), text, lambda: nothing)
