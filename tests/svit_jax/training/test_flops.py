"""FLOPs of a step: against every product in the traced step, and against published figures."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data_pipeline.loading.plan import Plan, PlanInputs
from svit_jax.batch import BatchPlacement, batch_shapes
from svit_jax.config import build
from svit_jax.models.attention import packed_mask
from svit_jax.models.decoder import DecoderConfig
from svit_jax.models.lora import LoraConfig
from svit_jax.models.parameters import flat_parameters, with_parameters
from svit_jax.models.presets import CLIP_L_336, PRESETS, VICUNA_7B
from svit_jax.models.svit import Compute, SvitConfig, abstract_model
from svit_jax.models.vision_tower import VisionConfig
from svit_jax.sharding.mesh import MeshConfig, make_mesh
from svit_jax.sharding.rules import Rules
from svit_jax.training.flops import Work, peak_flops, rows_work, step_flops
from svit_jax.training.objective import batch_sums
from svit_jax.training.optimizer import trainable_paths

B, T, M = 2, 40, 2


def model_config(lora: LoraConfig | None = None, **decoder) -> SvitConfig:
    statistics = {"image_mean": (0.5, 0.5, 0.5), "image_std": (0.5, 0.5, 0.5)}
    vision = build(VisionConfig, PRESETS["tiny"]["vision"], "vision", **statistics)
    return SvitConfig(
        vision, build(DecoderConfig, PRESETS["tiny"]["decoder"] | decoder, "decoder"), lora
    )


def products(jaxpr) -> int:
    """The FLOPs of every matrix product that running the jaxpr does."""
    total = 0
    for equation in jaxpr.eqns:
        inner = [
            getattr(value, "jaxpr", value)
            for parameter in equation.params.values()
            for value in (parameter if isinstance(parameter, tuple) else (parameter,))
            if hasattr(getattr(value, "jaxpr", value), "eqns")
        ]
        name = equation.primitive.name
        if name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            shape = equation.invars[0].aval.shape
            depth = math.prod(shape[axis] for axis in contracted)
            total += 2 * depth * math.prod(equation.outvars[0].aval.shape)
        elif name == "scan":
            total += equation.params["length"] * sum(map(products, inner))
        elif name == "cond":
            total += max(map(products, inner))
        else:
            total += sum(map(products, inner))
    return total


def traced_products(config: SvitConfig, trainable: frozenset[str], compute: Compute) -> int:
    """The products of loss and gradient on B full rows of targets with M pictures each."""
    model = abstract_model(config)
    parameters = flat_parameters(model)
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    shapes = batch_shapes(B, T, M, config.vision.image_size)
    batch = BatchPlacement(mesh, Rules(), shapes).abstract()

    def loss(trained, frozen, batch):
        filled = with_parameters(model, {**trained, **frozen})
        return batch_sums(filled, batch, compute, T).loss

    trained = {path: shape for path, shape in parameters.items() if path in trainable}
    frozen = {path: shape for path, shape in parameters.items() if path not in trainable}
    return products(jax.make_jaxpr(jax.grad(loss))(trained, frozen, batch).jaxpr)


ALL_OF_IT = Work(tokens=B * T, pairs=B * T * T, pictures=B * M, targets=B * T)
"""What the reference attention does for such rows: it multiplies pairs that the mask then hides."""

MODES = {
    "projector": ("projector/.*",),
    "stage 2": ("projector/.*", "decoder/.*"),
    "the decoder's kernels": ("decoder/blocks/.*",),
    "a tower without its patches": ("tower/blocks/.*", "projector/.*"),
    "the end alone": ("decoder/unembedding",),
}


@pytest.mark.parametrize("patterns", MODES.values(), ids=MODES)
def test_every_product_of_the_traced_step_is_counted(patterns):
    config = model_config(kv_heads=2)
    trainable = trainable_paths(patterns, flat_parameters(abstract_model(config)))
    compute = Compute("float32", attention="xla")
    flops = step_flops(config, trainable, compute)
    assert ALL_OF_IT.times(flops.hardware) == traced_products(config, trainable, compute)


@pytest.mark.parametrize(("projector", "remat"), [(True, "full"), (True, "qkv"), (False, "none")])
def test_lora_has_no_gradients_of_the_kernels_that_it_stands_beside(projector, remat):
    config = model_config(LoraConfig(rank=4, dropout=0.0, targets=("q", "o", "down")))
    patterns = ("decoder/.*_lora/.*", "projector/.*") if projector else ("decoder/.*_lora/.*",)
    trainable = trainable_paths(patterns, flat_parameters(abstract_model(config)))
    compute = Compute("float32", remat_decoder=remat, attention="xla")
    flops = step_flops(config, trainable, compute)
    assert ALL_OF_IT.times(flops.hardware) == traced_products(config, trainable, compute)


@pytest.mark.parametrize("policy", ["full", "attention", "qkv", "dots", "offload"])
def test_remat_is_hardware_flops_and_no_model_flops(policy):
    config = model_config()
    trainable = trainable_paths((".*",), flat_parameters(abstract_model(config)))
    plain = Compute("float32", attention="xla")
    remat = dataclasses.replace(plain, remat_vision=policy, remat_decoder=policy)
    before, after = (step_flops(config, trainable, compute) for compute in (plain, remat))
    assert after.model == before.model
    assert ALL_OF_IT.times(after.hardware) == traced_products(config, trainable, remat)


def test_a_packed_rows_segments_attend_to_themselves():
    """Counted pair by pair from the mask that the model uses, the padding's pairs left out."""
    ids = np.repeat([1, 2, 3, 0], [5, 1, 7, 3])
    mask = np.asarray(packed_mask(jnp.asarray(ids)[None]))[0]
    inputs = PlanInputs("data", "tokenizer", "template", 16, 16, 3, seed=0)
    rows = np.array([[[0, 0, 5, 1], [1, 0, 1, 0], [2, 0, 7, 2]]], np.int32)
    work = rows_work(Plan(inputs, rows, {}, (1,)), range(2))
    assert work == Work(tokens=2 * 13, pairs=2 * int(mask[ids > 0].sum()), pictures=2 * 3)


def test_published_flops_of_a_decoder():
    """tpu-recipes, Mistral-7B on v6e-8 (MaxText): 432 TFLOP/s and 7,777 tokens a second a chip at a
    length of 8,192, all of it trained; MaxText counted the whole square of pairs then."""
    sizes = VICUNA_7B | {"kv_heads": 8, "mlp": 14336}
    config = SvitConfig(model_config().vision, DecoderConfig(**sizes))
    trainable = trainable_paths((".*",), flat_parameters(abstract_model(config)))
    model = step_flops(config, trainable, Compute()).model
    sequence = Work(tokens=8192, pairs=8192**2, targets=8192)
    assert sequence.times(model) / 8192 == pytest.approx(432e12 / 7777, rel=1e-3)


@pytest.mark.parametrize(
    ("image_size", "patch_size", "gflops"),
    [(336, 14, 381.92), (224, 14, 162.03), (224, 16, 123.11)],
)
def test_published_flops_of_the_tower(image_size, patch_size, gflops):
    """open_clip, docs/model_profile.csv: ViT-L-14-336, ViT-L-14, ViT-L-16, forward, with the last
    block (feature_layer -1) and the projection of one token, which is less than the tolerance."""
    sizes = CLIP_L_336 | {"image_size": image_size, "patch_size": patch_size}
    vision = dataclasses.replace(model_config().vision, **sizes, feature_layer=-1)
    config = SvitConfig(vision, model_config().decoder)
    projector = Work(pictures=1).times(step_flops(config, frozenset(), Compute()).model)
    projector -= vision.patches * 2 * (1024 * 64 + 64 * 64)
    assert projector / 1e9 == pytest.approx(gflops, rel=1e-4)


@pytest.mark.parametrize(
    ("kind", "peak"),
    [
        ("TPU v4", 275e12),
        ("TPU v5 lite", 197e12),
        ("TPU v5", 459e12),
        ("TPU v5p", 459e12),
        ("TPU v6 lite", 918e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H200", 989e12),
        ("NVIDIA H100 PCIe", None),
        ("cpu", None),
    ],
)
def test_peak_by_kind_of_device(kind, peak):
    assert peak_flops(kind) == peak
