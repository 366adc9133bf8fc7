"""Which mesh there is, which logical axis lies on which mesh axis, and the helper models use."""

from svit_jax.sharding.rules import shard

__all__ = ["shard"]
