"""Model FLOPs of a training step, and the peak of the devices that do them.

Counted are the matrix products that the mathematics asks for (PaLM, arXiv 2204.02311, appendix B,
counts so too: no norms, activations, softmax), two FLOPs a multiplication and addition, on what a
batch really holds: no padding, no empty picture slot, and

- y = x W for N rows of x: 2 N size(W) forward; as much again for the gradient of W where W trains,
  and as much for the gradient of x where something before W trains. So a frozen tower costs its
  forward pass alone, and a decoder under LoRA has no gradients of its kernels.
- attention, two products forward and four backward: n (n + 1) / 2 pairs of positions for a segment
  of n tokens (it looks at itself, not ahead), 577 x 577 for a picture of the published tower.
- the unembedding on target tokens alone. An embedding is looked up: no product.

The tower's last block never runs (`vision_tower`), so it is not counted either. Where some of a
stack of layers trains, gradients flow through all of the stack.
"""

import dataclasses
import functools
import math
import operator
from collections.abc import Iterable

import numpy as np

from data_pipeline.loading.plan import PICTURES, TOKENS, Plan
from svit_jax.chips import find_chip
from svit_jax.models.decoder import PROJECTIONS
from svit_jax.models.parameters import flat_parameters
from svit_jax.models.remat import Remat
from svit_jax.models.svit import Compute, SvitConfig, abstract_model

Number = int | float


@dataclasses.dataclass(frozen=True)
class Work:
    """What steps had to do: real tokens, attended pairs of tokens within segments, pictures, and
    target tokens."""

    tokens: Number = 0
    pairs: Number = 0
    pictures: Number = 0
    targets: Number = 0

    def __add__(self, other: "Work") -> "Work":
        mine, theirs = dataclasses.astuple(self), dataclasses.astuple(other)
        return Work(*map(operator.add, mine, theirs))

    def times(self, flops: "Work") -> Number:
        """The FLOPs of this work, from those of one token, pair, picture and target."""
        return sum(map(operator.mul, dataclasses.astuple(self), dataclasses.astuple(flops)))


def rows_work(plan: Plan, rows: range) -> Work:
    """The work of these global rows; which of their tokens are targets the plan does not know."""
    segments = np.concatenate([plan.row(row) for row in rows]).astype(np.int64)
    tokens = segments[:, TOKENS]
    pairs = tokens * (tokens + 1) // 2
    return Work(int(tokens.sum()), int(pairs.sum()), int(segments[:, PICTURES].sum()))


@dataclasses.dataclass(frozen=True)
class StepFlops:
    """FLOPs of one token, pair, picture and target. `model` is what the mathematics asks for
    (model FLOPs utilisation, MFU); `hardware` adds what is computed again in the backward pass,
    to save memory (HFU)."""

    model: Work
    hardware: Work


_TOWER_KERNELS = ("q", "k", "v", "out", "fc1", "fc2")
# What of a layer the backward pass computes again, by the name of what it keeps
# (`models.remat.Remat`): these kernels' products, and this share of attention's two. A layer's last
# product is never among them: no gradient needs its result.
_LAST_OF_A_BLOCK = ("decoder/blocks/down", "decoder/blocks/down_lora/b", "tower/blocks/fc2")
_QKV, _AFTER = ("q", "k", "v"), ("o", "gate", "up", "down", "out", "fc1")
_AGAIN: dict[Remat, tuple[tuple[str, ...], float]] = {
    "none": ((), 0.0),
    "dots": ((), 1.0),
    "qkv": (_AFTER, 0.5),
    "attention": ((*_QKV, *_AFTER), 0.5),
    "full": ((*_QKV, *_AFTER), 1.0),
    "offload": (_AFTER, 0.5),
}


def step_flops(config: SvitConfig, trainable: frozenset[str], compute: Compute) -> StepFlops:
    """The FLOPs of a model of which the paths `trainable` train."""
    sizes = {
        path: math.prod(array.shape)
        for path, array in flat_parameters(abstract_model(config)).items()
    }
    vision, decoder = config.vision, config.decoder
    patches = vision.patches
    flowing = functools.partial(_trains, trainable)

    def products(paths: Iterable[str], gradient: bool) -> Number:
        """Of one row through these kernels; `gradient`: their inputs want one too."""
        return sum(2 * sizes[path] * (1 + (path in trainable) + gradient) for path in paths)

    def forward(paths: Iterable[str]) -> Number:
        return sum(2 * sizes[path] for path in paths)

    def again_in(remat: Remat, paths: Iterable[str]) -> tuple[Number, float]:
        """FLOPs of one row through these blocks' kernels once more, and attention's share."""
        names, pairs = _AGAIN[remat]
        kernels = {path: path.split("/")[2].removesuffix("_lora") for path in paths}
        # What LoRA's first matrix gives is kept under no name.
        found = [
            path
            for path, kernel in kernels.items()
            if kernel in names or (remat in ("qkv", "offload") and path.endswith("_lora/a"))
        ]
        return forward(path for path in found if path not in _LAST_OF_A_BLOCK), pairs

    tower = [f"tower/blocks/{name}" for name in _TOWER_KERNELS]
    in_tower = flowing("tower/")
    tower_pairs = 4 * vision.embed * vision.stored_layers * (patches + 1) ** 2
    picture = (
        patches * products(["tower/patch_embedding"], False)
        + (patches + 1) * products(tower, in_tower)
        + tower_pairs * (3 if in_tower else 1)
        + patches * products(["projector/fc1"], in_tower)
        + patches * products(["projector/fc2"], flowing("tower/", "projector/fc1"))
    )
    blocks = [
        path
        for name in PROJECTIONS
        for kernel in (f"decoder/blocks/{name}",)
        for path in (kernel, f"{kernel}_lora/a", f"{kernel}_lora/b")
        if path in sizes
    ]
    in_blocks = flowing("tower/", "projector/", "decoder/embedding", "decoder/blocks/")
    pair = 4 * decoder.heads * decoder.head_dim * decoder.layers
    unembedding = ["decoder/unembedding"]
    in_end = in_blocks or flowing("decoder/norm/")
    model = Work(
        tokens=products(blocks, in_blocks),
        pairs=pair * (3 if in_blocks else 1),
        pictures=picture,
        targets=products(unembedding, in_end),
    )
    again_tokens, again_pairs = again_in(compute.remat_decoder, blocks)
    again_patches, again_patch_pairs = again_in(compute.remat_vision, tower)
    again = Work(
        tokens=in_blocks * again_tokens,
        pairs=in_blocks * again_pairs * pair,
        pictures=in_tower * ((patches + 1) * again_patches + again_patch_pairs * tower_pairs),
    )
    return StepFlops(model, model + again)


def _trains(trainable: frozenset[str], *starts: str) -> bool:
    return any(path.startswith(starts) for path in trainable)


def peak_flops(device_kind: str) -> float | None:
    """The peak of one device in bfloat16 FLOP/s; None where its kind is not known."""
    chip = find_chip(device_kind)
    return chip.flops if chip else None
