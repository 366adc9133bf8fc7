"""All of the chain on real annotations: what it makes is clean, and boxes not moved are noticed."""

import json
import re

import pytest

from data_pipeline.annotations.annotate import annotate
from data_pipeline.annotations.scene import read_scenes
from data_pipeline.generation.generate import generate
from data_pipeline.generation.template_teacher import TemplateTeacher
from data_pipeline.inspection.browse_page import write_browse_page
from data_pipeline.inspection.check import check_dataset
from data_pipeline.inspection.statistics import dataset_statistics
from data_pipeline.instructions.llava import convert
from data_pipeline.records.writer import write_dataset
from data_pipeline.toy_world.stand_ins import draw_stand_ins

BOX = re.compile(r"\[(\d\.\d+), (\d\.\d+), (\d\.\d+), (\d\.\d+)\]")


@pytest.fixture(scope="module")
def folder(real_data, tmp_path_factory):
    root = tmp_path_factory.mktemp("visual_genome")
    annotate(real_data / "visual_genome_sample", [], root / "scenes.jsonl")
    draw_stand_ins(read_scenes(root / "scenes.jsonl"), root / "images")
    generate(root / "scenes.jsonl", root / "raw", TemplateTeacher(()))
    convert(root / "raw", root / "scenes.jsonl", root / "rows.json")
    write_dataset([root / "rows.json"], root / "images", root / "dataset", "sample", shards=2)
    return root


def texts(folder):
    rows = json.loads((folder / "rows.json").read_text())
    return rows, [turn["value"] for row in rows for turn in row["conversations"]]


def test_what_the_chain_makes_is_clean(folder, real_data):
    report = check_dataset(
        [folder / "rows.json"],
        folder / "images",
        folder / "dataset",
        exclude_ids=real_data / "svit_test_image_ids.txt",
        strict=True,
    )
    rows, values = texts(folder)
    assert report.found == {} and report.passed
    assert report.counts["rows"] == report.counts["record_dialogues"] == len(rows)
    assert report.counts["boxes"] == sum(len(BOX.findall(value)) for value in values) > 50


def test_boxes_in_fractions_of_the_picture_are_noticed(folder, tmp_path):
    """Pictures of 800x600 and 640x480 have bars of 0.125 of the square's side above and below."""
    inside = reaching = 0

    def to_raw(match):
        nonlocal inside, reaching
        x1, y1, x2, y2 = map(float, match.groups())
        y1, y2 = (round(min(max((y - 0.125) / 0.75, 0.0), 1.0), 3) for y in (y1, y2))
        inside += y2 <= 0.125 or y1 >= 0.875
        reaching += y1 < 0.12 or y2 > 0.88
        return f"[{x1}, {y1}, {x2}, {y2}]"

    (tmp_path / "rows.json").write_text(BOX.sub(to_raw, (folder / "rows.json").read_text()))
    found = check_dataset([tmp_path / "rows.json"], folder / "images").found
    assert found["box_in_padding"].count == inside > 0
    assert inside + found["box_reaches_padding"].count >= reaching > inside


def test_the_dataset_can_be_measured_and_paged_through(folder):
    rows, values = texts(folder)
    statistics = dataset_statistics(data_folder=folder / "dataset")
    assert statistics.dialogues == len(rows) and statistics.pictures == 5
    assert statistics.boxes == sum(len(BOX.findall(value)) for value in values)
    assert statistics.answer_words.count == len(values) // 2
    report = write_browse_page(folder / "dataset", folder / "browse.html")
    assert (report.records, report.faults) == (5, 0)
