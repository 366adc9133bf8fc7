"""What a run carries from step to step, and how it comes to lie on the mesh."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import AbstractMesh, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from svit_jax.models.parameters import flat_parameters, logical_axes, with_parameters
from svit_jax.models.svit import Svit, SvitConfig, abstract_model, initial_model
from svit_jax.sharding.rules import Rules, tree_shardings


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """`trained` and `frozen` are flat dicts, path -> array; together they are the whole model.
    Frozen parameters have no gradient and no optimizer state.

    The leaves are arrays, or, in a plan, their shapes or their shardings: one structure for each.
    """

    step: Any
    trained: dict[str, Any]
    frozen: dict[str, Any]
    optimizer: Any

    def parameters(self) -> dict[str, Any]:
        return {**self.trained, **self.frozen}


@dataclasses.dataclass(frozen=True)
class StatePlan:
    """Everything about a run's state but its values: structure, shapes, and place on the mesh."""

    model: Svit
    trainable: frozenset[str]
    optimizer: optax.GradientTransformation
    shardings: TrainState
    abstract: TrainState

    def model_with(self, parameters: Mapping[str, Any]) -> Svit:
        return with_parameters(self.model, parameters)

    def from_parameters(self, parameters: Mapping[str, jax.Array]) -> TrainState:
        """A fresh state (step 0, empty moments) around existing parameters, laid on the mesh in the
        dtypes of the plan."""

        def place(shapes: Mapping[str, Any]) -> dict[str, jax.Array]:
            return {
                path: jax.device_put(parameters[path].astype(shape.dtype), shape.sharding)
                for path, shape in shapes.items()
            }

        trained, frozen = place(self.abstract.trained), place(self.abstract.frozen)
        moments = jax.jit(self.optimizer.init, out_shardings=self.shardings.optimizer)(trained)
        step = jax.device_put(jnp.zeros((), jnp.int32), self.shardings.step)
        return TrainState(step, trained, frozen, moments)

    def from_scratch(self, config: SvitConfig, seed: int) -> TrainState:
        """A fresh state with initialised parameters, made directly in their shardings."""
        return self.from_parameters(
            self.initial_parameters(config, seed, self.shardings.parameters())
        )

    def initial_parameters(
        self, config: SvitConfig, seed: int, paths: Iterable[str]
    ) -> dict[str, jax.Array]:
        """Initialised parameters of these paths alone, made directly in their shardings."""
        shapes = self.abstract.parameters()
        chosen = {path: shapes[path] for path in paths}

        def initialise() -> dict[str, jax.Array]:
            everything = flat_parameters(initial_model(config, seed))
            return {path: everything[path].astype(shape.dtype) for path, shape in chosen.items()}

        shardings = {path: shape.sharding for path, shape in chosen.items()}
        return jax.jit(initialise, out_shardings=shardings)()


def plan_state(
    config: SvitConfig,
    trainable: frozenset[str],
    optimizer: optax.GradientTransformation,
    mesh: Mesh | AbstractMesh,
    rules: Rules,
    frozen_dtype: str = "float32",
) -> StatePlan:
    """Shapes and shardings of a run's state; nothing is allocated.

    Trained parameters are float32, frozen ones of `frozen_dtype`.
    Optimizer moments lie as their parameters do; its counters are replicated.
    """
    model = abstract_model(config)
    shapes = flat_parameters(model)
    shardings = tree_shardings(mesh, rules, shapes, logical_axes(model))
    replicated = NamedSharding(mesh, P())
    trained = {path: shape for path, shape in shapes.items() if path in trainable}
    frozen = {
        path: jax.ShapeDtypeStruct(shape.shape, jnp.dtype(frozen_dtype))
        for path, shape in shapes.items()
        if path not in trainable
    }
    moments = jax.eval_shape(optimizer.init, trained)

    def moment_sharding(key_path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        keys = [getattr(key, "key", None) for key in key_path]
        path = next((key for key in reversed(keys) if key in trained), None)
        return shardings[path] if path and leaf.shape == trained[path].shape else replicated

    placement = TrainState(
        step=replicated,
        trained={path: shardings[path] for path in trained},
        frozen={path: shardings[path] for path in frozen},
        optimizer=jax.tree_util.tree_map_with_path(moment_sharding, moments),
    )
    values = TrainState(jax.ShapeDtypeStruct((), jnp.int32), trained, frozen, moments)
    abstract = jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        values,
        placement,
    )
    return StatePlan(model, trainable, optimizer, placement, abstract)
