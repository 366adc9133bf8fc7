"""The toy world's held-out questions with four options, in the layouts of the choice benchmarks."""

import base64
import csv
import io
import itertools
import random
from collections.abc import Iterator, Mapping, Sequence

from etils import epath

from data_pipeline.common.files import write_text
from data_pipeline.toy_world.draw import encode_scene
from data_pipeline.toy_world.questions import Balance, Kind, Question
from data_pipeline.toy_world.world import CELLS, COLOURS, SHAPES, ToyScene
from data_pipeline.toy_world.write import Row, write_bytes, write_compact_json

Asked = tuple[ToyScene, Question, list[str], int]
"""A scene, a question about it, four options and the true one's place."""

_VALUES: Mapping[Kind, Sequence[str]] = {"color": COLOURS, "shape": SHAPES, "position": CELLS}
_OPTIONS = "ABCD"
# Every so many ScienceQA questions one is asked without its picture, every so many of SEED-Bench's
# one as of a video.
_TEXT_ALONE_EVERY = 3
_VIDEO_EVERY = 5
_SEED_DIMENSIONS: Mapping[str, tuple[str, int]] = {
    "shape": ("Instance Identity", 2),
    "color": ("Instance Attributes", 3),
    "position": ("Instance Location", 4),
    "video": ("Action Recognition", 10),
}
# A row of MMBench carries its picture, so not every scene is asked about.
_MMBENCH_SCENES = 30
_MMBENCH_ROTATION = 1_000_000


def write_choice_benchmarks(
    folder: epath.Path, images: epath.Path, scenes: Sequence[ToyScene], seed: int
) -> dict[str, int]:
    """Writes scienceqa/, seedbench/, mmbench/ and mmbench_cn/ into `folder` and the pictures that
    their layouts name into `images`; returns how many questions each holds.

    Over a benchmark's questions the true letters come out even.
    """
    mmbench = {
        name: _write_mmbench(folder / name / file, scenes, f"{seed}/{name}")
        for name, file in (
            ("mmbench", "mmbench_dev_20230712.tsv"),
            ("mmbench_cn", "mmbench_dev_cn_20231003.tsv"),
        )
    }
    return {
        "scienceqa": _write_scienceqa(folder / "scienceqa", images, scenes, f"{seed}/scienceqa"),
        "seedbench": _write_seedbench(folder / "seedbench", images, scenes, f"{seed}/seedbench"),
        **mmbench,
    }


def _asked(scenes: Sequence[ToyScene], seed: str) -> Iterator[Asked]:
    balance, rng = Balance(seed), random.Random(f"{seed}/options")
    places = itertools.cycle(range(len(_OPTIONS)))
    shares = dict.fromkeys(_VALUES, 1.0)
    for scene in scenes:
        for question in balance.choose(scene, shares, 1):
            wrong = [value for value in _VALUES[question.kind] if value != question.answer]
            options, place = rng.sample(wrong, len(_OPTIONS) - 1), next(places)
            options.insert(place, question.answer)
            yield scene, question, options, place


def _write_scienceqa(
    folder: epath.Path, images: epath.Path, scenes: Sequence[ToyScene], seed: str
) -> int:
    """Writes problems whose `test/ID/image.png` is a scene; without one a hint tells what it shows,
    if that decides the answer."""
    problems: dict[str, Row] = {}
    for number, (scene, question, options, place) in enumerate(_asked(scenes, seed), start=1):
        colour, shape = question.about[0]
        text_alone = number % _TEXT_ALONE_EVERY == 0 and question.kind in ("color", "shape")
        if not text_alone:
            write_bytes(images / "test" / str(number) / "image.png", encode_scene(scene))
        problems[str(number)] = {
            "question": question.text,
            "choices": options,
            "answer": place,
            "hint": f"The only object is a {colour} {shape}." if text_alone else "",
            "image": None if text_alone else "image.png",
            "split": "test",
            "subject": "natural science",
            "kind": question.kind,
            "novel_combination": question.novel,
        }
    write_compact_json(folder / "problems.json", problems)
    write_compact_json(folder / "pid_splits.json", {"test": list(problems)})
    return len(problems)


def _write_seedbench(
    folder: epath.Path, images: epath.Path, scenes: Sequence[ToyScene], seed: str
) -> int:
    rows: list[Row] = []
    for number, (scene, question, options, place) in enumerate(_asked(scenes, seed), start=1):
        is_video = number % _VIDEO_EVERY == 0
        if is_video:
            frame = images / "SEED-Bench-video-image" / f"{number}.jpg"
            write_bytes(frame, encode_scene(scene))
        _, dimension = _SEED_DIMENSIONS["video" if is_video else question.kind]
        rows.append(
            {
                "question_id": str(number),
                "question_type_id": dimension,
                "data_type": "video" if is_video else "image",
                "data_id": f"{number}.mp4" if is_video else scene.image_file,
                "question": question.text,
                **{f"choice_{letter}": text for letter, text in zip("abcd", options, strict=True)},
                "answer": _OPTIONS[place],
                "novel_combination": question.novel,
            }
        )
    names = dict(_SEED_DIMENSIONS.values())
    write_compact_json(folder / "SEED-Bench.json", {"questions": rows, "question_type": names})
    return len(rows)


def _write_mmbench(path: epath.Path, scenes: Sequence[ToyScene], seed: str) -> int:
    """Writes each question in its four rotations; the first row of each carries the picture."""
    chosen = random.Random(f"{seed}/scenes").sample(scenes, min(_MMBENCH_SCENES, len(scenes)))
    text = io.StringIO()
    table = csv.writer(text, dialect="excel-tab", lineterminator="\n")
    columns = ("question", "hint", *_OPTIONS, "answer", "category", "image", "source")
    table.writerow(("index", *columns, "l2-category", "comment", "split"))
    count = 0
    for base, (scene, question, options, place) in enumerate(_asked(chosen, seed), start=1):
        picture = base64.b64encode(encode_scene(scene)).decode()
        for k in range(len(_OPTIONS)):
            turned = options[k:] + options[:k]
            answer = _OPTIONS[(place - k) % len(_OPTIONS)]
            image = str(base) if k else picture
            row = (base + k * _MMBENCH_ROTATION, question.text, "", *turned, answer)
            table.writerow((*row, question.kind, image, "toy world", question.kind, "", "dev"))
            count += 1
    write_text(path, text.getvalue())
    return count
