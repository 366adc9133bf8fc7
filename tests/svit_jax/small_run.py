"""Overrides that shrink a published config to seconds on a CPU."""

SMALL = (
    "data.batch_size=8",
    "data.row_length=128",
    "data.pictures_per_row=2",
    "data.plan=packed",
    "model.compute.dtype=float32",
    "model.compute.remat_vision=none",
    "model.compute.remat_decoder=none",
    "train.loss_chunk=32",
    "train.log_every=1",
    "checkpoint.every=2",
)

SMALL_RUN = (
    *SMALL,
    "train.steps=6",
    "optim.learning_rate=5e-3",
    "optim.rates=projector/.*=1e-4",
)
