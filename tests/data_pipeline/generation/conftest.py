"""Small scenes for the generation room: shapes on a grid, and one dense scene of the other kind."""

import dataclasses
import random
from pathlib import Path

import pytest

from data_pipeline.annotations.scene import (
    PixelBox,
    Region,
    Relation,
    Scene,
    SceneObject,
    write_scenes,
)

COLORS = ("red", "blue", "green", "yellow")
SHAPES = ("circle", "square", "triangle", "star")


def shape_scene(image_id: int) -> Scene:
    """One to six shapes, each in its own ninth of a 96x72 picture; colors and shapes repeat."""
    rng = random.Random(image_id)
    objects = []
    cells = rng.sample(range(9), rng.randint(1, 6))
    for number, cell in enumerate(cells):
        size = rng.choice(("small", "large"))
        side = 8 if size == "small" else 18
        x, y = 32 * (cell % 3) + rng.randint(1, 12), 24 * (cell // 3) + rng.randint(1, 5)
        box = PixelBox(x, y, x + side, y + side)
        attributes = (size, rng.choice(COLORS))
        objects.append(SceneObject(100 * image_id + number, rng.choice(SHAPES), box, attributes))
    relations = []
    if len(objects) > 1 and cells[0] % 3 < cells[1] % 3:
        relations = [Relation(objects[0].object_id, "left of", objects[1].object_id)]
    first = objects[0]
    region = Region(f"a {first.attributes[1]} {first.name}", first.box)
    return Scene(
        image_id,
        f"VG_100K/{image_id}.jpg",
        96,
        72,
        captions=(f"{len(objects)} shapes on gray",) if image_id % 2 else (),
        objects=tuple(objects),
        regions=(region,),
        relations=tuple(relations),
    )


@pytest.fixture
def shape_scenes() -> list[Scene]:
    return [shape_scene(image_id) for image_id in range(1, 61)]


@pytest.fixture
def street() -> Scene:
    """Twice-told objects, synonyms, several colors, texts that speak of more than was boxed."""
    return Scene(
        5,
        "VG_100K/5.jpg",
        800,
        600,
        objects=(
            SceneObject(1, "Clock", PixelBox(421, 91, 500, 430), ("green", "tall")),
            SceneObject(2, "clock", PixelBox(425, 95, 500, 430)),
            SceneObject(3, "man", PixelBox(100, 300, 160, 500), ("white",)),
            SceneObject(4, "guy", PixelBox(600, 300, 660, 500)),
            SceneObject(5, "tree", PixelBox(700, 10, 790, 300), ("green",)),
            SceneObject(6, "shirt", PixelBox(110, 350, 150, 420), ("red", "orange")),
            SceneObject(7, "sign", PixelBox(20, 20, 60, 60), ("grey",)),
            SceneObject(8, '"walk"', PixelBox(20, 20, 50, 50)),
        ),
        regions=(Region("trees line the street", PixelBox(0, 0, 800, 300)),),
        relations=(Relation(7, "NEAR", 2), Relation(3, "wears", 6)),
    )


def captioned(image_id: int) -> Scene:
    """A shape scene whose prompt says which one it is."""
    return dataclasses.replace(shape_scene(image_id), captions=(f"picture {image_id}",))


@pytest.fixture
def captioned_scenes(tmp_path: Path) -> Path:
    """Six of them, in a file; their order is not that of their ids."""
    path = tmp_path / "captioned.jsonl"
    write_scenes(path, [captioned(image_id) for image_id in (7, 3, 12, 1, 9, 5)])
    return path


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "any")
