"""Stage 1 of SVIT-v1.5-7B, as LLaVA-1.5's pretrain.sh: the projector alone, on 558K captions.

Start from Vicuna and CLIP with --checkpoint.init=WORKDIR; the projector is made anew.
"""

from ml_collections import ConfigDict

from svit_jax.config import default_config


def get_config(size: str = "7b") -> ConfigDict:
    config = default_config(size)
    config.model.compute.update(remat_vision="full", remat_decoder="full")
    config.data.update(batch_size=256, template="plain", image_mode="crop", plan="padded")
    config.optim.update(learning_rate=1e-3, trainable=("projector/.*",))
    config.checkpoint.fresh = ("projector/.*",)
    config.train.loss_groups = 8  # the reference's devices, each with a mean of its own
    return config
