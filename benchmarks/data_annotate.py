"""Time and memory of `svit data annotate` on files of Visual Genome's full size.

    python benchmarks/data_annotate.py --share 0.01
    nice -n 10 python benchmarks/data_annotate.py --folder /big/disk --out benchmarks/results

Writes made-up annotations with the official files' keys and counts (108,077 pictures, 3,802,374
objects, 5,406,592 regions, 257,633 captions; attributes and relationships too), then reads them
once in the same order, once with every file in an order of its own, and once with duplicates
merged; compares the scenes of the first two. Needs 6 GB of disk.
"""

import argparse
import hashlib
import itertools
import json
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from measuring import machine, record, svit

LIMIT_GIB = 4.0
PICTURES, OBJECTS, REGIONS = 108_077, 3_802_374, 5_406_592
CAPTIONED, CAPTIONS = 51_527, 257_633
ATTRIBUTES, RELATIONS = 26, 21  # a picture, as Visual Genome's authors give them

VOCABULARY = (
    "man woman street tree building window shirt sign car wall sky grass ground table water hair "
    "leg hand light door plate dog cat horse boat plane bus train clock chair floor fence small "
    "large green white black wooden metal striped standing walking holding wearing parked"
)
WORDS = VOCABULARY.split()

Row = dict[str, Any]


def shares(total: int, parts: int) -> Iterator[int]:
    """`total` split over `parts` as evenly as whole numbers allow."""
    return (total * (k + 1) // parts - total * k // parts for k in range(parts))


class World:
    """Rows of each file for picture k; the same whatever order they are asked for in."""

    def __init__(self, pictures: int, share: float):
        self.pictures = pictures
        self.captioned = round(CAPTIONED * share)
        self.captions = round(CAPTIONS * share)
        self._objects = [0, *itertools.accumulate(shares(round(OBJECTS * share), pictures))]
        self._regions = [0, *itertools.accumulate(shares(round(REGIONS * share), pictures))]

    def image_data(self, k: int) -> Row:
        return {
            "width": 800,
            "url": f"https://made.invalid/VG_100K/{k}.jpg",
            "height": 600,
            "image_id": k,
            "coco_id": 100_000 + k if k < self.captioned else None,
            "flickr_id": None,
        }

    def objects(self, k: int) -> Row:
        return {"image_id": k, "objects": self._things(k)}

    def attributes(self, k: int) -> Row:
        rng = random.Random(f"attributes {k}")
        things = [t | {"attributes": [rng.choice(WORDS)]} for t in self._things(k)[:ATTRIBUTES]]
        return {"image_id": k, "attributes": things}

    def relationships(self, k: int) -> Row:
        rng = random.Random(f"relations {k}")
        things = [{"name": t.pop("names")[0], **t} for t in self._things(k)]
        rows = [
            {
                "predicate": "ON",
                "object": rng.choice(things),
                "relationship_id": k * 100 + number,
                "synsets": ["along.r.01"],
                "subject": rng.choice(things),
            }
            for number in range(RELATIONS)
        ]
        return {"relationships": rows, "image_id": k}

    def region_descriptions(self, k: int) -> Row:
        rng = random.Random(f"regions {k}")
        rows = []
        for number in range(self._regions[k], self._regions[k + 1]):
            x, y, w, h = rng.choices(range(1, 400), k=4)
            phrase = " ".join(rng.choices(WORDS, k=5))
            row = {"region_id": number, "width": w, "height": h, "image_id": k}
            rows.append(row | {"phrase": phrase, "y": y // 2, "x": x})
        return {"regions": rows, "id": k}

    def coco(self) -> Iterator[Row]:
        rng = random.Random("captions")
        ids = (k for k, n in enumerate(shares(self.captions, self.captioned)) for _ in range(n))
        for number, k in enumerate(ids):
            text = "A " + " ".join(rng.choices(WORDS, k=9)) + "."
            yield {"image_id": 100_000 + k, "id": number, "caption": text}

    def _things(self, k: int) -> list[Row]:
        rng = random.Random(f"objects {k}")
        rows = []
        for object_id in range(self._objects[k], self._objects[k + 1]):
            x, y, w, h = rng.choices(range(1, 400), k=4)
            row = {"synsets": ["thing.n.01"], "h": h, "object_id": object_id}
            rows.append(row | {"names": [rng.choice(WORDS)], "w": w, "y": y // 2, "x": x})
        return rows


NAMES = ("image_data", "objects", "region_descriptions", "attributes", "relationships")


def write_list(path: Path, rows: Iterable[Row], head: str = "[", tail: str = "]") -> None:
    with path.open("w") as file:
        file.write(head)
        for number, row in enumerate(rows):
            file.write((", " if number else "") + json.dumps(row))
        file.write(tail)


def write_files(folder: Path, world: World, shuffled: bool) -> int:
    """Writes the five files and returns their bytes."""
    folder.mkdir()
    for name in NAMES:
        order = list(range(world.pictures))
        if shuffled:
            random.Random(name).shuffle(order)
        write_list(folder / f"{name}.json", map(getattr(world, name), order))
    return sum(path.stat().st_size for path in folder.iterdir())


def annotated(*arguments: str) -> dict[str, Any]:
    """What `svit data annotate` took and counted."""
    took, answer = svit("data", "annotate", *arguments)
    return {**took, **{key: value for key, value in answer.items() if isinstance(value, int)}}


def scenes_digest(path: Path) -> str:
    """A hash of the scenes that does not depend on their order."""
    total = 0
    with path.open("rb") as file:
        for line in file:
            total += int.from_bytes(hashlib.sha256(line).digest()[:16], "big")
    return f"{total % 2**128:032x}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--share", type=float, default=0.01, help="1 is the full size")
    parser.add_argument("--folder", help="where there is room (default: a temporary folder)")
    parser.add_argument("--out", help="write the result as JSON into this folder")
    options = parser.parse_args()
    world = World(round(PICTURES * options.share), options.share)
    work = Path(tempfile.mkdtemp(prefix="annotate_", dir=options.folder))
    try:
        write_list(work / "captions.json", world.coco(), '{"annotations": [', "]}")
        scenes = work / "scenes.jsonl"
        common = ("--coco", str(work / "captions.json"), "--out", str(scenes))
        result: dict[str, Any] = {"share": options.share}
        digests = []
        for order in ("same_order", "other_order"):
            folder = work / order
            start = time.perf_counter()
            size = write_files(folder, world, shuffled=order == "other_order")
            print(f"made {size / 1e9:.2f} GB in {time.perf_counter() - start:.0f} s", flush=True)
            result["files_gb"] = round(size / 1e9, 2)
            result[order] = annotated("--vg", str(folder), *common)
            digests.append(scenes_digest(scenes))
            print(json.dumps(result), flush=True)
            if order == "same_order":
                result["scenes_gb"] = round(scenes.stat().st_size / 1e9, 2)
                merged = annotated("--vg", str(folder), *common, "--merge-duplicates", "0.7")
                result["merged_duplicates"] = merged
            shutil.rmtree(folder)
        result |= {
            "same_scenes": digests[0] == digests[1],
            **machine(),
            "command": f"python benchmarks/data_annotate.py --share {options.share}",
        }
        print(json.dumps(result), flush=True)
        peak = max(result[key]["peak_gib"] for key in ("same_order", "other_order"))
        if peak > LIMIT_GIB or not result["same_scenes"]:
            print(f"not as promised: {peak} GiB of {LIMIT_GIB}", file=sys.stderr)
            return 1
        record(result, options.out, "data_annotate")
    finally:
        shutil.rmtree(work)
    return 0


if __name__ == "__main__":
    sys.exit(main())
