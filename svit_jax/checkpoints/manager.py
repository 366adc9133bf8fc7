"""A run's checkpoints: saved in the background, whole or absent, restored onto any mesh.

    <workdir>/checkpoints/<step>/{parameters, optimizer, metadata}

`parameters` is the whole model as a nested dict, layers stacked; it alone is enough to answer
questions or to start another run.
"""

import contextlib
import difflib
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath
from flax import traverse_util

from data_pipeline.common.errors import UserError
from data_pipeline.common.files import PathLike, file_sha256, in_bucket, move_folder, write_text
from data_pipeline.common.progress import note
from data_pipeline.common.storage import refusal, say_refusals_once
from svit_jax import distributed
from svit_jax.checkpoints.retention import Retention

Flat = Mapping[str, Any]


def _nest(flat: Flat) -> dict[str, Any]:
    return traverse_util.unflatten_dict(dict(flat), sep="/")


def _flatten(nested: Mapping[str, Any]) -> dict[str, Any]:
    return traverse_util.flatten_dict(dict(nested), sep="/")


def _rooted(path: PathLike) -> epath.Path:
    """The path from the root on, which Orbax insists on; a bucket's is one already."""
    return epath.Path(path) if in_bucket(path) else epath.Path(path).resolve()


class Checkpoints:
    """The checkpoints of one folder, as many as `retention` keeps."""

    def __init__(self, folder: PathLike, retention: Retention = Retention()):
        self.folder = _rooted(folder)
        self._retention = retention
        self._under_way: int | None = None
        self._refused: set[int] = set()
        say_refusals_once("absl")  # Orbax's
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
        the retention judges the checkpoint by.

        A write before it that the disk refused is named, and this one is then waited for: the run
        goes on where there is room again. Raises UserError where there is not.
        """
        failed = False
        try:
            self.wait()
        except UserError as error:
            failed = True
            note(f"{error} Trying once more, with step {step}.")
        with self._explained(step):
            self._require_writable()
            self._start(step, parameters, optimizer, metadata, metrics)
        self._under_way = step
        if failed:
            self.wait()

    def _start(
        self,
        step: int,
        parameters: Flat,
        optimizer: Any,
        metadata: dict[str, Any],
        metrics: Mapping[str, float] | None,
    ) -> None:
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
        source = self.folder / str(step)
        distributed.by_first(f"damaged {step}", lambda: move_folder(source, target))
        self._manager.reload()

    def _require_writable(self) -> None:
        """Raises at once what Orbax would raise in a thread, while others of its threads wait, and
        keep the process, for minutes."""
        if distributed.is_first():
            probe = self.folder / "writable"
            write_text(probe, "")
            probe.unlink()

    def wait(self) -> None:
        """Waits for the write under way. Raises UserError where the disk refused it."""
        step, self._under_way = self._under_way, None
        if step is not None:
            with self._explained(step):
                self._manager.wait_until_finished()

    @contextlib.contextmanager
    def _explained(self, step: int) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # TensorStore's are ValueErrors
            said = refusal(error)
            if said is None:
                raise
            self._refused.add(step)
            self._clear_refused()
            whole = finished_steps(self.folder)
            rest = f"the newest whole one is of step {whole[-1]}" if whole else "there is none yet"
            raise UserError(
                f"the checkpoint of step {step} could not be written to {self.folder} ({said}); "
                f"{rest}. Make room or mend the folder; the same command goes on."
            ) from None

    def _clear_refused(self) -> None:
        """Half a checkpoint takes the room that the next one needs."""
        for step in self._refused if distributed.is_first() else ():
            with contextlib.suppress(OSError):
                for torn in self.folder.glob(f"{step}.orbax-checkpoint-tmp*"):
                    torn.rmtree()

    def close(self) -> None:
        """Waits for the write under way. Raises UserError where the disk refused it."""
        try:
            self.wait()
        except BaseException:
            # Other threads of a write that failed fail too, once its folder is gone.
            with contextlib.suppress(Exception):
                self._manager.close()
            raise
        else:
            self._manager.close()
        finally:
            self._clear_refused()  # those threads may have made it anew

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        # What a job writes that lost a process can't be finished: nobody is to wait for it.
        if distributed.alone() or not distributed.is_of_the_others(error):
            self.close()


def _brief(error: Exception) -> str:
    """The error's kind and first line: TensorStore's messages are pages long."""
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0][:120]}"


def finished_steps(folder: PathLike) -> list[int]:
    """The steps of a folder's whole checkpoints, in order. In a bucket, where no folder can be
    renamed, it is Orbax's marker object that says which are whole."""
    root = epath.Path(folder)
    found = [path for path in root.iterdir() if path.name.isdigit()] if root.exists() else []
    return sorted(int(path.name) for path in found if ocp.utils.is_checkpoint_finalized(path))


def newest_checkpoint(workdir: PathLike) -> epath.Path:
    """The newest finished checkpoint of a run, or `workdir` itself where it is one."""
    folder = epath.Path(workdir)
    if (folder / "parameters").exists():
        return folder
    steps = folder / "checkpoints"
    found = finished_steps(steps)
    if not found:
        raise UserError(
            f"{folder} holds no checkpoint (no {steps}/<step>); give the workdir of a training run."
        )
    return steps / str(found[-1])


def locate_checkpoint(path: PathLike) -> tuple[epath.Path, epath.Path]:
    """The newest checkpoint of a workdir, or the one that `path` is, and its workdir."""
    folder = epath.Path(path)
    checkpoint = newest_checkpoint(folder)
    return checkpoint, folder if checkpoint != folder else folder.parent.parent


def checkpoint_fingerprint(checkpoint: PathLike) -> str:
    """A hash that differs for different parameters: of the manifest that names their chunks by
    content and place, so that no parameter is read."""
    return file_sha256(epath.Path(checkpoint) / "parameters" / "manifest.ocdbt")


def stored_parameters(checkpoint: PathLike) -> dict[str, jax.ShapeDtypeStruct]:
    """Path -> shape and dtype of every parameter in a checkpoint; no parameter is read."""
    with ocp.StandardCheckpointer() as reader:
        metadata = reader.metadata(_rooted(checkpoint) / "parameters")
    tree = getattr(metadata, "item_metadata", metadata)
    if tree is None:
        raise ValueError("its parameters' files are missing or cut off")
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
    dtype of its abstract array. Raises UserError where it is damaged or of another model."""
    try:
        check_parameters(checkpoint, abstract)
        with ocp.StandardCheckpointer() as reader:
            return _flatten(reader.restore(_rooted(checkpoint) / "parameters", _nest(abstract)))
    except UserError:
        raise
    except Exception as error:  # Orbax raises of any kind
        raise _damaged(checkpoint, error) from None


def load_some(checkpoint: PathLike, abstract: Flat) -> dict[str, jax.Array]:
    """As `load_parameters`, of some of a checkpoint's parameters alone."""
    item = _nest(abstract)
    wanted = ocp.args.PyTreeRestore(
        item=item,
        restore_args=ocp.checkpoint_utils.construct_restore_args(item),
        partial_restore=True,
    )
    try:
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
            return _flatten(reader.restore(_rooted(checkpoint) / "parameters", args=wanted))
    except Exception as error:  # Orbax raises of any kind
        raise _damaged(checkpoint, error) from None


def _damaged(checkpoint: PathLike, error: Exception) -> UserError:
    return UserError(
        f"checkpoint {checkpoint} is damaged ({_brief(error)}); give another one, or bring back a "
        "copy."
    )
