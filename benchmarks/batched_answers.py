"""Answers a second, in batches and one at a time, by the same engine with the same answers.

    nice -n 10 python benchmarks/batched_answers.py --out benchmarks/results

Random weights, greedy, float32, no token that ends an answer early: of the demo's size, and of a
decoder that is large enough for its weights not to stay in the processor's cache, as those of a
real model don't. Both engines run in one process, in turn; the ratio is that of the medians.
Programs are compiled and every answer is compared before anything is timed.
"""

import argparse
import dataclasses
import json
import os
import statistics
import time
from typing import Any

import numpy as np
from measuring import machine, record

ROWS, REPEATS = 16, 3
PROMPTS = 32
LONG, SHORT = 64, 3
WIDE = {"embed": 512, "layers": 4, "heads": 8, "kv_heads": 8, "head_dim": 64, "mlp": 1376}
VOCABULARY = 8192


def configs() -> dict[str, Any]:
    from svit_jax.config import default_config, model_config

    toy = model_config(default_config("toy").model.to_dict())
    wide = dataclasses.replace(toy.decoder, vocab=VOCABULARY, **WIDE)
    return {"demo": toy, "wide": dataclasses.replace(toy, decoder=wide)}


def make_prompts(config: Any) -> list[Any]:
    """Questions of 20 to 50 tokens about a picture each."""
    from svit_jax.inference.engine import Prompt

    rng, vision = np.random.default_rng(0), config.vision
    prompts = []
    for length in rng.integers(20, 51, PROMPTS):
        index = np.full(length, -1, np.int32)
        index[2 : 2 + vision.patches] = np.arange(vision.patches)
        tokens = rng.integers(3, config.decoder.vocab, length).astype(np.int32)
        shape = (1, vision.image_size, vision.image_size, 3)
        prompts.append(Prompt(tokens, index, rng.integers(0, 256, shape).astype(np.uint8)))
    return prompts


def compare(config: Any) -> dict[str, Any]:
    """Seconds for all prompts, batched and one at a time, for long and for short answers."""
    import jax

    from svit_jax.inference.engine import Engine
    from svit_jax.models.parameters import flat_parameters
    from svit_jax.models.svit import Compute, initial_model
    from svit_jax.sharding.mesh import MeshConfig, make_mesh
    from svit_jax.sharding.rules import Rules

    parameters = flat_parameters(jax.jit(lambda: initial_model(config, 0))())
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    engines = {
        rows: Engine(config, parameters, Compute("float32"), mesh, Rules(), -1, rows)
        for rows in (ROWS, 1)
    }
    prompts = make_prompts(config)
    found: dict[str, Any] = {}
    for name, tokens in (("long", LONG), ("short", SHORT)):
        answers = [
            [answer.tokens for answer in engine.generate(prompts, tokens)]
            for engine in engines.values()
        ]
        seconds: dict[int, list[float]] = {rows: [] for rows in engines}
        for _ in range(REPEATS):
            for rows, engine in engines.items():
                start = time.perf_counter()
                for _ in engine.generate(prompts, tokens):
                    pass
                seconds[rows].append(round(time.perf_counter() - start, 4))
        batched, single = (statistics.median(seconds[rows]) for rows in engines)
        found[name] = {
            "new_tokens": tokens,
            "equal_answers": sum(a == b for a, b in zip(*answers, strict=True)),
            "answers": len(prompts),
            f"seconds_in_batches_of_{ROWS}": seconds[ROWS],
            "seconds_one_at_a_time": seconds[1],
            "ratio": round(single / batched, 2),
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", help="folder for batched_answers.json")
    given = parser.parse_args()
    os.environ["JAX_PLATFORMS"] = "cpu"
    result = {name: compare(config) for name, config in configs().items()}
    result["machine"] = machine()
    print(json.dumps(result, indent=1))
    record(result, given.out, "batched_answers")


if __name__ == "__main__":
    main()
