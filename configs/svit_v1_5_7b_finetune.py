"""Stage 2 of SVIT-v1.5-7B, as LLaVA-1.5's finetune.sh: decoder and projector, the tower frozen,
128 samples a step on SVIT-mix-665K, one row a sample.

Start from stage 1 with --checkpoint.init=WORKDIR.
"""

from ml_collections import ConfigDict

from svit_jax.config import default_config


def get_config(size: str = "7b") -> ConfigDict:
    config = default_config(size)
    config.model.compute.update(remat_vision="full", remat_decoder="full")
    config.data.update(batch_size=128, plan="padded")
    config.optim.update(learning_rate=2e-5, trainable=("projector/.*", "decoder/.*"))
    config.train.loss_groups = 8  # the reference's devices, each with a mean of its own
    return config
