"""Sizes read from the pictures themselves, without decoding them."""

from etils import epath
from PIL import Image, UnidentifiedImageError

from data_pipeline.common.errors import UserError
from data_pipeline.common.files import PathLike

# Those that the loader reads.
_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP")
Image.init()  # WebP is not among the formats that Pillow registers by itself.


class PictureSizes:
    """Looks sizes up in a folder of pictures. Raises UserError where there is no such folder."""

    def __init__(self, folder: PathLike):
        self._folder = epath.Path(folder)
        if not self._folder.is_dir():
            raise UserError(f"pictures: there is no folder {folder}; check the path.")

    def of(self, image_file: str) -> tuple[int, int]:
        """Width and height in pixels as stored: an EXIF rotation is not applied, nor is it by the
        loader. Raises ValueError where the file is missing or no picture."""
        path = self._folder / image_file
        if not path.exists():
            raise ValueError(f"missing picture: there is no file {path}")
        try:
            with path.open("rb") as file, Image.open(file, formats=_FORMATS) as picture:
                return picture.size
        except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError):
            raise ValueError(
                f"broken picture: {path} is no JPEG, PNG, GIF, BMP or WebP that can be read"
            ) from None
