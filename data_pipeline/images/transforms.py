"""From a picture file's bytes to the uint8 square that the vision tower is given.

The arithmetic is LLaVA-1.5's: a padded square, or CLIP's resize and centre crop, then PIL's
antialiased bicubic resize on uint8. Scaling and normalising come later, on the device.
"""

import io
from typing import Literal, get_args

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from data_pipeline.common.errors import BadRecordError, UserError
from data_pipeline.images.statistics import PAD_COLOUR

AspectMode = Literal["pad", "crop"]

PIXEL_LIMIT = 89_478_485
"""Most pixels that a picture's square may hold (Pillow's own warning level): 268 MB of RGB."""

ASPECT_LIMIT = 200
"""Longest side over shortest: a sliver beyond it would grow without bound when its short side is
resized to the model's."""

# Pillow would also open PostScript, PDF and dozens more, some of which run other programs.
_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP")
Image.init()  # WebP is not among the formats that Pillow registers by itself.


def decode_picture(data: bytes, name: str) -> Image.Image:
    """The picture as RGB, in the orientation in which its pixels are stored.

    EXIF rotation is ignored, as in LLaVA; the first frame of an animation is taken; grey, palette
    and CMYK pictures are converted, transparency is dropped, as `PIL.Image.convert` does.

    Raises BadRecordError, naming `name`, where the bytes are no JPEG, PNG, GIF, BMP or WebP, are
    cut off or damaged, or claim a size beyond PIXEL_LIMIT or ASPECT_LIMIT.
    """
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as picture:
            _check_size(picture.size, name)
            return picture.convert("RGB")
    except BadRecordError:
        raise
    # Decoders answer hostile bytes with OSError, SyntaxError, ValueError, struct.error and more.
    except Exception as error:
        reason = f"{type(error).__name__}: {error}" if data else "it is empty"
        raise BadRecordError(
            f"picture {name} ({len(data)} bytes) is not a whole JPEG, PNG, GIF, BMP or WebP file "
            f"({reason}); fetch it again or leave it out."
        ) from None


def _check_size(size: tuple[int, int], name: str) -> None:
    width, height = size
    # Padding makes a square of the long side, so the long side is what a small file can blow up.
    if max(size) ** 2 > PIXEL_LIMIT:
        raise BadRecordError(
            f"picture {name} claims {width}x{height} pixels, more than the limit of "
            f"{int(PIXEL_LIMIT**0.5)} a side; scale it down or leave it out."
        )
    if max(size) > ASPECT_LIMIT * min(size):
        raise BadRecordError(
            f"picture {name} is {width}x{height} pixels, a sliver longer than {ASPECT_LIMIT} "
            "times its width; crop it or leave it out."
        )


def pad_to_square(image: Image.Image) -> Image.Image:
    """The picture in the middle of a square of its long side, in the mean colour of CLIP's data.

    The short axis is offset by floor((long - short) / 2). A square picture is returned as it is.
    """
    width, height = image.size
    if width == height:
        return image
    side = max(width, height)
    square = Image.new("RGB", (side, side), PAD_COLOUR)
    square.paste(image, ((side - width) // 2, (side - height) // 2))
    return square


def resize_and_crop(image: Image.Image, size: int) -> Image.Image:
    """The middle `size` x `size` of the picture after its short side was resized to `size`.

    The long side becomes int(size * long / short), as in the CLIP image processor.
    """
    width, height = image.size
    short, long = min(width, height), max(width, height)
    resized_long = int(size * long / short)
    resized = (size, resized_long) if width <= height else (resized_long, size)
    left, top = (resized[0] - size) // 2, (resized[1] - size) // 2
    return image.resize(resized, Image.Resampling.BICUBIC).crop(
        (left, top, left + size, top + size)
    )


def prepare(data: bytes, size: int, mode: AspectMode, name: str) -> UInt8[np.ndarray, "Y X 3"]:
    """The file's picture as Y = X = `size` pixels of RGB.

    Args:
      data: the bytes of the picture file.
      size: pixels a side.
      mode: "pad" keeps the whole picture on a mean-coloured square (LLaVA-1.5's second stage and
        all evaluation); "crop" cuts the middle (its first stage).
      name: what errors call the picture.

    Raises BadRecordError as `decode_picture` does, UserError for an unknown mode.
    """
    if mode == "pad":
        square = pad_to_square(decode_picture(data, name))
        return np.asarray(square.resize((size, size), Image.Resampling.BICUBIC))
    if mode == "crop":
        return np.asarray(resize_and_crop(decode_picture(data, name), size))
    modes = " or ".join(get_args(AspectMode))
    raise UserError(f"the image mode is {mode!r}, which is unknown; choose {modes}.")
