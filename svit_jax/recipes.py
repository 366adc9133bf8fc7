"""The runs that people start: SVIT-v1.5's stages as published, and what else they may run on.

A config's argument is words joined by "+", in any order: `packed`, `tiny+packed`, `v5e`, `gpu8`.
Without any it is the paper's run: a row a dialogue, batches grouped as the reference's sampler
does, the loss a mean of eight devices' means, no clipping.
"""

from collections.abc import Callable
from typing import Literal

from ml_collections import ConfigDict

from data_pipeline.common.errors import UserError
from svit_jax.config import default_config
from svit_jax.models.presets import PRESETS

Stage = Literal["pretrain", "finetune", "lora"]


def recipe(size: str, stage: Stage, argument: str = "") -> ConfigDict:
    """The config of a stage of SVIT-v1.5 at a size ("7b", "13b"), changed by the argument's words:
    another size, or variants. Raises UserError for a word that is neither."""
    words = [word for word in argument.split("+") if word]
    unknown = [word for word in words if word not in PRESETS and word not in VARIANTS]
    if unknown:
        raise UserError(
            f"config argument '{argument}': there is no '{unknown[0]}'; choose among sizes "
            f"({', '.join(PRESETS)}) and variants ({', '.join(VARIANTS)}), joined by '+'."
        )
    if "smoke" in words:
        size = "tiny"
    config = default_config(next((word for word in words if word in PRESETS), size))
    _STAGES[stage](config)
    for word, variant in VARIANTS.items():  # in the table's order, whatever the argument's
        if word in words:
            variant(config)
    return config


def _published(config: ConfigDict) -> None:
    config.model.compute.update(remat_vision="full", remat_decoder="full")
    config.data.plan = "padded"
    config.train.loss_groups = 8  # the reference's devices, each with a mean of its own


def _pretrain(config: ConfigDict) -> None:
    """Stage 1, as LLaVA-1.5's pretrain.sh: the projector alone, 256 captions a step."""
    _published(config)
    config.data.update(batch_size=256, template="plain", image_mode="crop", reference_devices=0)
    config.optim.update(learning_rate=1e-3, trainable=("projector/.*",))
    config.checkpoint.fresh = ("projector/.*",)


def _finetune(config: ConfigDict) -> None:
    """Stage 2, as LLaVA-1.5's finetune.sh: decoder and projector, the tower frozen."""
    _published(config)
    config.data.batch_size = 128
    config.optim.update(learning_rate=2e-5, trainable=("projector/.*", "decoder/.*"))


def _lora(config: ConfigDict) -> None:
    """Stage 2 as LLaVA-1.5's finetune_lora.sh: rank 128 on the matrices of the decoder's blocks,
    the projector in full at a rate of its own, the rest frozen in bfloat16."""
    _published(config)
    config.model.lora.update(rank=128, alpha=256.0, dropout=0.05)
    config.model.compute.frozen_dtype = "bfloat16"
    config.data.batch_size = 128
    config.optim.update(
        learning_rate=2e-4,
        rates=("projector/.*=2e-5",),
        trainable=("projector/.*", "decoder/blocks/.*_lora/.*"),
    )


_STAGES: dict[Stage, Callable[[ConfigDict], None]] = {
    "pretrain": _pretrain,
    "finetune": _finetune,
    "lora": _lora,
}


def _packed(config: ConfigDict) -> None:
    """Rows full of dialogues, as many of them a step as published: of captions four a row, of
    SVIT-mix-665K's dialogues about 4.1 (docs/training.md, "Data order")."""
    config.data.plan = "packed"
    if config.data.template == "plain":
        config.data.update(batch_size=64, row_length=2560, pictures_per_row=4)
    else:
        config.data.update(batch_size=32, row_length=4096, pictures_per_row=5)
    config.train.loss_groups = 0


def _smoke(config: ConfigDict) -> None:
    """Ten steps of a model of a few hundred thousand parameters: does it run here, on this data?"""
    config.data.update(batch_size=8, row_length=1024)
    config.train.update(steps=10, log_every=1)


_WHOLE_PRODUCTS = "tpu:xla_jf_spmd_threshold_for_windowed_einsum_mib=1000000"
"""Weights are gathered before they are multiplied: multiplied piece by piece while they arrive, as
libtpu does by default on 32 chips, they keep HBM busy with sums (docs/planning.md)."""

_ROOM_FOR_PRODUCTS = "xla_tpu_scoped_vmem_limit_kib=98304"
"""v6e's matrix units of 256 want more on-chip memory for a product than libtpu gives by default."""


def _tpu(config: ConfigDict) -> None:
    """Packed rows over `fsdp`; chips beyond the rows split the rows' tokens over `sequence`. Layers
    keep attention's result (docs/planning.md: what fits 16 GB)."""
    _packed(config)
    config.mesh.update(fsdp=config.data.batch_size, sequence=-1)
    config.model.compute.remat_decoder = "attention"
    config.train.compiler_options = (_WHOLE_PRODUCTS,)


def _v5p(config: ConfigDict) -> None:
    """On chips of 95 GB, matrix products are kept rather than computed again."""
    _tpu(config)
    config.model.compute.remat_decoder = "dots"


def _tpu_of_32_gb(config: ConfigDict) -> None:
    """The same, but with LoRA, which keeps more beside each product: 13B's don't fit 32 chips."""
    _tpu(config)
    if not config.model.lora.rank:
        config.model.compute.remat_decoder = "dots"


def _v6e(config: ConfigDict) -> None:
    _tpu_of_32_gb(config)
    config.train.compiler_options += (_ROOM_FOR_PRODUCTS,)


def _small_gpu(config: ConfigDict) -> None:
    """One card of 24 GB: shorter rows, one at once, and all that is frozen in bfloat16."""
    _one_gpu(config)
    if config.data.template != "plain":
        config.data.update(batch_size=90, row_length=1408, pictures_per_row=2)
    config.train.accumulate = config.data.batch_size
    config.model.compute.frozen_dtype = "bfloat16"


def _one_gpu(config: ConfigDict) -> None:
    """One card of 80 GB: a packed row at once."""
    _packed(config)
    config.mesh.fsdp = 1
    config.train.accumulate = config.data.batch_size


def _one_host(config: ConfigDict) -> None:
    """Eight chips, each with a packed row at once."""
    _packed(config)
    config.mesh.fsdp = 8
    config.train.accumulate = config.data.batch_size // 8


def _v5e_host(config: ConfigDict) -> None:
    """The same on a v5e-8, which has room for attention's result."""
    _one_host(config)
    config.model.compute.remat_decoder = "attention"


def _eight_gpus(config: ConfigDict) -> None:
    """The same on GPUs, with parameters gathered while the layer before is computed."""
    _one_host(config)
    config.train.compiler_options = ("xla_gpu_enable_latency_hiding_scheduler=true",)


VARIANTS: dict[str, Callable[[ConfigDict], None]] = {
    "packed": _packed,
    "gpu24": _small_gpu,
    "gpu1": _one_gpu,
    "gpu8": _eight_gpus,
    "v5e8": _v5e_host,
    "v4": _tpu_of_32_gb,
    "v5e": _tpu,
    "v5p": _v5p,
    "v6e": _v6e,
    "smoke": _smoke,
}
