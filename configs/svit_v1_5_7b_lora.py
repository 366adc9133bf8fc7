"""Stage 2 of SVIT-v1.5-7B with LoRA, as LLaVA-1.5's finetune_lora.sh: rank 128 on the matrices of
the decoder's blocks, the projector in full at a rate of its own, the rest frozen in bfloat16.

Start from stage 1 with --checkpoint.init=WORKDIR; LoRA's parameters are made anew.
"""

from ml_collections import ConfigDict

from svit_jax.config import default_config


def get_config(size: str = "7b") -> ConfigDict:
    config = default_config(size)
    config.model.lora.update(rank=128, alpha=256.0, dropout=0.05)
    config.model.compute.update(remat_vision="full", remat_decoder="full", frozen_dtype="bfloat16")
    config.data.update(batch_size=128, plan="padded")
    config.optim.update(
        learning_rate=2e-4,
        rates=("projector/.*=2e-5",),
        trainable=("projector/.*", "decoder/blocks/.*_lora/.*"),
    )
    config.train.loss_groups = 8  # the reference's devices, each with a mean of its own
    return config
