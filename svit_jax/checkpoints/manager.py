"""A run's checkpoints: saved in the background, whole or absent, restored onto any mesh.

    <workdir>/checkpoints/<step>/{parameters, optimizer, metadata}

`parameters` is the whole model as a nested dict, layers stacked; it alone is enough to answer
questions or to start another run.
"""

import difflib
import os
from collections.abc import Mapping
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath
from flax import traverse_util

from data_pipeline.common.errors import UserError
from data_pipeline.common.files import PathLike, file_sha256
from data_pipeline.common.progress import note
from svit_jax import distributed
from svit_jax.checkpoints.retention import Retention

Flat = Mapping[str, Any]


def _nest(flat: Flat) -> dict[str, Any]:
    return traverse_util.unflatten_dict(dict(flat), sep="/")


def _flatten(nested: Mapping[str, Any]) -> dict[str, Any]:
    return traverse_util.flatten_dict(dict(nested), sep="/")


def _rooted(path: PathLike) -> epath.Path:
    """The path from the root on, which Orbax insists on; a bucket's is one already."""
    return epath.Path(path) if "://" in os.fspath(path) else epath.Path(path).resolve()


class Checkpoints:
    """The checkpoints of one folder, as many as `retention` keeps."""

    def __init__(self, folder: PathLike, retention: Retention = Retention()):
        self.folder = _rooted(folder)
        self._retention = retention
        self._manager = ocp.CheckpointManager(self.folder, options=retention.options())

    def latest_step(self) -> int | None:
        return self._manager.latest_step()

    def save(
        self,
        step: int,
        parameters: Flat,
        optimizer: Any,
        metadata: dict[str, Any],
        metrics: Mapping[str, float] | None = None,
    ) -> None:
        """Starts writing; returns once the arrays are copied off the devices. `metrics` are what
        the retention judges the checkpoint by."""
        self._manager.save(
            step,
            metrics=self._retention.judged(metrics),
            args=ocp.args.Composite(
                parameters=ocp.args.StandardSave(_nest(parameters)),
                optimizer=ocp.args.StandardSave(optimizer),
                metadata=ocp.args.JsonSave(metadata),
            ),
        )

    def restore(
        self, step: int, parameters: Flat, optimizer: Any
    ) -> tuple[dict[str, jax.Array], Any, dict[str, Any]]:
        """Parameters, optimizer state and metadata, laid as the abstract arguments' shardings say.

        Raises UserError where the checkpoint holds another model.
        """
        check_parameters(self.folder / str(step), parameters)
        restored = self._manager.restore(
            step,
            args=ocp.args.Composite(
                parameters=ocp.args.StandardRestore(_nest(parameters)),
                optimizer=ocp.args.StandardRestore(optimizer),
                metadata=ocp.args.JsonRestore(),
            ),
        )
        return _flatten(restored["parameters"]), restored["optimizer"], restored["metadata"]

    def restore_newest(
        self, parameters: Flat, optimizer: Any
    ) -> tuple[dict[str, jax.Array], Any, dict[str, Any]]:
        """`restore` of the newest checkpoint that can be read; each damaged one before it is named
        and then moved to the folder "damaged" beside this one, so that its step can be saved anew.

        Raises UserError where none can be read, and then moves none.
        """
        damaged: dict[int, Exception] = {}
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                restored = self.restore(step, parameters, optimizer)
            except UserError:
                raise
            except Exception as error:  # Orbax raises of any kind, TypeError among them
                damaged[step] = error
                note(f"checkpoint {self.folder / str(step)} is damaged ({_brief(error)}).")
                continue
            for bad in damaged:
                self._set_aside(bad)
            if damaged:
                note(f"going on from checkpoint {self.folder / str(step)}, the one before.")
            return restored
        raise UserError(
            f"none of the checkpoints {sorted(damaged)} in {self.folder} can be read "
            f"({'; '.join(map(_brief, damaged.values()))}); bring back a copy, or start a new "
            "workdir."
        )

    def _set_aside(self, step: int) -> None:
        target = self.folder.parent / "damaged" / str(step)

        def move() -> None:
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.exists():
                target.rmtree()
            (self.folder / str(step)).rename(target)

        distributed.by_first(f"damaged {step}", move)
        self._manager.reload()

    def wait(self) -> None:
        """Waits for writes under way."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        self.wait()
        self._manager.close()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        # What a job writes that lost a process can't be finished: nobody is to wait for it.
        if distributed.alone() or not isinstance(error, jax.errors.JaxRuntimeError):
            self.close()


def _brief(error: Exception) -> str:
    """The error's kind and first line: TensorStore's messages are pages long."""
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0][:120]}"


def newest_checkpoint(workdir: PathLike) -> epath.Path:
    """The newest finished checkpoint of a run, or `workdir` itself where it is one."""
    folder = epath.Path(workdir)
    if (folder / "parameters").exists():
        return folder
    steps = folder / "checkpoints"
    found = [int(p.name) for p in steps.iterdir() if p.name.isdigit()] if steps.exists() else []
    if not found:
        raise UserError(
            f"{folder} holds no checkpoint (no {steps}/<step>); give the workdir of a training run."
        )
    return steps / str(max(found))


def checkpoint_fingerprint(checkpoint: PathLike) -> str:
    """A hash that differs for different parameters: of the manifest that names their chunks by
    content and place, so that no parameter is read."""
    return file_sha256(epath.Path(checkpoint) / "parameters" / "manifest.ocdbt")


def stored_parameters(checkpoint: PathLike) -> dict[str, jax.ShapeDtypeStruct]:
    """Path -> shape and dtype of every parameter in a checkpoint; no parameter is read."""
    with ocp.StandardCheckpointer() as reader:
        metadata = reader.metadata(_rooted(checkpoint) / "parameters")
    tree = getattr(metadata, "item_metadata", metadata)
    return {
        path: jax.ShapeDtypeStruct(tuple(found.shape), found.dtype)
        for path, found in _flatten(getattr(tree, "tree", tree)).items()
    }


def check_parameters(checkpoint: PathLike, abstract: Flat) -> None:
    """Raises one UserError that lists every missing, unused and misshapen parameter."""
    stored = stored_parameters(checkpoint)
    problems = []
    for path in sorted(abstract.keys() - stored.keys()):
        near = difflib.get_close_matches(path, stored, n=1)
        problems.append(f"{path} is missing" + (f" (there is {near[0]})" if near else ""))
    problems += [f"{path} is not in the model" for path in sorted(stored.keys() - abstract.keys())]
    problems += [
        f"{path} has shape {tuple(stored[path].shape)}, the model {tuple(abstract[path].shape)}"
        for path in sorted(stored.keys() & abstract.keys())
        if tuple(stored[path].shape) != tuple(abstract[path].shape)
    ]
    if problems:
        raise UserError(
            f"checkpoint {checkpoint} is of another model: {'; '.join(problems[:8])}"
            + (f"; and {len(problems) - 8} more" if len(problems) > 8 else "")
            + ". Use the config that the checkpoint was trained with."
        )


def load_parameters(checkpoint: PathLike, abstract: Flat) -> dict[str, jax.Array]:
    """The parameters of one checkpoint folder, each placed straight into its own sharding, in the
    dtype of its abstract array."""
    check_parameters(checkpoint, abstract)
    with ocp.StandardCheckpointer() as reader:
        return _flatten(reader.restore(_rooted(checkpoint) / "parameters", _nest(abstract)))
