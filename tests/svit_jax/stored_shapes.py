"""The sizes of the models in tests/fixtures, which stand in tests/parity/torch_reference.py too."""

from data_pipeline.images.statistics import IMAGE_MEAN, IMAGE_STD
from svit_jax.models.decoder import DecoderConfig
from svit_jax.models.svit import SvitConfig
from svit_jax.models.vision_tower import VisionConfig

STORED_SHAPES = {
    "multi_head": SvitConfig(
        VisionConfig(28, 14, 32, 3, 4, 96, IMAGE_MEAN, IMAGE_STD),
        DecoderConfig(vocab=96, embed=48, layers=2, heads=4, kv_heads=4, head_dim=12, mlp=80),
    ),
    "grouped": SvitConfig(
        VisionConfig(24, 8, 48, 4, 3, 80, IMAGE_MEAN, IMAGE_STD),
        DecoderConfig(71, 36, 3, 6, 2, 10, 52, rope_theta=500.0),
    ),
}
