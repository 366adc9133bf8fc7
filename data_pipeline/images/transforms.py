"""From a picture file's bytes to the uint8 square that the vision tower is given.

The arithmetic is LLaVA-1.5's: a padded square, or CLIP's resize and centre crop, then PIL's
antialiased bicubic resize on uint8. Scaling and normalising come later, on the device.
"""

import contextlib
import io
from collections.abc import Iterator
from typing import Literal, get_args

import numpy as np
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError

from data_pipeline.common.errors import BadRecordError, UserError
from data_pipeline.images.statistics import PAD_COLOUR

AspectMode = Literal["pad", "crop"]

PIXEL_LIMIT = 89_478_485
"""Most pixels that a picture's square may hold: Pillow's own warning level. What `prepare` needs
beside the file's bytes is then 1.1 GB at most, for a picture of RGBA that is nearly square."""

_SIDE_LIMIT = int(PIXEL_LIMIT**0.5)
_STRIP_PIXELS = 1 << 24

_PIXELS_PER_BYTE = 10_000
"""More than a file can hold (a blank PNG of one bit a pixel: 1032 * 8), WebP's apart."""

# Pillow would also open PostScript, PDF and dozens more, some of which run other programs.
_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP")
Image.init()  # WebP is not among the formats that Pillow registers by itself.

# What the reference fills the rest of an unconverted canvas with, as RGB: of its palette only the
# first entry is set, and to its CMYK ink, full black is added.
_UNCONVERTED_FILL: dict[str, int | tuple[int, ...]] = {"P": 0, "CMYK": (*PAD_COLOUR, 255)}


def decode_picture(data: bytes, name: str) -> Image.Image:
    """The picture as RGB, in the orientation in which its pixels are stored.

    EXIF rotation is ignored, as in LLaVA; the first frame of an animation is taken; grey, palette
    and CMYK pictures are converted, transparency is dropped, as `PIL.Image.convert` does.

    Raises BadRecordError, naming `name`, where the bytes are no JPEG, PNG, GIF, BMP or WebP, are
    cut off or damaged, or claim a size beyond PIXEL_LIMIT or beyond what they can hold. What a
    well-formed file has too little of can't be seen: Pillow leaves it black, or grey in a JPEG.
    """
    return _decode(data, name, unconverted=False)


def picture_size(data: bytes, name: str) -> tuple[int, int]:
    """The width and height that the picture claims, in pixels: none of them is decoded.

    Raises BadRecordError as `decode_picture` does, but for what only decoding shows.
    """
    with _opened(data, name) as picture:
        return picture.size


def _decode(data: bytes, name: str, unconverted: bool) -> Image.Image:
    with _opened(data, name) as picture:
        if unconverted and picture.mode in _UNCONVERTED_FILL:
            picture.load()
            return picture
        return picture.convert("RGB")


@contextlib.contextmanager
def _opened(data: bytes, name: str) -> Iterator[Image.Image]:
    """The picture with its header read; what goes wrong with it meanwhile is a BadRecordError."""
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as picture:
            _check_size(picture, len(data), name)
            yield picture
    except BadRecordError:
        raise
    except Image.DecompressionBombError as error:
        raise BadRecordError(
            f"picture {name} ({len(data)} bytes) claims more pixels than the limit of "
            f"{_SIDE_LIMIT} a side ({error}); scale it down or leave it out."
        ) from None
    # Decoders answer hostile bytes with OSError, SyntaxError, ValueError, struct.error and more.
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        if isinstance(error, UnidentifiedImageError):
            reason = f"it begins with {data[:12]!r}" if data else "it is empty"
        raise BadRecordError(
            f"picture {name} ({len(data)} bytes) is not a whole JPEG, PNG, GIF, BMP or WebP file "
            f"({reason}); fetch it again or leave it out."
        ) from None


def _check_size(picture: Image.Image, file_size: int, name: str) -> None:
    width, height = picture.size
    # Padding makes a square of the long side, so the long side is what a small file can blow up.
    if max(width, height) > _SIDE_LIMIT:
        raise BadRecordError(
            f"picture {name} claims {width}x{height} pixels, more than the limit of "
            f"{_SIDE_LIMIT} a side; scale it down or leave it out."
        )
    if picture.format != "WEBP" and width * height > _PIXELS_PER_BYTE * file_size:
        raise BadRecordError(
            f"picture {name} claims {width}x{height} pixels, which {file_size} bytes can't hold; "
            "fetch it again or leave it out."
        )


def pad_to_square(image: Image.Image) -> Image.Image:
    """The picture as RGB in the middle of a square of its long side, in the mean colour of CLIP's
    data.

    The short axis is offset by floor((long - short) / 2). A square picture gains nothing.

    A picture that is not RGB yet is padded as it is, then converted, as the reference's evaluation
    of ScienceQA and MMBench does. Its result for a palette ("P") is strange, with Pillow 10.1 and
    later: the canvas has a palette of the padding's colour alone, so that the picture's first
    colour becomes that one, and all others become black. CMYK is padded in black. Others come out
    as if they were converted first, or can't be padded there.
    """
    width, height = image.size
    side = max(width, height)
    if width == height:
        return image.convert("RGB")
    square = Image.new(image.mode, (side, side), _UNCONVERTED_FILL.get(image.mode, PAD_COLOUR))
    if image.mode == "P":
        square.putpalette((*PAD_COLOUR, *bytes(3 * 255)))
    square.paste(image, ((side - width) // 2, (side - height) // 2))
    return square.convert("RGB")


def resize_and_crop(image: Image.Image, size: int) -> Image.Image:
    """The middle `size` x `size` of the picture after its short side was resized to `size`.

    The long side becomes int(size * long / short), as in the CLIP image processor. Pillow resizes
    along x, then along y, and rounds in between, so what is cut off after the first pass, or done
    strip by strip in the second, changes no pixel; it bounds the memory of a sliver.
    """
    width, height = image.size
    short, long = min(width, height), max(width, height)
    resized_long = int(size * long / short)
    resized = (size, resized_long) if width <= height else (resized_long, size)
    left, top = (resized[0] - size) // 2, (resized[1] - size) // 2
    columns = image.resize((resized[0], height), Image.Resampling.BICUBIC)
    columns = columns.crop((left, 0, left + size, height))
    middle = Image.new("RGB", (size, size))
    strip_width = max(1, _STRIP_PIXELS // resized[1])
    for start in range(0, size, strip_width):
        end = min(start + strip_width, size)
        strip = columns.crop((start, 0, end, height))
        strip = strip.resize((end - start, resized[1]), Image.Resampling.BICUBIC)
        middle.paste(strip.crop((0, top, end - start, top + size)), (start, 0))
    return middle


def prepare(
    data: bytes, size: int, mode: AspectMode, name: str, pad_unconverted: bool = False
) -> UInt8[np.ndarray, "Y X 3"]:
    """The file's picture as Y = X = `size` pixels of RGB.

    Args:
      data: the bytes of the picture file.
      size: pixels a side.
      mode: "pad" keeps the whole picture on a mean-coloured square (LLaVA-1.5's second stage and
        all evaluation); "crop" cuts the middle (its first stage).
      name: what errors call the picture.
      pad_unconverted: pad palette and CMYK pictures before they are converted to RGB, as
        `pad_to_square` says. For the reference's numbers alone: it spoils those pictures.

    Raises BadRecordError as `decode_picture` does, UserError for an unknown mode.
    """
    if mode == "pad":
        square = pad_to_square(_decode(data, name, pad_unconverted))
        return np.asarray(square.resize((size, size), Image.Resampling.BICUBIC))
    if mode == "crop":
        return np.asarray(resize_and_crop(decode_picture(data, name), size))
    modes = " or ".join(get_args(AspectMode))
    raise UserError(f"the image mode is {mode!r}, which is unknown; choose {modes}.")
