"""The demo's three stages: `toy.py:scratch`, `toy.py:pretrain`, `toy.py:finetune`.

No pretrained parts exist for a toy world, so `scratch` first trains tower, projector and decoder
together, on descriptions. From there on it goes as on Vicuna and CLIP: `pretrain` (stage 1) trains
the projector alone on captions, from what `scratch` made of it (so short a stage could not make a
new one fit); `finetune` (stage 2) trains decoder and projector on instructions, with the tower
frozen. Muon trains the layers' matrices: tried once, AdamW took about twice as many steps to the
same loss. In `finetune` the rate stays high for longer than a cosine's: the seed that learns more
slowly than this one, of two, ended three points higher so.
"""

from ml_collections import ConfigDict

from svit_jax.config import default_config

TOWER, DECODER = "q|k|v|out|fc1|fc2", "q|k|v|o|gate|up|down"


def get_config(stage: str = "finetune") -> ConfigDict:
    config = default_config("toy")
    config.model.compute.dtype = "float32"
    config.data.update(batch_size=12, row_length=112, pictures_per_row=3)
    config.optim.update(b2=0.99, clip_norm=1.0)
    config.train.update(log_every=20, loss_chunk=112)
    config.checkpoint.every = 200
    if stage == "scratch":
        config.optim.update(
            learning_rate=2e-3,
            trainable=(".*",),
            muon=(f"tower/blocks/({TOWER})", f"decoder/blocks/({DECODER})"),
        )
        config.train.steps = 450
    elif stage == "pretrain":
        config.optim.update(learning_rate=2e-4, trainable=("projector/.*",))
        config.data.template = "plain"
        config.train.steps = 60
    elif stage == "finetune":
        config.optim.update(
            learning_rate=2e-3,
            trainable=("projector/.*", "decoder/.*"),
            muon=(f"decoder/blocks/({DECODER})",),
            decay_ratio=0.4,
        )
        config.data.update(batch_size=18, row_length=96)
        config.train.update(steps=720, loss_chunk=24)
    else:
        raise ValueError(f"there is no stage {stage!r}; choose scratch, pretrain or finetune")
    return config
