"""The channel statistics that CLIP was trained with, and what follows from them."""

IMAGE_MEAN: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
IMAGE_STD: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)

PAD_COLOUR: tuple[int, int, int] = (
    int(IMAGE_MEAN[0] * 255),
    int(IMAGE_MEAN[1] * 255),
    int(IMAGE_MEAN[2] * 255),
)
