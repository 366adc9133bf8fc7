"""Decoding beside transformers' `generate`: the same small LLaVA, float32, equal tokens.

    make parity                                       # the environment with torch
    python benchmarks/decode.py --out benchmarks/results

Two sizes: the demo's model, where a step is mostly what each side adds to its products, and one of
34 million parameters, where it is mostly the products themselves. Prompts with a picture each,
greedy, 64 new tokens, one prompt and eight together. Both sides do all of it: tower, prefill,
decoding with a cache. They take turns, and the ratio is that of the medians. "by XLA alone" is ours
without `models/decode_cpu.c`, "int8" with weights in int8. "limit" is the time of a decoding step
if all it did was read the weights once, at the speed at which this machine adds up an array of
their size.
"""

import argparse
import functools
import importlib.util
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

if importlib.util.find_spec("torch") is None:
    print("decode: left out, for torch isn't installed here; make parity installs it.")
    sys.exit()

import jax
import jax.numpy as jnp
import numpy as np
from measuring import machine, record

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "parity"))

import parity_samples as samples
import torch_reference as reference

from data_pipeline.images.statistics import IMAGE_MEAN, IMAGE_STD
from svit_jax.config import default_config, model_config
from svit_jax.inference.engine import Engine
from svit_jax.models import decode_cpu
from svit_jax.models.decoder import DecoderConfig
from svit_jax.models.int8 import in_int8
from svit_jax.models.svit import Compute, SvitConfig
from svit_jax.models.vision_tower import VisionConfig
from svit_jax.sharding.mesh import MeshConfig, make_mesh
from svit_jax.sharding.rules import Rules

BATCHES, NEW, WORDS, ROUNDS = (1, 8), 64, 40, 5
VISION = VisionConfig(112, 14, 128, 4, 4, 512, IMAGE_MEAN, IMAGE_STD)
DECODER = DecoderConfig(vocab=8192, embed=512, layers=8, heads=8, kv_heads=8, head_dim=64, mlp=1376)
CONFIGS = {
    "demo": model_config(default_config("toy").model.to_dict()),
    "34M": SvitConfig(VISION, DECODER),
}


def torch_answers(
    config: SvitConfig, model: Any, drawn: list[samples.Sample], new: int
) -> list[list[int]]:
    inputs = samples.llava_inputs(config, drawn, padding="left")
    inputs.pop("labels")
    found = model.generate(
        **inputs, do_sample=False, max_new_tokens=new, eos_token_id=None, pad_token_id=0
    )
    return found[:, inputs["input_ids"].shape[1] :].tolist()


def our_answers(engine: Engine, drawn: list[samples.Sample], new: int) -> list[list[int]]:
    prompts = [samples.prompt_of(engine.config, sample) for sample in drawn]
    return [answer.tokens for answer in engine.generate(prompts, new)]


def timed(runs: dict[str, Callable[[], Any]]) -> dict[str, list[float]]:
    """Seconds of each, in turn; compiled before."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(ROUNDS):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            seconds[name].append(round(time.perf_counter() - start, 4))
    return seconds


def reading_seconds(size: int) -> float:
    """The least time in which this machine reads so many bytes, of three."""
    array = jnp.ones(size // 4, jnp.float32)
    total = jax.jit(jnp.sum)
    total(array).block_until_ready()
    times = []
    for _ in range(3):
        start = time.perf_counter()
        total(array).block_until_ready()
        times.append(time.perf_counter() - start)
    return min(times)


def compare(
    config: SvitConfig, rows: int, model: Any, parameters: dict[str, Any]
) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    drawn = [samples.random_sample(config, rng, WORDS, 1) for _ in range(rows)]
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])

    def made(parameters: dict[str, Any]) -> Engine:
        engine = Engine(config, parameters, Compute("float32"), mesh, Rules(), -1, rows)
        our_answers(engine, drawn, 1)
        our_answers(engine, drawn, NEW)
        return engine

    engines = {"ours": made(parameters), "int8": made(in_int8(parameters))}
    with mock.patch.object(decode_cpu, "compiled", lambda: False):
        engines["by XLA alone"] = made(parameters)
    runs: dict[str, Callable[[], Any]] = {}
    for new, suffix in ((NEW, ""), (1, ", first token")):
        for name, engine in engines.items():
            runs[name + suffix] = functools.partial(our_answers, engine, drawn, new)
        runs["transformers" + suffix] = functools.partial(torch_answers, config, model, drawn, new)
    expected, found = runs["transformers"](), runs["ours"]()
    seconds = timed(runs)
    medians = {name: statistics.median(times) for name, times in seconds.items()}

    def step(name: str) -> float:
        return (medians[name] - medians[f"{name}, first token"]) / (NEW - 1)

    weights = sum(x.nbytes for path, x in parameters.items() if path.startswith("decoder/"))
    weights -= parameters["decoder/embedding"].nbytes
    limit = reading_seconds(weights)
    return {
        "new_tokens": NEW,
        "equal_answers": sum(a == b for a, b in zip(expected, found, strict=True)),
        "seconds": seconds,
        "ratio": round(medians["transformers"] / medians["ours"], 2),
        "tokens_per_second": round(rows * NEW / medians["ours"], 1),
        "milliseconds_a_step": {
            name: round(1000 * step(name), 2) for name in (*engines, "transformers")
        },
        "limit_milliseconds": round(1000 * limit, 2),
        "share_of_limit": round(limit / step("ours"), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", help="folder for decode.json")
    given = parser.parse_args()
    result: dict[str, Any] = {"machine": machine()}
    for name, config in CONFIGS.items():
        model = reference.random_llava(config, seed=0)
        ours = reference.our_parameters(model, config)
        parameters = {path: jnp.asarray(value) for path, value in ours.items()}
        result[name] = {
            f"batch {rows}": compare(config, rows, model, parameters) for rows in BATCHES
        }
    print(json.dumps(result, indent=1))
    record(result, given.out, "decode")


if __name__ == "__main__":
    main()
