"""LLaVA-1.5's row, the form in which every source of instructions is handed on."""

from collections.abc import Sequence
from typing import Any

from etils import epath

from data_pipeline.annotations.scene import Scene
from data_pipeline.common.dialogue import IMAGE_MARKER, Turn
from data_pipeline.common.files import PathLike
from data_pipeline.common.quarantine import Quarantine


def llava_row(row_id: str, image: str, turns: Sequence[Turn]) -> dict[str, Any]:
    """The row as LLaVA-1.5 has it: `<image>` and a line break stand before the first question."""
    return {
        "id": row_id,
        "image": image,
        "conversations": [
            {
                "from": turn.role,
                "value": f"{IMAGE_MARKER}\n{turn.text}" if place == 0 else turn.text,
            }
            for place, turn in enumerate(turns)
        ],
    }


def image_path(scene: Scene, prefix: str) -> str:
    """The picture's path in a row; `prefix` "vg/" gives the published layout."""
    return f"{prefix}{scene.image_file}"


def quarantine_beside(out: PathLike, max_bad: int | None = None) -> Quarantine:
    """The quarantine of the output `out`: `<name>.quarantine.jsonl` in the same folder."""
    path = epath.Path(out)
    return Quarantine(path.parent / f"{path.stem}.quarantine.jsonl", max_bad)
