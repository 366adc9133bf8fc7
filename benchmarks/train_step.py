"""A training step beside the same step of transformers in torch, eager and compiled.

    make parity                                       # the environment with torch
    python benchmarks/train_step.py --out benchmarks/results

One small LLaVA with the same weights, the same batch, float32, AdamW, the tower frozen, on this
machine's CPU. Cases: "equal work" gives every token a loss and torch a tower without the block
that nobody reads; "as trained" gives a quarter of the words a loss, and each side does what it does
in a real run: torch unembeds every position and runs the tower's last block, ours does neither.
What that saves grows with the vocabulary beside the decoder: "as trained, 32,000 pieces" is the
same with Vicuna's. The three steps take turns, so that whatever else the machine does falls on all
of them.
"""

import argparse
import importlib.util
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

if importlib.util.find_spec("torch") is None:
    print("train_step: left out, for torch isn't installed here; make parity installs it.")
    sys.exit()

import jax
import numpy as np
import torch
from measuring import machine, record

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "parity"))

import parity_samples as samples
import torch_reference as reference

from data_pipeline.images.statistics import IMAGE_MEAN, IMAGE_STD
from svit_jax.batch import BatchPlacement, batch_shapes
from svit_jax.models.decoder import DecoderConfig
from svit_jax.models.parameters import flat_parameters
from svit_jax.models.svit import Compute, SvitConfig, abstract_model
from svit_jax.models.vision_tower import VisionConfig
from svit_jax.sharding.mesh import MeshConfig, make_mesh
from svit_jax.sharding.rules import Rules
from svit_jax.training.optimizer import OptimConfig, make_optimizer, trainable_paths
from svit_jax.training.settings import TrainConfig
from svit_jax.training.state import plan_state
from svit_jax.training.step import compile_step

TRAINABLE = ("projector/.*", "decoder/.*")
RATE = 1e-4
WORDS, ANSWER, CHUNK, VOCAB = 192, 48, 32, 8192
OPTIONS: tuple[str, ...] = ()
Step = Callable[[], float]


def shape(feature_layer: int, layers: int, vocab: int) -> SvitConfig:
    vision = VisionConfig(
        112, 14, 256, layers, 4, 1024, IMAGE_MEAN, IMAGE_STD, feature_layer=feature_layer
    )
    decoder = DecoderConfig(
        vocab=vocab, embed=256, layers=6, heads=8, kv_heads=8, head_dim=32, mlp=704
    )
    return SvitConfig(vision, decoder)


def draw(config: SvitConfig, rows: int, equal: bool) -> list[samples.Sample]:
    rng = np.random.default_rng(0)
    drawn = [samples.random_sample(config, rng, WORDS, 1, ANSWER) for _ in range(rows)]
    if equal:
        for sample in drawn:
            sample.targets[1:] = True
    return drawn


def torch_step(model: Any, inputs: dict[str, torch.Tensor], compiled: bool) -> Step:
    """As LLaVA's trainer: the tower without gradients, AdamW over the rest."""
    model.train()
    model.model.vision_tower.requires_grad_(False)
    model.set_attn_implementation("sdpa")
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=RATE, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)
    forward = torch.compile(model) if compiled else model

    def step() -> float:
        optimizer.zero_grad()
        loss = forward(**inputs).loss
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return step


def our_step(config: SvitConfig, parameters: dict[str, np.ndarray], batch: Any) -> Step:
    mesh, rules = make_mesh(MeshConfig(), jax.devices()[:1]), Rules()
    trained = trainable_paths(TRAINABLE, flat_parameters(abstract_model(config)))
    optimizer = make_optimizer(OptimConfig(RATE, TRAINABLE, warmup_ratio=0.0), 10**6, trained)
    plan = plan_state(config, trained, optimizer, mesh, rules)
    rows, length = batch.tokens.shape
    shapes = batch_shapes(rows, length, batch.images.shape[1], config.vision.image_size)
    placement = BatchPlacement(mesh, rules, shapes)
    settings = TrainConfig(loss_chunk=CHUNK, compiler_options=OPTIONS)
    run = compile_step(plan, Compute("float32"), settings, mesh, rules, placement.abstract())
    state = plan.from_parameters(parameters)
    placed = placement.put(batch)

    def step() -> float:
        nonlocal state
        state, metrics = run(state, placed)
        return float(metrics["loss"])

    return step


def compare(equal: bool, vocab: int, rows: int, rounds: int) -> dict[str, Any]:
    config = shape(-1 if equal else -2, 6, vocab)
    drawn = draw(config, rows, equal)
    length = len(drawn[0])
    batch = samples.batch_of(config, [[sample] for sample in drawn], length, 1)
    inputs = samples.llava_inputs(config, drawn)
    inputs["labels"][inputs["labels"] == -1] = 0  # where a patch stands, ours has a pad's id
    models = [reference.random_llava(config, seed=0) for _ in range(2)]
    parameters = reference.our_parameters(models[0], config)
    steps = {
        "ours": our_step(config, parameters, batch),
        "torch": torch_step(models[0], inputs, compiled=False),
        "torch.compile": torch_step(models[1], inputs, compiled=True),
    }
    losses = {name: [step(), step()] for name, step in steps.items()}  # compiles, too
    for name, found in losses.items():
        np.testing.assert_allclose(found, losses["torch"], rtol=1e-4, err_msg=name)
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(found) for name, found in seconds.items()}
    return {
        "rows": rows,
        "tokens_per_row": length,
        "losses_of_two_steps": {
            name: [round(x, 5) for x in found] for name, found in losses.items()
        },
        "seconds_per_step": {name: round(s, 4) for name, s in medians.items()},
        "fastest": {name: round(min(found), 4) for name, found in seconds.items()},
        "speed_to_torch": round(medians["torch"] / medians["ours"], 3),
        "speed_to_torch_compile": round(medians["torch.compile"] / medians["ours"], 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--out", help="folder for train_step.json")
    options = parser.parse_args()
    cases = {
        "equal work": (True, VOCAB),
        "as trained": (False, VOCAB),
        "as trained, 32,000 pieces": (False, 32_000),
    }
    result = {
        "machine": machine(),
        "versions": {"jax": jax.__version__, "torch": torch.__version__},
        "threads": torch.get_num_threads(),
    }
    for case, (equal, vocab) in cases.items():
        result[case] = found = compare(equal, vocab, options.rows, options.rounds)
        print(case, found["seconds_per_step"], found["speed_to_torch_compile"], flush=True)
    record(result, options.out, "train_step")


if __name__ == "__main__":
    main()
