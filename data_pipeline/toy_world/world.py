"""Scenes of the toy world as data: up to four coloured shapes, each in a quarter of its own."""

import dataclasses
import random
from typing import Literal

from data_pipeline.annotations.scene import PixelBox

SHAPES = ("circle", "square", "triangle", "star", "cross", "ring", "heart", "diamond")
COLOURS = ("red", "green", "blue", "yellow", "purple", "orange", "cyan", "white")
CELLS = ("top left", "top right", "bottom left", "bottom right")

Pair = tuple[str, str]  # colour, shape
Rgb = tuple[int, int, int]
Size = Literal["small", "large"]

HELD_OUT_PAIRS: frozenset[Pair] = frozenset(
    {
        ("red", "star"),
        ("green", "heart"),
        ("blue", "ring"),
        ("yellow", "cross"),
        ("purple", "diamond"),
        ("orange", "triangle"),
    }
)
PAINTS: dict[str, Rgb] = {
    "red": (214, 40, 40),
    "green": (40, 160, 60),
    "blue": (50, 90, 240),
    "yellow": (243, 218, 40),
    "purple": (165, 60, 205),
    "orange": (243, 130, 20),
    "cyan": (60, 220, 225),
    "white": (242, 242, 242),
}

_ORDINARY_PAIRS = sorted({(c, s) for c in COLOURS for s in SHAPES} - HELD_OUT_PAIRS)
_PICTURE_SIZES = ((64, 64), (64, 48), (48, 64))
_PICTURE_SIZE_WEIGHTS = (88, 6, 6)
_WIDE_CELL = 32
_SIDES = {"wide": {"small": 20, "large": 28}, "narrow": {"small": 12, "large": 20}}
_PAINT_JITTER = 12
# How far a box lies from the left and upper edge of its cell's middle square. So its center stays
# in the picture's outer thirds, and is where its cell is for who reckons by thirds
# (data_pipeline.generation).
_INDENTS: dict[Size, tuple[int, ...]] = {"small": (4, 8), "large": (4,)}
# How many objects, and how often: a picture of one object teaches what things look like, one of
# several which of them is meant.
_COUNTS = ((1, 2, 3, 4), (1, 2, 4, 8))
_NOVEL_COUNTS = ((3, 4), (1, 2))
_REPEAT_CHANCE = 0.65  # how often a colour (and, apart from that, a shape) is made to repeat


@dataclasses.dataclass(frozen=True)
class ToyObject:
    """`cell` is an index into CELLS; `box` encloses the drawn shape tightly; `paint` is its RGB."""

    object_id: int
    colour: str
    shape: str
    size: Size
    cell: int
    box: PixelBox
    paint: Rgb

    @property
    def pair(self) -> Pair:
        return self.colour, self.shape

    @property
    def name(self) -> str:
        """What no other object of its scene is called: "red circle"."""
        return f"{self.colour} {self.shape}"

    @property
    def row(self) -> int:
        return self.cell // 2

    @property
    def column(self) -> int:
        return self.cell % 2

    @property
    def place(self) -> str:
        """Its cell as it stands in a phrase: "in the top left"."""
        return f"in the {CELLS[self.cell]}"


@dataclasses.dataclass(frozen=True)
class ToyScene:
    """`novel` scenes hold one pair of HELD_OUT_PAIRS and at least three objects. The background
    runs from its first RGB (top left) to its second (bottom right)."""

    image_id: int
    width: int
    height: int
    novel: bool
    objects: tuple[ToyObject, ...]
    background: tuple[Rgb, Rgb]
    coco_id: int | None

    @property
    def image_file(self) -> str:
        return f"VG_100K/{self.image_id}.jpg"


def make_scene(image_id: int, seed: int, novel: bool = False) -> ToyScene:
    """The scene of this id: the same for the same (image_id, seed, novel), on any machine."""
    rng = random.Random(f"{seed}/scene/{image_id}")
    ((width, height),) = rng.choices(_PICTURE_SIZES, _PICTURE_SIZE_WEIGHTS)
    # Held-out pairs come in turn, in turn small and large: even in a few novel scenes too.
    turn, which = divmod(image_id, len(HELD_OUT_PAIRS))
    anchor = sorted(HELD_OUT_PAIRS)[which] if novel else rng.choice(_ORDINARY_PAIRS)
    (count,) = rng.choices(*(_NOVEL_COUNTS if novel else _COUNTS))
    pairs = _choose_pairs(rng, count, anchor)
    cells = rng.sample(range(4), len(pairs))
    sizes: list[Size] = [rng.choice(("small", "large")) for _ in pairs]
    if novel:
        sizes[pairs.index(anchor)] = "small" if turn % 2 else "large"
    boxes = _place(rng, width, height, cells, sizes)
    paints = [_jitter(rng, colour) for colour, _ in pairs]
    objects = tuple(
        ToyObject(10 * image_id + k, colour, shape, sizes[k], cells[k], boxes[k], paints[k])
        for k, (colour, shape) in enumerate(pairs)
    )
    return ToyScene(
        image_id=image_id,
        width=width,
        height=height,
        novel=novel,
        objects=objects,
        background=_background(rng),
        # Far from the image id, so that a join by the wrong one of the two finds nothing.
        coco_id=7_000_000 + image_id if rng.random() < 0.5 else None,
    )


def _choose_pairs(rng: random.Random, count: int, anchor: Pair) -> list[Pair]:
    """The anchor and other ordinary pairs, all distinct, in which colours and shapes repeat often
    enough to be worth counting."""
    groups: list[Pair] = []
    if anchor in HELD_OUT_PAIRS:
        # Another held-out pair is absent though its colour and its shape are both there, so that
        # "is there a ..." about held-out pairs can be as often no as yes.
        absent = rng.choice(sorted(HELD_OUT_PAIRS - {anchor}))
        groups += [(absent[0], anchor[1]), (anchor[0], absent[1])]
    for axis in rng.sample((0, 1), 2):
        if rng.random() < _REPEAT_CHANCE:
            alike = [p for p in _ORDINARY_PAIRS if p[axis] == anchor[axis] and p != anchor]
            groups += rng.sample(alike, rng.choice((1, 2, 2)))
    others = rng.sample(_ORDINARY_PAIRS, 2 * count)
    pairs = list(dict.fromkeys([anchor, *groups, *others]))[:count]
    rng.shuffle(pairs)
    return pairs


def _place(
    rng: random.Random, width: int, height: int, cells: list[int], sizes: list[Size]
) -> list[PixelBox]:
    """A box inside each cell; no two touch."""
    cell_width, cell_height = width // 2, height // 2
    square = min(cell_width, cell_height)
    sides = _SIDES["wide" if square >= _WIDE_CELL else "narrow"]
    boxes = []
    for cell, size in zip(cells, sizes, strict=True):
        side = sides[size]
        x = cell % 2 * cell_width + (cell_width - square) // 2 + rng.choice(_INDENTS[size])
        y = cell // 2 * cell_height + (cell_height - square) // 2 + rng.choice(_INDENTS[size])
        boxes.append(PixelBox(x, y, x + side, y + side))
    return boxes


def _jitter(rng: random.Random, colour: str) -> Rgb:
    red, green, blue = (
        min(255, max(0, value + rng.randint(-_PAINT_JITTER, _PAINT_JITTER)))
        for value in PAINTS[colour]
    )
    return red, green, blue


def _background(rng: random.Random) -> tuple[Rgb, Rgb]:
    """Two dark greys with a slight tint: every paint is lighter, so a shape shows whatever its
    colour."""

    def dark() -> Rgb:
        level = rng.randint(14, 40)
        return level + rng.randint(-8, 8), level + rng.randint(-8, 8), level + rng.randint(-8, 8)

    return dark(), dark()
