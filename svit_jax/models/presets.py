"""The sizes that people train: the published ones, and small ones of the same architecture."""

from typing import Any

CLIP_L_336 = {
    "image_size": 336,
    "patch_size": 14,
    "embed": 1024,
    "layers": 24,
    "heads": 16,
    "mlp": 4096,
}
VICUNA_7B = {
    "vocab": 32000,
    "embed": 4096,
    "layers": 32,
    "heads": 32,
    "kv_heads": 32,
    "head_dim": 128,
    "mlp": 11008,
}
VICUNA_13B = {**VICUNA_7B, "embed": 5120, "layers": 40, "heads": 40, "kv_heads": 40, "mlp": 13824}

# A toy picture is 64 pixels wide; a patch of 32 sees one object.
TOY_VISION = {"image_size": 64, "patch_size": 32, "embed": 128, "layers": 3, "heads": 4, "mlp": 512}
TOY_DECODER = {
    "vocab": 768,
    "embed": 128,
    "layers": 3,
    "heads": 4,
    "kv_heads": 4,
    "head_dim": 32,
    "mlp": 256,
}
# Every axis divides by 8, so that tests can lay it over any mesh of 8 simulated devices.
TINY_VISION = {"image_size": 32, "patch_size": 8, "embed": 64, "layers": 3, "heads": 8, "mlp": 128}
TINY_DECODER = {
    "vocab": 512,
    "embed": 64,
    "layers": 2,
    "heads": 8,
    "kv_heads": 8,
    "head_dim": 8,
    "mlp": 128,
}

PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "7b": {"vision": CLIP_L_336, "decoder": VICUNA_7B},
    "13b": {"vision": CLIP_L_336, "decoder": VICUNA_13B},
    "toy": {"vision": TOY_VISION, "decoder": TOY_DECODER},
    "tiny": {"vision": TINY_VISION, "decoder": TINY_DECODER},
}
