"""What a layer keeps for its backward pass, by name; the rest is computed again there."""

from collections.abc import Callable
from typing import Any, Literal

import jax
from jax.ad_checkpoint import checkpoint_name

Remat = Literal["none", "dots", "qkv", "attention", "full", "offload"]
"""none: keep everything. dots: the results of products with weights. qkv: queries, keys, values and
what attention makes of them. attention: that last alone. full: only the layer's input. offload: as
qkv, but what is kept, the layer's input too, waits in the host's memory."""

INPUT, QKV, ATTENTION, PRODUCT = "input", "qkv", "attention", "product"
"""The names of these arrays (`jax.ad_checkpoint.checkpoint_name`)."""

_POLICIES: dict[str, Any] = {
    # A product whose gradient is written out isn't seen as one, so that it has a name.
    "dots": jax.checkpoint_policies.save_from_both_policies(
        jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
        jax.checkpoint_policies.save_only_these_names(PRODUCT),
    ),
    "qkv": jax.checkpoint_policies.save_only_these_names(QKV, ATTENTION),
    "attention": jax.checkpoint_policies.save_only_these_names(ATTENTION),
    "full": jax.checkpoint_policies.nothing_saveable,
    "offload": jax.checkpoint_policies.save_and_offload_only_these_names(
        names_which_can_be_saved=[],
        names_which_can_be_offloaded=[INPUT, QKV, ATTENTION],
        offload_src="device",
        offload_dst="pinned_host",
    ),
}


def rematerialised(layer: Callable[..., Any], remat: Remat) -> Callable[..., Any]:
    """The layer, for a scan over layers, keeping what `remat` says for the backward pass."""
    if remat == "none":
        return layer

    def named(x: jax.Array, parameters: Any) -> Any:
        return layer(checkpoint_name(x, INPUT), parameters)

    # A scan's backward pass is a loop of its own: XLA can't merge what is computed twice.
    return jax.checkpoint(named, policy=_POLICIES[remat], prevent_cse=False)
