"""Packed rows against the padded plan and against padding to the longest, on the stated lengths of
mixture_lengths.py: how full rows are, and useful tokens for the work done, tower included.

    python benchmarks/packing.py
    nice python benchmarks/packing.py --measure --out benchmarks/results

Useful are a dialogue's tokens, its picture's among them. The work is counted, not timed: a stage 2
step of the 7B (or 13B) with the tower frozen. A decoder token costs 6 FLOPs a parameter (there
and back) and 12 D a layer for each token it looks at: half the row or, with a kernel that skips
what is not of its own dialogue, half the dialogue. A picture slot, filled or not, costs the tower's
forward pass. Unembedding costs the same in every plan (targets alone) and is left out.

Planning is timed on 2% of the dialogues, with made-up texts of their lengths in a manifest.

--measure also takes the core-seconds of steps on this machine's CPU: lengths and widths a quarter
(--scale) and depths an eighth of the 7B's, so that the parts of the work keep their proportions;
attention looks at whole rows, at what is not ahead.
"""

import argparse
import dataclasses
import itertools
import json
import math
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from measuring import machine, record
from mixture_lengths import CUT, PICTURE, SOURCES, Lengths, mixture_lengths

from data_pipeline.common.dialogue import Dialogue, Turn
from data_pipeline.loading.grouping import bucket_lengths, make_padded_plan
from data_pipeline.loading.packing import make_packed_plan
from data_pipeline.loading.plan import build_plan, plan_inputs
from data_pipeline.loading.source import PictureRecord
from data_pipeline.records.manifest import (
    ManifestEntry,
    ManifestHeader,
    entry_line,
    write_manifest,
)
from data_pipeline.records.source import Entries
from data_pipeline.text.templates import V1
from data_pipeline.text.tokenizer import Tokenizer, train_tokenizer
from svit_jax.models.presets import CLIP_L_336, VICUNA_7B, VICUNA_13B

GRID = (
    *((2048, 2), (2048, 3), (4096, 4), (4096, 5), (4096, 6)),
    *((8192, 8), (8192, 9), (8192, 10), (8192, 11), (8192, 12)),
)
DEFAULT = (2048, 3)
"""For attention to whole rows: 64 rows hold 129 dialogues, and up to 64 devices divide them."""

BATCH, DEVICES = 128, 8
GOALS = {"padded": 1.4, "longest": 2.0}

Rows = list[tuple[int, int, int]]
"""(rows, token places, picture slots) of each shape of a plan."""


def decoder_flops(model: dict[str, Any], places: float, looked_at: float) -> float:
    """Of `places` tokens whose queries and keys meet `looked_at` times."""
    D, F, L = model["embed"], model["mlp"], model["layers"]
    return L * (6 * places * (4 * D * D + 3 * D * F) + 12 * D * looked_at)


def tower_flops(slots: float) -> float:
    D, F, tokens = CLIP_L_336["embed"], CLIP_L_336["mlp"], 577
    blocks = CLIP_L_336["layers"] - 1
    return slots * blocks * (2 * tokens * (4 * D * D + 2 * D * F) + 4 * tokens**2 * D)


def work(model: dict[str, Any], rows: Rows, tokens: np.ndarray, skips: bool) -> float:
    """FLOPs of an epoch. `skips`: attention within dialogues alone."""
    places = sum(n * T for n, T, _ in rows)
    looked = (tokens.astype(float) ** 2).sum() if skips else sum(n * T * T for n, T, _ in rows)
    slots = sum(n * M for n, _, M in rows)
    return decoder_flops(model, places, looked / 2) + tower_flops(slots)


def packed(lengths: Lengths, T: int, M: int) -> tuple[Rows, dict[str, Any]]:
    start = time.process_time()
    rows = make_packed_plan(lengths.sizes(), T, M, 0)
    seconds = time.process_time() - start
    used = rows[..., 0] >= 0
    a_row = used.sum() / len(rows)
    batch = max(1, round(BATCH / a_row))
    return [(len(rows), T, M)], {
        "row_length": T,
        "pictures_per_row": M,
        "rows": len(rows),
        "fill": round(float(rows[..., 2].sum(where=used) / (len(rows) * T)), 4),
        "picture_occupancy": round(float(rows[..., 3].sum(where=used) / (len(rows) * M)), 4),
        "dialogues_a_row": round(float(a_row), 2),
        "batch_size_for_128": batch,
        "dialogues_a_step": round(float(batch * a_row), 1),
        "packing_core_seconds": round(seconds, 1),
    }


def padded(lengths: Lengths) -> Rows:
    rows = make_padded_plan(lengths.sizes(), CUT, 1, 0, BATCH, DEVICES)
    longest = rows[:, 0, 2].reshape(-1, BATCH).max(1)
    buckets = np.array(bucket_lengths(CUT))
    found, batches = np.unique(buckets[np.searchsorted(buckets, longest)], return_counts=True)
    return [(int(n) * BATCH, int(T), 1) for T, n in zip(found, batches, strict=True)]


def compare(lengths: Lengths) -> dict[str, Any]:
    tokens = np.minimum(lengths.tokens, CUT)
    others = {"padded": padded(lengths), "longest": [(len(tokens), CUT, 1)]}
    models = {"7b": VICUNA_7B, "13b": VICUNA_13B}
    plans = []
    for T, M in GRID:
        rows, found = packed(lengths, T, M)
        for name, model in models.items():
            for skips in (False, True):
                attention = "own dialogue" if skips else "whole row"
                mine = work(model, rows, tokens, skips)
                found[f"{name}, attention to the {attention}"] = {
                    f"times_{other}": round(work(model, theirs, tokens, skips) / mine, 3)
                    for other, theirs in others.items()
                }
        plans.append(found)
        print(json.dumps(found), flush=True)
    return {
        "dialogues": len(tokens),
        "useful_tokens": int(tokens.sum()),
        "padded_rows_by_length": {T: n for n, T, _ in others["padded"]},
        "padded_fill": round(tokens.sum() / sum(n * T for n, T, _ in others["padded"]), 4),
        "longest_fill": round(tokens.sum() / (len(tokens) * CUT), 4),
        "packed": plans,
    }


PLACES = 2048
"""Token places of a timed step, whatever its rows."""


def seconds_a_place(T: int, M: int, scale: int, repeats: int = 5) -> float:
    """Core-seconds of a step of the small model in rows of T / scale: the least of several. Cores
    that others use too would make seconds by the clock say little."""
    import jax

    from data_pipeline.loading.batch import Batch
    from svit_jax.batch import batch_shapes
    from svit_jax.config import default_config, run_config
    from svit_jax.sharding.mesh import make_mesh
    from svit_jax.training.program import compile_run
    from svit_jax.training.start import initial_state

    config = default_config("7b")
    image, heads = 336 // math.isqrt(scale), 32 // scale
    config.model.vision.update(
        image_size=image,
        patch_size=14,
        embed=1024 // scale,
        layers=4,
        heads=16 // scale,
        mlp=4096 // scale,
    )
    config.model.decoder.update(
        vocab=512,
        embed=4096 // scale,
        layers=4,
        heads=heads,
        kv_heads=heads,
        head_dim=128,
        mlp=11008 // scale,
    )
    config.model.compute.dtype = "float32"
    length = T // scale
    rows = max(1, PLACES // length)
    config.data.update(
        train="none", tokenizer="none", batch_size=rows, row_length=length, pictures_per_row=M
    )
    config.optim.trainable = ("projector/.*", "decoder/.*")
    run = run_config(config)
    plan, placement, step = compile_run(run, 10, make_mesh(run.mesh))
    shapes = batch_shapes(rows, length, M, image)
    arrays = {name: np.zeros(shape.shape, shape.dtype) for name, shape in shapes.items()}
    arrays["segment_ids"] += 1
    arrays["loss_weights"][:, 1::8] = 1
    batch = placement.put(Batch(**arrays))
    state = initial_state(run, plan)
    taken = []
    for _ in range(repeats + 1):
        start = time.process_time()
        state, _ = step(state, batch)
        jax.block_until_ready(state)
        taken.append(time.process_time() - start)
    return min(taken[1:]) / (rows * length)


def timed(lengths: Lengths, scale: int) -> dict[str, Any]:
    """How many core-seconds of an epoch on the small model packed rows save, in times."""
    per_place: dict[tuple[int, int], float] = {}

    def epoch(rows: Rows) -> float:
        for _, T, M in rows:
            if (T, M) not in per_place:
                per_place[T, M] = seconds_a_place(T, M, scale)
                print(f"T={T} M={M}: {1e6 * per_place[T, M]:.1f} core-us a place", flush=True)
        return sum(n * T * per_place[T, M] for n, T, M in rows)

    others = {"padded": epoch(padded(lengths)), "longest": epoch([(len(lengths.tokens), CUT, 1)])}
    found = {}
    for T, M in ((2048, 3), (4096, 5), (4096, 6), (8192, 10)):
        mine = epoch(packed(lengths, T, M)[0])
        found[f"T={T} M={M}"] = {
            f"times_{other}": round(theirs / mine, 3) for other, theirs in others.items()
        }
    microseconds = {f"T={T} M={M}": round(1e6 * s, 1) for (T, M), s in per_place.items()}
    return {"scale": scale, "core_microseconds_a_place": microseconds, "packed": found}


@dataclasses.dataclass(frozen=True)
class Texts:
    """Dialogues in a manifest on the disk, as planning reads them; there are no pictures."""

    entries: Entries
    fingerprint: str = "texts"

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> PictureRecord:
        raise IndexError(index)


def write_texts(lengths: Lengths, folder: str) -> Texts:
    """Each dialogue in as many rounds as its source has in the mean, of made-up words whose
    frequencies fall as those of a language do."""
    rng = np.random.default_rng(0)
    letters = rng.integers(97, 123, (40_000, 8)).astype(np.uint8)
    words = [bytes(w[: 2 + n % 7]).decode() for n, w in enumerate(letters)]
    header = ManifestHeader(
        "texts", "train", "texts", "", len(lengths.tokens), len(lengths.tokens), 0, 0, None, ()
    )

    def lines() -> Iterator[str]:
        for number, count in enumerate(lengths.words):
            rounds = round(SOURCES[lengths.source[number]].rounds)
            picked = np.minimum(rng.zipf(1.2, abs(int(count))) - 1, len(words) - 1)
            said = np.array_split([words[n] for n in picked], 2 * rounds)
            texts = [" ".join(part) for part in said]
            texts[0] = "<image>\n" * int(count > 0) + texts[0]
            turns = tuple(Turn("gpt" if n % 2 else "human", t) for n, t in enumerate(texts))
            image = f"{number}.jpg" if count > 0 else ""
            yield entry_line(ManifestEntry(image, (), (Dialogue(str(number), turns),)), b"")

    write_manifest(folder, header, lines())
    return Texts(Entries(folder, header))


def planned(share: float, model: str | None) -> dict[str, Any]:
    """Core-seconds of all of planning, from the manifest to the saved rows, on a share of the
    mixture."""
    lengths = mixture_lengths(share)
    with tempfile.TemporaryDirectory() as folder:
        source = write_texts(lengths, folder)
        texts = (
            t.text for e in itertools.islice(source.entries, 500) for t in e.dialogues[0].turns
        )
        tokenizer = Tokenizer(model) if model else train_tokenizer(texts, f"{folder}/t.model", 2000)
        inputs = plan_inputs(
            source,
            tokenizer,
            V1,
            patches=PICTURE,
            row_length=DEFAULT[0],
            pictures_per_row=DEFAULT[1],
            seed=0,
            dialogue_length=CUT,
        )
        start = time.process_time()
        plan = build_plan(source, tokenizer, V1, inputs).save(folder)
        seconds = time.process_time() - start
    dialogues = plan.statistics().dialogues
    return {
        "tokenizer": "as given" if model else "2000 pieces of the same texts",
        "dialogues": dialogues,
        "core_seconds": round(seconds, 2),
        "core_seconds_of_665298_at_this_rate": round(seconds / dialogues * 665_298, 1),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--measure", action="store_true", help="also measure steps on this CPU")
    parser.add_argument("--scale", type=int, choices=(4, 16), default=4)
    parser.add_argument("--tokenizer", help="plan with this tokenizer.model, Llama's for example")
    parser.add_argument("--out", help="write the result as JSON into this folder")
    options = parser.parse_args()
    lengths = mixture_lengths()
    planning = planned(0.02, options.tokenizer)
    print(json.dumps(planning), flush=True)
    result = {"planning": planning, **compare(lengths)}
    if options.measure:
        result["measured_on_this_cpu"] = timed(lengths, options.scale)
    result |= {
        **machine(),
        "command": "python benchmarks/packing.py"
        + " --measure" * options.measure
        + " --tokenizer tokenizer.model" * bool(options.tokenizer),
    }
    record(result, options.out, "packing")
    default = next(
        p for p in result["packed"] if (p["row_length"], p["pictures_per_row"]) == DEFAULT
    )
    print(json.dumps({key: result[key] for key in result if key != "packed"}))
    found = default["7b, attention to the whole row"]
    missed = [other for other, goal in GOALS.items() if found[f"times_{other}"] < goal]
    if missed:
        print(f"not as hoped for: {found} at T, M = {DEFAULT}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
