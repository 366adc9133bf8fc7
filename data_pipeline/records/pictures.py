"""The pictures of a dataset: their files as they are, or made ready for the model once."""

import dataclasses
import io
from typing import Literal

from PIL import Image

from data_pipeline.common.errors import UserError
from data_pipeline.images.transforms import AspectMode, decode_picture, prepare

PictureFormat = Literal["png", "jpeg"]


@dataclasses.dataclass(frozen=True)
class Resize:
    """Pictures become the very squares that a loader with this `size` and `mode` makes of them.

    With `format` "png" training sees the same pixels, bit for bit, as from the pictures' own files:
    a square of the model's size passes through the loader unchanged. With "jpeg" (quality 95, no
    chroma subsampling) they differ a little and take less room. Boxes keep their sense in "pad",
    where LLaVA's boxes are fractions of the padded square; "crop" cuts off what they may lie on.
    """

    size: int
    mode: AspectMode = "pad"
    format: PictureFormat = "png"

    def __post_init__(self) -> None:
        if self.size < 1:
            raise UserError(f"pictures can't be resized to {self.size} pixels; give 1 or more.")

    def require_fit(self, size: int, mode: AspectMode) -> None:
        """Raises UserError where a run with pictures of `size` and `mode` would see others than
        these: cropped in place of padded (or the reverse), or enlarged."""
        if mode != self.mode or size > self.size:
            raise UserError(
                f"the dataset's pictures were made for {self.size} pixels and "
                f"data.image_mode={self.mode}, but the run wants {size} and {mode}; write the "
                f"dataset with --resize {size} --image-mode {mode}, or without --resize."
            )


def stored_picture(data: bytes, name: str, resize: Resize | None) -> tuple[bytes, int, int]:
    """The file that a record holds of a picture, its width and its height.

    The picture is decoded whole, by the loader's own decoder, to know that it can be. Raises
    BadRecordError, naming `name`, where it can't.
    """
    if resize is None:
        return data, *decode_picture(data, name).size
    file = io.BytesIO()
    square = Image.fromarray(prepare(data, resize.size, resize.mode, name))
    if resize.format == "png":
        square.save(file, "PNG")
    else:
        square.save(file, "JPEG", quality=95, subsampling=0)
    return file.getvalue(), resize.size, resize.size
