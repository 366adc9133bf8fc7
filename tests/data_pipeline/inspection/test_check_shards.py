"""Each flaw of a written dataset is found once, and what differs from its rows."""

import json

import pytest

from data_pipeline.inspection.check import check_dataset
from svit_jax.cli import main


def counts(report):
    return {name: found.count for name, found in report.found.items()}


def change_json(path, change, line=None):
    """Applies `change` to a JSON file's value, or to that of one line."""
    lines = path.read_text().splitlines() if line is not None else [path.read_text()]
    value = json.loads(lines[line or 0])
    change(value)
    lines[line or 0] = json.dumps(value)
    path.write_text("\n".join(lines) + "\n")


def header(change):
    return lambda folder: change_json(folder / "manifest-train.jsonl", change, 0)


def entry(change, number=1):
    return lambda folder: change_json(folder / "manifest-train.jsonl", change, number)


def info(change):
    return lambda folder: change_json(folder / "dataset_info.json", change)


def drop_last_entry(folder):
    path = folder / "manifest-train.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))


def add_an_entry(folder):
    path = folder / "manifest-train.jsonl"
    path.write_text(path.read_text() + path.read_text().splitlines()[-1] + "\n")


def last_shard(folder):
    return sorted(folder.glob("*.array_record-*"))[-1]


def flip_a_byte(folder):
    """Of the end of a picture, which does not compress: it stands in the shard as it is."""
    picture = (folder.parent / "images/coco/3.jpg").read_bytes()
    shard = last_shard(folder)
    data = bytearray(shard.read_bytes())
    data[data.index(picture[-100:-50])] ^= 255
    shard.write_bytes(data)


def wrong_features(folder):
    path = folder / "features.json"
    path.write_text(path.read_text().replace("image_id", "picture_id"))


def a_row_too_many_left_out(folder):
    (folder / "quarantine-train.jsonl").write_text('{"id": "a"}')


FLAWS = [
    ({"dataset_unreadable": 1}, lambda folder: last_shard(folder).unlink()),
    ({"dataset_unreadable": 1}, lambda folder: last_shard(folder).write_bytes(b"")),
    ({"dataset_unreadable": 1}, lambda folder: (folder / "dataset_info.json").unlink()),
    ({"dataset_unreadable": 1}, header(lambda row: row.update(format="another"))),
    ({"shard_damaged": 1}, header(lambda row: row["shards"][0].update(sha256="0" * 64))),
    ({"wrong_count": 1}, header(lambda row: row.update(dialogues=6))),
    ({"wrong_count": 1}, header(lambda row: row.update(rejected=1))),
    # Neither the shards nor the manifest's rows are so many.
    ({"wrong_count": 2}, header(lambda row: row.update(records=5))),
    ({"wrong_count": 1}, a_row_too_many_left_out),
    ({"wrong_count": 1}, drop_last_entry),
    ({"wrong_count": 1}, add_an_entry),
    ({"tfds_metadata": 1}, info(lambda row: row["splits"][0].update(shardLengths=["1", "3"]))),
    ({"tfds_metadata": 1}, info(lambda row: row["splits"][0].update(numBytes="1"))),
    ({"tfds_metadata": 1}, wrong_features),
    ({"tfds_metadata": 1}, lambda folder: (folder / "features.json").unlink()),
    ({"manifest_differs": 1}, entry(lambda row: row.update(image_id="vg/9.jpg"))),
    ({"manifest_differs": 1}, entry(lambda row: row.update(width=81))),
    ({"manifest_differs": 1}, entry(lambda row: row["dialogues"][0].update(id="another"))),
    ({"manifest_differs": 1}, entry(lambda row: row["dialogues"][0]["turns"].reverse())),
    # A byte that no longer fits its checksum spoils both the file and the record.
    ({"shard_damaged": 1, "unreadable_record": 1}, flip_a_byte),
]


def test_clean_shards_have_no_findings(made):
    folder = made.shard()
    expected = {"shards": 2, "records": 4, "record_dialogues": 5, "dialogues": 5, "boxes": 3}
    expected |= {"record_pictures": 3, "record_pictures_decoded": 3}
    report = check_dataset(data_folder=folder, strict=True)
    assert (counts(report), report.counts) == ({}, expected) and report.passed

    both = check_dataset([made.llava], made.images, folder, strict=True)
    expected |= {"rows": 5, "pictures": 3, "pictures_decoded": 3}
    assert (counts(both), both.counts) == ({}, expected) and both.passed


@pytest.mark.parametrize(("expected", "spoil"), FLAWS)
def test_a_flaw_of_the_shards_is_found_once(made, expected, spoil):
    folder = made.shard()
    spoil(folder)
    report = check_dataset(data_folder=folder)
    assert counts(report) == expected and not report.passed


def test_dialogues_of_shards_are_checked_where_no_rows_are_given(made):
    made.set_text("svit_referring_0", 1, "The clock [0.1, 0.0, 0.25, 0.125].")
    folder = made.shard()
    alone = check_dataset(data_folder=folder)
    assert counts(alone) == {"box_in_padding": 1}
    assert alone.found["box_in_padding"].examples[0][0] == "record 0: svit_referring_0"
    assert counts(check_dataset([made.llava], made.images, folder)) == {"box_in_padding": 1}


def test_a_sample_of_records_decodes_so_many_pictures(made):
    report = check_dataset(data_folder=made.shard(), sample=2, seed=3)
    assert report.counts["record_pictures_decoded"] <= 2 and counts(report) == {}


@pytest.mark.parametrize(
    ("name", "row_id", "spoil"),
    [
        ("not_in_json", "vqa_3", lambda made: made.rows.remove(made.by_id("vqa_3"))),
        ("text_differs", "vqa_3", lambda made: made.set_text("vqa_3", 1, "yes")),
        (
            "not_in_shards",
            "new_9",
            lambda made: made.rows.append({**made.by_id("chat_4"), "id": "new_9"}),
        ),
        (
            "not_in_shards",
            "svit_referring_1",
            lambda made: made.by_id("svit_referring_1").update(image="coco/3.jpg"),
        ),
    ],
)
def test_rows_and_records_are_held_against_each_other(made, name, row_id, spoil):
    folder = made.shard()
    spoil(made)
    found = check_dataset([made.llava], made.images, folder).found
    assert found[name].count == 1 and found[name].examples[0][0] == row_id
    moved = row_id == "svit_referring_1"
    added = {"duplicate_text"} if row_id == "new_9" else {"not_in_json"} if moved else set()
    assert set(found) == {name} | added


def test_rows_that_the_writer_left_out_are_accounted_for(made):
    (made.images / "vg/2.jpg").unlink()
    folder = made.shard()
    assert counts(check_dataset([made.llava], made.images, folder)) == {"missing_picture": 1}


def test_equal_rows_are_counted_on_both_sides(made):
    made.rows.append(made.by_id("chat_4"))
    folder = made.shard()
    assert counts(check_dataset([made.llava], None, folder)) == {"duplicate_text": 1}
    made.rows.pop()
    assert counts(check_dataset([made.llava], None, folder)) == {"not_in_json": 1}


def test_the_job_fails_on_errors_and_strictly_on_warnings(made, capsys):
    command = ["data", "check", "--llava", str(made.llava), "--images", str(made.images)]
    assert main(command) == 0
    assert "0 errors, 0 warnings" in capsys.readouterr().out

    assert main(command[:4]) == 0
    assert "not looked at" in capsys.readouterr().out
    assert main([*command[:2], "--data", "dataset", *command[4:]]) == 1
    assert "--images needs --llava" in capsys.readouterr().err

    made.set_text("vqa_3", 1, "")
    assert made.llava and main(command) == 0
    assert main([*command, "--strict"]) == 1
    shown = capsys.readouterr()
    assert "(empty_answer)" in shown.out and "rows.json: vqa_3: turn 2" in shown.out
    assert "found 0 errors and 1 warnings" in shown.err

    made.set_text("vqa_3", 1, "Here: [0.5, 0.5, 0.4, 0.9]")
    assert made.llava and main([*command, "--json"]) == 1
    printed = json.loads(capsys.readouterr().out)
    assert printed["found"]["box_without_area"]["count"] == 1 and not printed["passed"]
