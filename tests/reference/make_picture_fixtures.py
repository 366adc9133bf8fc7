"""Writes pictures.npz: picture files, and what the reference's CLIP image processor makes of them.

pip install transformers==4.37.2 pillow "numpy<2"
python tests/reference/make_picture_fixtures.py
"""

import io
import pathlib
import sys

import numpy as np
import transformers
from pictures import KINDS, picture_file
from PIL import Image

FIXTURE = pathlib.Path(__file__).with_name("pictures.npz")
SIZE = 16
# None is 1 or 3 pixels high: 4.37.2 takes such a picture's rows for its channels.
SIZES = [(40, 27), (9, 21), (16, 16), (2, 2), (200, 2), (1, 200), (31, 30)]


def main() -> None:
    if not transformers.__version__.startswith("4.37."):
        sys.exit(f"transformers is {transformers.__version__}; the reference is 4.37.2")
    processor = transformers.CLIPImageProcessor(
        size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE}
    )
    colour = tuple(int(x * 255) for x in processor.image_mean)

    def unscaled(image: Image.Image) -> np.ndarray:
        values = processor(image, do_rescale=False, do_normalize=False)["pixel_values"][0]
        assert (values == values.astype(np.uint8)).all()
        return values.astype(np.uint8).transpose(1, 2, 0)

    def padded(image: Image.Image) -> Image.Image:
        side = max(image.size)
        if min(image.size) == side:
            return image
        square = Image.new(image.mode, (side, side), colour)
        square.paste(image, ((side - image.size[0]) // 2, (side - image.size[1]) // 2))
        return square

    arrays = {}
    for number in range(2 * len(KINDS)):
        kind = KINDS[number % len(KINDS)]
        data = picture_file(kind, *SIZES[number % len(SIZES)], seed=number)
        name = f"{number:02} {kind}"
        image = Image.open(io.BytesIO(data))
        arrays[f"{name}/file"] = np.frombuffer(data, np.uint8)
        arrays[f"{name}/pad"] = unscaled(padded(image.convert("RGB")))
        arrays[f"{name}/crop"] = unscaled(image)
        if image.mode in ("RGB", "RGBA", "P", "CMYK"):
            arrays[f"{name}/pad unconverted"] = unscaled(padded(image))
    ramp = np.repeat(np.arange(256, dtype=np.uint8), 3).reshape(16, 16, 3)
    values = processor(Image.fromarray(ramp))["pixel_values"][0]
    arrays["ramp"] = values.transpose(1, 2, 0).reshape(256, 3)
    np.savez_compressed(FIXTURE, **arrays)


if __name__ == "__main__":
    main()
