"""The real training step, compiled for TPUs ahead of time: needs libtpu, and no TPU."""

import importlib.util
import re
from collections import Counter

import pytest
from jax.experimental import topologies

from svit_jax.config import load_config, run_config
from svit_jax.sharding.mesh import MeshConfig, make_mesh
from svit_jax.training.program import compile_run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("libtpu") is None,
        reason="libtpu is not installed: pip install 'svit-jax[plan]'",
    ),
]

# Depth and widths are small; heads (64 in the tower, 128 in the decoder), a picture's 577 tokens,
# rows of 2048 tokens, remat and the frozen tower are the real ones.
REDUCED = (
    "data.train=a",
    "data.tokenizer=b",
    "data.batch_size=4",
    "data.plan=packed",
    "data.pictures_per_row=4",
    "train.loss_groups=4",
    "train.accumulate=2",
    "model.compute.remat_decoder=attention",
    "model.vision.layers=3",
    "model.decoder.layers=2",
    "model.decoder.embed=512",
    "model.decoder.heads=4",
    "model.decoder.kv_heads=4",
    "model.decoder.mlp=1024",
    "model.decoder.vocab=1024",
)


def compiled_for(mesh_config, configs, *overrides):
    topology = topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x4")
    mesh = make_mesh(mesh_config, topology.devices)
    spec = f"{configs}/svit_v1_5_7b_finetune.py"
    config = run_config(load_config(spec, (*REDUCED, *overrides)))
    assert config.compute.attention == "auto"
    return compile_run(config, 10, mesh)[2]


def test_splash_attention_in_the_step(configs, monkeypatch):
    monkeypatch.setenv("TPU_SKIP_MDS_QUERY", "1")
    step = compiled_for(MeshConfig(fsdp=2, tensor=2, sequence=2), configs)
    kernels = Counter(re.findall(r"%splash_mha_(\w+)[.\d]* = .*custom-call\(", step.as_text()))
    # The tower is frozen and runs forward alone. The decoder keeps what attention made, so its
    # forward kernel is not run again for the backward pass.
    assert kernels == {
        "fwd_segmented_no_residuals": 1,
        "fwd_segmented_residuals": 1,
        "dkv_segmented_no_residuals": 1,
        "dq_segmented_no_residuals": 1,
    }
    assert step.memory_analysis().temp_size_in_bytes > 0


def test_what_is_offloaded_lies_in_the_hosts_memory(configs, monkeypatch):
    monkeypatch.setenv("TPU_SKIP_MDS_QUERY", "1")
    small = "data.batch_size=8", "data.pictures_per_row=0", "train.accumulate=1"
    step = compiled_for(MeshConfig(), configs, *small, "model.compute.remat_decoder=offload")
    array = 2048 * 512 * 2  # of a device's row of tokens, in bfloat16
    sums = 2048 * 4 * 4  # the kernel's own, over keys, for each query and head, in float32
    # Of two layers: the input, queries, keys, values, attention's result.
    assert step.memory_analysis().host_temp_size_in_bytes == 2 * (5 * array + sums)
