"""COCO caption files -> captions by picture."""

from data_pipeline.common.errors import UserError
from data_pipeline.common.files import PathLike, read_json


def read_captions(path: PathLike) -> dict[int, tuple[str, ...]]:
    """The captions of each COCO picture id, in the file's order, outer white space removed.

    `path` is an official captions file (`captions_train2014.json`). Pictures without a caption are
    absent. Raises UserError naming the annotation that is not a caption.
    """
    content = read_json(path, "COCO captions file")
    rows = content.get("annotations") if isinstance(content, dict) else None
    if not isinstance(rows, list):
        raise UserError(
            f'COCO captions file {path} has no list "annotations"; '
            "give an official captions_*.json file."
        )
    captions: dict[int, list[str]] = {}
    for number, row in enumerate(rows, start=1):
        coco_id = row.get("image_id") if isinstance(row, dict) else None
        caption = row.get("caption") if isinstance(row, dict) else None
        if not isinstance(coco_id, int) or not isinstance(caption, str):
            raise UserError(
                f'COCO captions file {path}, annotation {number}, needs an integer "image_id" and '
                f'a text "caption" but has {_short(row)}; give an official captions_*.json file, '
                "not an instances or key-points file."
            )
        captions.setdefault(coco_id, []).append(caption.strip())
    return {coco_id: tuple(texts) for coco_id, texts in captions.items()}


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
