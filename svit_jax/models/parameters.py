"""One description of a parameter: shape, logical axes, initialiser: for init, sharding, loading."""

from collections.abc import Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx

Logical = tuple[str | None, ...]
M = TypeVar("M", bound=nnx.Module)


def normal(rngs: nnx.Rngs, shape: tuple[int, ...], logical: Logical, stddev: float) -> nnx.Param:
    """A float32 parameter drawn from N(0, stddev^2); `logical` names each axis."""
    return nnx.Param(stddev * jax.random.normal(rngs.params(), shape), logical_axes=logical)


def zeros(shape: tuple[int, ...], logical: Logical) -> nnx.Param:
    return nnx.Param(jnp.zeros(shape), logical_axes=logical)


def ones(shape: tuple[int, ...], logical: Logical) -> nnx.Param:
    return nnx.Param(jnp.ones(shape), logical_axes=logical)


def logical_axes(module: nnx.Module) -> dict[str, Logical]:
    """Path ("decoder/blocks/q") -> logical axes, for every parameter of the module."""
    return {
        "/".join(map(str, path)): variable.get_metadata()["logical_axes"]
        for path, variable in nnx.to_flat_state(nnx.state(module, nnx.Param))
    }


def flat_parameters(module: nnx.Module) -> dict[str, Any]:
    """Path ("decoder/blocks/q") -> array (or shape, of an abstract module), for every parameter."""
    return {
        "/".join(map(str, path)): variable[...]
        if isinstance(variable.get_value(), jax.Array)
        else variable.get_value()
        for path, variable in nnx.to_flat_state(nnx.state(module, nnx.Param))
    }


def with_parameters(module: M, parameters: Mapping[str, Any]) -> M:
    """The module with these parameters in place of its own. Raises KeyError on a missing one."""
    graphdef, state = nnx.split(module)
    filled = [
        (path, variable.replace(parameters["/".join(map(str, path))]))
        for path, variable in nnx.to_flat_state(state)
    ]
    return nnx.merge(graphdef, nnx.from_flat_state(filled))
