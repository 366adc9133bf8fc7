"""A dialogue about two pictures: checked, counted and shown beside those about one."""

import json

import pytest

from data_pipeline.inspection.browse_page import write_browse_page
from data_pipeline.inspection.browse_records import shown_record
from data_pipeline.inspection.check import check_dataset
from data_pipeline.inspection.statistics import dataset_statistics
from data_pipeline.records.source import open_records

PAIR = ["vg/2.jpg", "vg/1.jpg"]
TEXTS = ("<image>\n<image>\nWhat differs?", "The clock [0.1, 0.2, 0.3, 0.4].")


@pytest.fixture
def pair(made):
    """The small dataset with one more row, about two of its pictures."""
    row = made.row("pair_0", None, *TEXTS)
    made.rows.append({**row, "image": PAIR})
    return made


def counts(report):
    return {name: found.count for name, found in report.found.items()}


def test_what_is_right_has_no_finding(pair):
    report = check_dataset([pair.llava], pair.images, pair.shard())
    assert counts(report) == {}
    # Four records of one picture or none before it: 3 pictures, and the 2 of the pair again.
    assert report.counts["records"] == 5
    assert report.counts["record_pictures"] == report.counts["record_pictures_decoded"] == 5


def test_each_of_the_pictures_is_checked(pair):
    folder = pair.shard()
    (pair.images / PAIR[1]).unlink()
    report = check_dataset([pair.llava], pair.images)
    assert counts(report)["missing_picture"] == 1, "a file is named once, however many show it"
    excluded = pair.root / "excluded.txt"
    excluded.write_text("1\n3\n")
    held_out = check_dataset(data_folder=folder, exclude_ids=excluded)
    assert counts(held_out) == {"held_out": 2}


@pytest.mark.parametrize("size", [[[60, 81], [80, 60]], [[80, 60], [60, 80]], [[60, 80]]])
def test_the_manifest_must_know_each_size(pair, size):
    folder = pair.shard()
    path = folder / "manifest-train.jsonl"
    lines = path.read_text().splitlines()
    (place,) = [n for n, line in enumerate(lines) if "pair_0" in line]
    row = json.loads(lines[place])
    assert (row["width"], row["height"]) == ([60, 80], [80, 60])
    row["width"], row["height"] = map(list, zip(*size, strict=True))
    lines[place] = json.dumps(row)
    path.write_text("\n".join(lines) + "\n")
    assert counts(check_dataset(data_folder=folder)) == {"manifest_differs": 1}


@pytest.mark.parametrize("form", ["json", "shards"])
def test_figures_count_each_picture_of_the_dialogue(pair, form):
    if form == "json":
        found = dataset_statistics([pair.llava], pair.images)
    else:
        found = dataset_statistics(data_folder=pair.shard())
    assert (found.dialogues, found.pictures, found.text_only) == (6, 3, 1)
    # vg/1.jpg has two of its own, vg/2.jpg one, both the pair's too; coco/3.jpg one.
    assert found.dialogues_a_picture.counts == {3: 1, 2: 1, 1: 1}
    assert found.picture_sizes == {"50x50": 1, "60x80": 1, "80x60": 1}
    assert found.question_words.counts[2] == 1, "the markers are no words of the question"


def test_the_page_shows_both_and_draws_no_box(pair):
    source = open_records(pair.shard())
    (index,) = [n for n in range(5) if source[n].dialogues[0].id == "pair_0"]
    row = shown_record(index, source[index])
    assert (row["images"], row["sizes"], row["boxes"]) == (PAIR, [[60, 80], [80, 60]], [])
    assert row["dialogues"][0]["turns"][1]["pieces"] == [TEXTS[1]]
    page = pair.root / "browse.html"
    report = write_browse_page(pair.root / "dataset", page)
    assert (report.records, report.faults) == (5, 0)
    assert page.read_text().count("data:image/") == 5
