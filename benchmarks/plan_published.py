"""`svit plan`'s estimate beside published training runs that our decoder can express.

    pip install 'svit-jax[plan]'
    nice -n 10 python benchmarks/plan_published.py --out benchmarks/results

Each row is a run of MaxText's (its source beside it): the same decoder, mesh, rows a device, the
nearest remat, and the compiler options that it names, as far as libtpu takes them (those that move
collectives to SparseCores it does not); every token with loss; our tower is shrunk to nothing and
gets no picture. Published are tokens a second a device. Nothing is fitted: all rows use the
constants of svit_jax/planning.
Rows that plan_published.json has already stay in it: name some to have them alone.
"""

import argparse
import dataclasses
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from measuring import record

RECIPES = "AI-Hypercomputer/tpu-recipes, training/trillium/"
MAXTEXT = "AI-Hypercomputer/maxtext, "
OFFLOAD = "offload: theirs offloads the out projection's result too, and recomputes attention"
# What MaxText's recipes call DENSE_VMEM_LIMIT, CF_FOR_ALL_GATHER, LAYOUT_FOR_ALL_REDUCE_SCATTER,
# DATA_PARALLEL_OVERLAP, HOST_OFFLOAD and DISABLE_COLLECTIVE_MATMUL.
VMEM = ("xla_tpu_scoped_vmem_limit_kib=98304",)
FUSION = (
    "xla_tpu_enable_async_collective_fusion=true",
    "xla_tpu_enable_async_collective_fusion_fuse_all_gather=true",
    "xla_tpu_enable_async_collective_fusion_multiple_steps=true",
    "xla_tpu_overlap_compute_collective_tc=true",
    "tpu:xla_enable_async_all_gather=true",
)
LAYOUT = (
    "xla_tpu_use_minor_sharding_for_major_trivial_input=true",
    "xla_tpu_relayout_group_size_threshold_for_reduce_scatter=1",
    "xla_tpu_assign_all_reduce_scatter_layout=true",
)
OVERLAP = (
    "xla_tpu_enable_data_parallel_all_reduce_opt=true",
    "xla_tpu_data_parallel_opt_different_sized_ops=true",
)
HOST = (
    "xla_tpu_enable_all_experimental_scheduler_features=true",
    "xla_tpu_enable_scheduler_memory_pressure_tracking=true",
    "xla_tpu_host_transfer_overlap_limit=24",
    "xla_tpu_aggressive_opt_barrier_removal=ENABLED",
    "tpu:xla_lhs_prioritize_async_depth_over_stall=ENABLED",
    "xla_tpu_enable_ag_backward_pipelining=true",
    "tpu:xla_should_allow_loop_variant_parameter_in_chain=ENABLED",
    "tpu:xla_should_add_loop_invariant_op_in_chain=ENABLED",
    "tpu:xla_max_concurrent_host_send_recv=100",
    "xla_tpu_scheduler_percent_shared_memory_limit=100",
    "tpu:xla_latency_hiding_scheduler_rerun=2",
)
RECIPE = (*VMEM, *FUSION, *LAYOUT, *OVERLAP, *HOST)
PLAIN_PRODUCTS = ("tpu:xla_jf_spmd_threshold_for_windowed_einsum_mib=1000000",)

GROUPED_7B = {"layers": 32, "embed": 4096, "heads": 32, "kv_heads": 8, "mlp": 14336, "vocab": 32000}
LLAMA_8B = {**GROUPED_7B, "vocab": 128256, "rope_theta": 500000.0}
MISTRAL_7B = {**GROUPED_7B, "rope_theta": 1000000.0}
LLAMA_7B = {**GROUPED_7B, "kv_heads": 32, "mlp": 11008}
LLAMA_70B = {**GROUPED_7B, "layers": 80, "embed": 8192, "heads": 64, "mlp": 28672}


@dataclasses.dataclass(frozen=True)
class Run:
    """A published run: `rows` a device of `length` tokens, all parameters over `fsdp`."""

    topology: str
    devices: int
    decoder: dict[str, Any]
    rows: int
    length: int
    remat: str
    tokens: float
    source: str
    assumed: str
    options: tuple[str, ...] = ()


def llama_8b(topology: str, devices: int, rows: int, tokens: float) -> Run:
    source = f"{RECIPES}Llama3.1-8B-MaxText/v6e-{devices}"
    options = (*RECIPE, *PLAIN_PRODUCTS) if devices <= 32 else RECIPE
    return Run(topology, devices, LLAMA_8B, rows, 8192, "offload", tokens, source, OFFLOAD, options)


RUNS = {
    "Llama-3.1-8B, v6e-8": llama_8b("v6e:2x4", 8, 3, 7138.9),
    "Llama-3.1-8B, v6e-16": llama_8b("v6e:4x4", 16, 3, 7243.4),
    "Llama-3.1-8B, v6e-32": llama_8b("v6e:4x8", 32, 3, 7031.7),
    "Llama-3.1-8B, v6e-64": llama_8b("v6e:8x8", 64, 5, 7247.1),
    "Llama-3.1-8B, v6e-128": llama_8b("v6e:8x16", 128, 4, 7119.6),
    "Llama-3.1-8B, v6e-256": llama_8b("v6e:16x16", 256, 4, 7207.3),
    "Mistral-7B, v6e-8": Run(
        *("v6e:2x4", 8, MISTRAL_7B, 6, 8192, "offload", 7776.8),
        *(f"{RECIPES}Mistral-7B-MaxText", OFFLOAD, (*RECIPE, *PLAIN_PRODUCTS)),
    ),
    "Llama-2-70B, v6e-256": Run(
        *("v6e:16x16", 256, LLAMA_70B, 2, 4096, "offload", 905.0),
        f"{RECIPES}Llama2-70B-MaxText",
        "2 rows, the 2,097,152 tokens of the log's step, where the listing says 3; offload: theirs "
        "(qkv_proj_offloaded) recomputes attention; their mesh splits the other axis of the "
        "weights (fsdp_transpose)",
        (*VMEM, *FUSION),
    ),
    "Llama-2-70B, v5p-512": Run(
        *("v5p:8x8x8", 512, LLAMA_70B, 4, 4096, "qkv", 692.0),
        f"{MAXTEXT}docs/reference/models/tiering.md and, at 92e59fd, "
        "benchmarks/maxtext_v5p_model_configs.py, llama2_70b_v5p_128",
        "512 chips in a cube; qkv: theirs (save_dot_except_mlpwi) recomputes attention",
    ),
    "Llama-2-7B, 8 H100": Run(
        *("h100:8", 8, LLAMA_7B, 4, 4096, "dots", 10677.0),
        f"{MAXTEXT}src/maxtext/configs/gpu/a3/llama_2_7b: 492 TFLOP/s a GPU, 46.1 GFLOP a token "
        "as MaxText counted then (attention's whole square)",
        "dots: theirs (minimal_with_context) keeps attention's result too",
    ),
}


def overrides(run: Run) -> list[str]:
    decoder = [f"model.decoder.{name}={value}" for name, value in run.decoder.items()]
    tower = ("layers=2", "embed=512", "heads=8", "mlp=512")
    return [
        *decoder,
        *(f"model.vision.{size}" for size in tower),
        "model.decoder.head_dim=128",
        f"model.compute.remat_decoder={run.remat}",
        "data.plan=packed",
        "data.pictures_per_row=0",
        f"data.row_length={run.length}",
        f"data.batch_size={run.rows * run.devices}",
        "train.loss_groups=0",
        "train.loss_chunk=2048",
        *([f"train.compiler_options={','.join(run.options)}"] if run.options else []),
    ]


def estimated(name: str) -> dict[str, Any]:
    """The plan's estimate of a run, in a process of its own: simulated GPUs want one."""
    run = RUNS[name]
    config = "configs/svit_v1_5_13b_finetune.py"
    command = [sys.executable, "-m", "svit_jax.cli", "plan", "--config", config, "--json"]
    command += ["--topology", run.topology, *(f"--{override}" for override in overrides(run))]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    plan = json.loads(done.stdout.splitlines()[-1])
    estimate = plan["estimate"]
    tokens = run.rows * run.length / estimate["seconds"]
    return {
        "published_tokens": run.tokens,
        "estimated_tokens": round(tokens, 1),
        "error_percent": round(100 * (tokens / run.tokens - 1), 1),
        "published_seconds": round(run.rows * run.length / run.tokens, 3),
        "estimated_seconds": round(estimate["seconds"], 3),
        "busy_seconds": {key: round(value, 3) for key, value in estimate["limits"].items()},
        "bound": estimate["bound"],
        "memory_gib": round(plan["memory"]["total"] / 2**30, 2),
        "topology": run.topology,
        "rows_per_device": run.rows,
        "row_length": run.length,
        "remat_decoder": run.remat,
        "compiler_options": list(run.options),
        "versions": plan["versions"],
        "source": run.source,
        "assumed": run.assumed,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="*", help=f"of {', '.join(RUNS)}; all by default")
    parser.add_argument("--out", help="folder for plan_published.json")
    given = parser.parse_args()
    file = Path(given.out or ".") / "plan_published.json"
    rows = json.loads(file.read_text())["runs"] if given.out and file.exists() else {}
    for name in given.runs or RUNS:
        rows[name] = estimated(name)
        print(name, json.dumps(rows[name], indent=1), flush=True)
        errors = [abs(row["error_percent"]) for row in rows.values()]
        result = {
            "command": "python benchmarks/plan_published.py --out benchmarks/results",
            "mean_error_percent": round(statistics.mean(errors), 1),
            "largest_error_percent": max(errors),
            "runs": {name: rows[name] for name in RUNS if name in rows},
        }
        record(result, given.out, "plan_published")


if __name__ == "__main__":
    main()
