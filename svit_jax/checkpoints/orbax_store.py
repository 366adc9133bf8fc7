"""Our own checkpoints parameter by parameter: of any model, one stacked tensor in memory."""

import os
import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import orbax.checkpoint as ocp
import orbax.checkpoint.experimental.v1 as ocp_v1
from flax import traverse_util

from svit_jax.checkpoints.lazy_array import LazyArray
from svit_jax.checkpoints.manager import stored_parameters
from svit_jax.checkpoints.portable import Progress
from svit_jax.host_memory import return_freed_memory

# A chunk is a layer or less: small enough to be read for one shard, large enough to be fast.
_CHUNK_BYTES = 64 * 1024 * 1024


def write_parameters(folder: Path, parameters: Mapping[str, LazyArray], progress: Progress) -> None:
    """Writes `folder` as one checkpoint's `parameters`; each array is read, written and let go."""
    aside = folder.parent / f"{folder.name}.leaves"
    context = ocp_v1.Context()
    context.array.saving.storage_options.chunk_byte_size = _CHUNK_BYTES
    context.array.saving.storage_options.shard_axes = (0,)
    # Nobody changes the arrays while they are written: no copy is needed.
    context.memory.deepcopy_host_arrays = False
    with context:
        for path, parameter in parameters.items():
            tree = traverse_util.unflatten_dict({path: parameter.read()}, sep="/")
            ocp_v1.partial.save(aside, tree)
            del tree
            return_freed_memory(parameter.nbytes)
            progress(parameter.nbytes)
        ocp_v1.partial.finalize(aside)
    # The tree itself is one item of a checkpoint, as those that training writes.
    (aside / "state").rename(folder)
    (aside / "_CHECKPOINT_METADATA").rename(folder / "_CHECKPOINT_METADATA")
    shutil.rmtree(aside)


def read_parameters(checkpoint: Path) -> dict[str, LazyArray]:
    """The parameters of one checkpoint folder, unread."""
    folder = Path(os.path.abspath(checkpoint)) / "parameters"
    return {
        path: LazyArray(shape.shape, np.dtype(shape.dtype), path, _reader(folder, path, shape))
        for path, shape in stored_parameters(checkpoint).items()
    }


def _reader(folder: Path, path: str, shape: Any) -> Any:
    def read() -> np.ndarray:
        # As a NumPy array: on its way to a device it would stand in memory twice.
        nest = partial(traverse_util.unflatten_dict, sep="/")
        arguments = ocp.args.PyTreeRestore(
            item=nest({path: shape}),
            restore_args=nest({path: ocp.RestoreArgs(restore_type=np.ndarray)}),
            partial_restore=True,
        )
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
            restored = reader.restore(folder, args=arguments)
        return traverse_util.flatten_dict(restored, sep="/")[path]

    return read
