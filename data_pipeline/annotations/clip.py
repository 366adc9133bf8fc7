"""Boxes of annotations, cut to their picture."""

from data_pipeline.annotations.fields import Corners
from data_pipeline.annotations.scene import PixelBox


def clip_box(corners: Corners, width: int, height: int) -> PixelBox:
    """The box in whole pixels, what sticks out of the picture cut off.

    Raises ValueError where nothing of it lies within the picture.
    """
    x1, y1, x2, y2 = corners
    box = PixelBox(
        max(0, round(x1)), max(0, round(y1)), min(width, round(x2)), min(height, round(y2))
    )
    if box.x1 >= box.x2 or box.y1 >= box.y2:
        raise ValueError(
            f"box is empty inside its picture: corners {corners} on {width}x{height} pixels"
        )
    return box
