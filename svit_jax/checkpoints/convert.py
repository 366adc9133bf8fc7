"""`svit convert`: from any format to any, whole or not at all."""

import dataclasses
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from data_pipeline.common.errors import UserError
from data_pipeline.common.files import PathLike
from data_pipeline.common.progress import progress_bar
from svit_jax.checkpoints.detect import Format, detect
from svit_jax.checkpoints.hugging_face_export import export_llava, export_llava_hf
from svit_jax.checkpoints.hugging_face_import import (
    ImportOptions,
    import_hugging_face,
    read_tower,
    unused_of_tower,
)
from svit_jax.checkpoints.lazy_array import BFLOAT16
from svit_jax.checkpoints.lora_files import export_adapter, merged, read_adapter, with_adapter
from svit_jax.checkpoints.portable import TOWER_PREFIX, Portable
from svit_jax.checkpoints.workdir_format import export_workdir, import_workdir

Target = Literal["llava", "llava-hf", "lora", "orbax"]
TARGETS: tuple[Target, ...] = get_args(Target)
DTYPES = {
    "float32": np.dtype(np.float32),
    "bfloat16": BFLOAT16,
    "float16": np.dtype(np.float16),
}


@dataclasses.dataclass(frozen=True)
class ConvertReport:
    """What was found and what became of it. `kept` names the tensors that the model does not use
    and that stand beside it."""

    source: str
    format: str
    reason: str
    target: str
    to: str
    parameters: int
    bytes: int
    dtypes: tuple[str, ...]
    kept: tuple[str, ...]
    notes: tuple[str, ...]


def convert(
    source: PathLike,
    target: PathLike,
    to: Target,
    options: ImportOptions,
    given: Format | Literal["auto"] = "auto",
    dtype: str | None = None,
    with_tower: bool = False,
    keep_lora: bool = False,
) -> ConvertReport:
    """Converts a checkpoint folder; `target` appears whole, or a UserError says what is wrong.

    Stacked tensors pass one at a time: memory is about twice the largest, whatever the model's
    size. A conversion that was killed starts anew and takes away what it left. LoRA is merged into
    the decoder, unless the target is an adapter or it is kept apart (`keep_lora`, to orbax).
    """
    found = detect(source)
    if given not in ("auto", found.format):
        raise UserError(
            f"{source} is a {found.format} checkpoint ({found.reason}), not a {given} one; say "
            f"--from {found.format} or leave it out."
        )
    model = _import(source, found.format, options)
    if not (to == "lora" or (to == "orbax" and keep_lora)):
        model = merged(model)
    if dtype is not None:
        model = model.cast(DTYPES[dtype])
    with _whole_folder(target) as aside, _progress(model, str(target)) as update:
        if to == "orbax":
            export_workdir(model, aside, update)
        elif to == "lora":
            export_adapter(model, aside, update)
        elif to == "llava-hf":
            export_llava_hf(model, aside, update)
        else:
            export_llava(model, aside, update, with_tower)
    return ConvertReport(
        source=str(source),
        format=found.format,
        reason=found.reason,
        target=str(target),
        to=to,
        parameters=sum(int(np.prod(x.shape)) for x in model.parameters.values()),
        bytes=sum(x.nbytes for x in model.parameters.values()),
        dtypes=tuple(sorted({str(x.dtype) for x in model.parameters.values()})),
        kept=tuple(sorted(model.unused)),
        notes=model.notes,
    )


def _import(source: PathLike, found: Format, options: ImportOptions) -> Portable:
    if found == "lora":
        return _import_lora(source, options)
    if found != "orbax":
        return import_hugging_face(source, options)
    model = import_workdir(source)
    if options.vision_tower is None:
        return model
    tower = unused_of_tower(read_tower(options.vision_tower), model.model.vision.stored_layers)
    rows = {k: x for k, x in model.unused.items() if not k.startswith(TOWER_PREFIX)}
    return dataclasses.replace(model, unused=rows | tower)


def _import_lora(source: PathLike, options: ImportOptions) -> Portable:
    if options.base is None:
        raise UserError(f"{source} is a LoRA; give the model that it was trained on as --base.")
    base = detect(options.base)
    if base.format == "lora":
        raise UserError(f"--base {options.base} is a LoRA itself; give a whole model.")
    adapter = read_adapter(source)
    if base.format != "orbax":
        return with_adapter(import_hugging_face(options.base, options, adapter.trained), adapter)
    return with_adapter(_import(options.base, base.format, options), adapter)


@contextmanager
def _whole_folder(target: PathLike) -> Iterator[Path]:
    """A folder beside `target` that takes its name when the block ends without an error."""
    if "://" in os.fspath(target):
        raise UserError(f"{target} is in a bucket; convert to a local folder, then copy it there.")
    final = Path(os.path.abspath(target))
    if final.exists() and (not final.is_dir() or any(final.iterdir())):
        raise UserError(f"{target} is there already; remove it or choose another place.")
    aside = final.parent / f".{final.name}.partial"
    if aside.exists():  # a conversion that was killed
        shutil.rmtree(aside)
    aside.mkdir(parents=True)
    try:
        yield aside
        if final.exists():
            final.rmdir()
        aside.rename(final)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


@contextmanager
def _progress(model: Portable, name: str) -> Iterator[Callable[[int], None]]:
    total = sum(x.nbytes for x in (*model.parameters.values(), *model.unused.values()))
    with progress_bar(total, Path(name).name, "B") as bar:
        bar.unit_scale = True

        def update(count: int) -> None:
            bar.update(count)

        yield update
