"""Everything that touches JAX: the model, its training, its answers and their scores."""

from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # Lazy, so that `svit --help` and the data commands need not wait for JAX.
    if name in ("load", "Assistant"):
        from svit_jax import api

        return getattr(api, name)
    raise AttributeError(f"module 'svit_jax' has no attribute {name!r}")
