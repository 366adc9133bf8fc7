"""Batch: what a training step eats. Packed rows, uint8 pictures, shapes that no data changes."""

import dataclasses

import numpy as np
from jaxtyping import Float32, Int32, UInt8


@dataclasses.dataclass(frozen=True)
class Batch:
    """B rows of T tokens with M picture slots of Y x X pixels; P patch tokens a picture.

    tokens: ids; picture placeholders carry the pad id.
    loss_weights: belongs to tokens[b, t] as the thing predicted from t-1; 0 at each segment's first
      token. A step rolls it by -1 and never slices.
    segment_ids: 0 = padding, 1.. = the sample that the token belongs to.
    positions: restart at 0 in each segment.
    images: normalised on the device, never on the host.
    vision_index: -1 for text, else m * P + p: which patch of which picture slot stands here.
    """

    tokens: Int32[np.ndarray, "B T"]
    loss_weights: Float32[np.ndarray, "B T"]
    segment_ids: Int32[np.ndarray, "B T"]
    positions: Int32[np.ndarray, "B T"]
    images: UInt8[np.ndarray, "B M Y X 3"]
    vision_index: Int32[np.ndarray, "B T"]
