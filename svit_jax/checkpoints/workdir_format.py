"""A portable model <-> a workdir, as training leaves one, with what came along kept beside it.

<workdir>/model.json, tokenizer.model      the bundle
<workdir>/checkpoints/0/parameters         in the source's dtype
<workdir>/unused.safetensors               what the model never reads, byte for byte
<workdir>/source/                          the source's config, tokenizer and processor files
"""

import os
from pathlib import Path
from typing import Any

from data_pipeline.common.errors import UserError
from data_pipeline.common.files import PathLike, read_json, write_json
from svit_jax.checkpoints.bundle import TOKENIZER_FILE, read_bundle, write_bundle
from svit_jax.checkpoints.companions import CONFIG_FILE, find_companions, write_files
from svit_jax.checkpoints.manager import newest_checkpoint
from svit_jax.checkpoints.orbax_store import read_parameters, write_parameters
from svit_jax.checkpoints.portable import Portable, Progress
from svit_jax.checkpoints.safetensors import read_safetensors, write_safetensors

UNUSED_FILE, SOURCE_FOLDER, FORMAT_FILE = "unused.safetensors", "source", "format.json"
_RUN_FILE = "run.json"


def export_workdir(model: Portable, folder: Path, progress: Progress) -> None:
    """Writes a workdir that `load`, `svit train --checkpoint.init` and `svit eval` take."""
    if TOKENIZER_FILE not in model.files:
        raise UserError(
            f"the source has no {TOKENIZER_FILE} (SentencePiece), which svit reads and writes text "
            "with; give one as --tokenizer."
        )
    checkpoint = folder / "checkpoints" / "0"
    checkpoint.mkdir(parents=True)
    write_parameters(checkpoint / "parameters", model.parameters, progress)
    if model.unused:
        write_safetensors(folder / UNUSED_FILE, model.unused)
        progress(sum(tensor.nbytes for tensor in model.unused.values()))
    source = folder / SOURCE_FOLDER
    source.mkdir()
    write_files(source, model.files, {CONFIG_FILE: model.config})
    write_json(source / FORMAT_FILE, {"format": model.format, "notes": list(model.notes)})
    tokenizer = model.files[TOKENIZER_FILE]
    write_bundle(folder, model.model, model.template, model.image_mode, tokenizer)


def import_workdir(path: PathLike) -> Portable:
    """The newest checkpoint of a workdir (or one checkpoint in it). A run knows what it began
    with: what rode along with that is found again through `run.json`."""
    folder = Path(os.path.abspath(path))
    checkpoint = Path(newest_checkpoint(folder))
    workdir = folder if checkpoint != folder else folder.parent.parent
    bundle = read_bundle(workdir)
    origin = _origin(workdir)
    files = find_companions(origin / SOURCE_FOLDER) if origin else {}
    content: dict[str, Any] = {"format": "orbax"}
    config: dict[str, Any] = {}
    unused = {}
    if origin is not None:
        content = read_json(origin / SOURCE_FOLDER / FORMAT_FILE, "format file")
        config = read_json(origin / SOURCE_FOLDER / CONFIG_FILE, "config")
        if (origin / UNUSED_FILE).exists():
            unused = read_safetensors(origin / UNUSED_FILE)
    return Portable(
        model=bundle.model,
        parameters=read_parameters(checkpoint),
        unused=unused,
        image_mode=bundle.image_mode,
        template=bundle.template,
        files={**files, TOKENIZER_FILE: Path(bundle.tokenizer)},
        format=content["format"],
        config=config,
    )


def _origin(workdir: Path) -> Path | None:
    """The converted workdir that a run goes back to through its `checkpoint.init`, if it stands."""
    seen: set[Path] = set()
    current = workdir
    while current not in seen:
        seen.add(current)
        if (current / SOURCE_FOLDER / FORMAT_FILE).exists():
            return current
        if not (current / _RUN_FILE).exists():
            return None
        settings = read_json(current / _RUN_FILE, "run file").get("config", {})
        init = settings.get("checkpoint", {}).get("init", "scratch")
        if init == "scratch" or not Path(init).exists():
            return None
        found = Path(os.path.abspath(init))
        current = found.parent.parent if (found / "parameters").exists() else found
    return None
