"""Sixteen clients at once: continuous batching beside one request after the other.

    nice -n 10 python benchmarks/continuous.py --out benchmarks/results

Each client asks a few questions, the next when the last is answered; answers have 8 to 64 tokens.
The same model with random weights, greedy, float32, serves them by one row (a request after the
other, as they come) and by sixteen. Time to the first token counts from asking. Programs are
compiled before; the answers are compared.
"""

import argparse
import itertools
import json
import os
import statistics
import threading
import time
from typing import Any

import numpy as np
from batched_answers import configs, make_prompts
from measuring import machine, record

CLIENTS, QUESTIONS, REPEATS = 16, 3, 3


class Client:
    """Asks its questions in turn; notes when each first token came, and the answers."""

    def __init__(self, engine: Any, name: str, asked: list[tuple[Any, int]]):
        self._engine, self._name, self._asked = engine, name, list(asked)
        self.answers: list[list[int]] = []
        self.waits: list[float] = []
        self.done = threading.Event()

    def ask(self) -> None:
        from svit_jax.inference.sampler import GREEDY

        prompt, limit = self._asked.pop(0)
        self._start, self._answer = time.perf_counter(), []
        self._engine.submit(prompt, limit, GREEDY, self._take, self._name)

    def _take(self, tokens: list[Any], last: bool) -> None:
        if tokens and not self._answer:
            self.waits.append(time.perf_counter() - self._start)
        self._answer += [token.id for token in tokens]
        if last:
            self.answers.append(self._answer)
            if self._asked:
                self.ask()
            else:
                self.done.set()


def serve(engine: Any, asked: list[list[tuple[Any, int]]]) -> tuple[float, list[float], Any]:
    """Seconds for all, waits for first tokens, and the answers."""
    clients = [Client(engine, str(n), questions) for n, questions in enumerate(asked)]
    start = time.perf_counter()
    for client in clients:
        client.ask()
    for client in clients:
        client.done.wait()
    seconds = time.perf_counter() - start
    return seconds, [w for c in clients for w in c.waits], [c.answers for c in clients]


def compare(config: Any) -> dict[str, Any]:
    import jax

    from svit_jax.inference.continuous import ContinuousEngine
    from svit_jax.inference.engine import Engine
    from svit_jax.models.parameters import flat_parameters
    from svit_jax.models.svit import Compute, initial_model
    from svit_jax.sharding.mesh import MeshConfig, make_mesh
    from svit_jax.sharding.rules import Rules

    rng = np.random.default_rng(1)
    prompts = make_prompts(config)
    asked = [
        [(prompts[rng.integers(len(prompts))], int(rng.integers(8, 65))) for _ in range(QUESTIONS)]
        for _ in range(CLIENTS)
    ]
    parameters = flat_parameters(jax.jit(lambda: initial_model(config, 0))())
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    base = Engine(config, parameters, Compute("float32"), mesh, Rules(), -1, max_length=128)
    engines = {
        rows: ContinuousEngine(base, rows, picture_bytes=0, max_waiting=64) for rows in (CLIENTS, 1)
    }
    answers = {rows: serve(engine, asked)[2] for rows, engine in engines.items()}
    pairs = zip(*(itertools.chain(*answers[rows]) for rows in engines), strict=True)
    found: dict[int, list[tuple[float, list[float]]]] = {rows: [] for rows in engines}
    for _ in range(REPEATS):
        for rows, engine in engines.items():
            found[rows].append(serve(engine, asked)[:2])
    tokens = sum(limit for questions in asked for _, limit in questions)

    def figures(rows: int) -> dict[str, Any]:
        waits = [wait for _, waits in found[rows] for wait in waits]
        return {
            "tokens_per_second": round(tokens / statistics.median(s for s, _ in found[rows]), 1),
            "seconds": [round(seconds, 3) for seconds, _ in found[rows]],
            "first_token_p50": round(float(np.percentile(waits, 50)), 3),
            "first_token_p95": round(float(np.percentile(waits, 95)), 3),
        }

    many, one = figures(CLIENTS), figures(1)
    return {
        "requests": CLIENTS * QUESTIONS,
        "equal_answers": sum(a == b for a, b in pairs),
        "continuous": many,
        "one_by_one": one,
        "times_throughput": round(many["tokens_per_second"] / one["tokens_per_second"], 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", help="folder for continuous.json")
    given = parser.parse_args()
    os.environ["JAX_PLATFORMS"] = "cpu"
    result: dict[str, Any] = {
        "clients": CLIENTS,
        **{name: compare(config) for name, config in configs().items()},
        "machine": machine(),
    }
    print(json.dumps(result, indent=1))
    record(result, given.out, "continuous")


if __name__ == "__main__":
    main()
