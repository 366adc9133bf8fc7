"""Grouping by picture against a dictionary, and what of the rows stays in memory."""

import random
import tracemalloc

from data_pipeline.records.inputs import open_inputs


def test_groups_are_those_of_a_dictionary(world):
    chance = random.Random(0)
    names = [f"{n}.png" for n in range(5)]
    for name in names[:4]:  # the last is missing
        world.put(name, b"not opened")
    rows = []
    for number in range(200):
        image = chance.choice([*names, None])
        rows.append(world.row(f"r{number}", image, f"Question {number}?", "Grüße\n你好"))
    paths = [world.write("a.json", rows[:120]), world.write("b.json", rows[120:])]

    expected: dict[str, list[str]] = {}
    for place, row in enumerate(rows):
        if row.get("image") != "4.png":
            expected.setdefault(row.get("image", f"row {place}"), []).append(row["id"])
    with open_inputs(paths, world.images) as inputs:
        assert inputs.found.groups == len(expected)
        assert inputs.found.picture_bytes == 4 * len(b"not opened")
        groups = list(inputs.groups(0, inputs.found.groups))
        assert [[m.dialogue.id for m in group.members] for group in groups] == list(
            expected.values()
        )
        assert list(inputs.groups(3, 7)) == groups[3:7]
        by_id = {row["id"]: row for row in rows}
        for group in groups:
            for member in group.members:
                row = by_id[member.dialogue.id]
                assert group.image == row.get("image")
                assert [{"from": t.role, "value": t.text} for t in member.dialogue.turns] == row[
                    "conversations"
                ]
                assert member.file == ("a.json" if int(row["id"][1:]) < 120 else "b.json")
        missing = [row["id"] for row in rows if row.get("image") == "4.png"]
        assert [row.id for row in inputs.found.rejected] == missing


def test_texts_do_not_stay_in_memory(world):
    world.put("1.png", b"not opened")
    rows = [world.row(f"r{n}", "1.png", "What?", "word " * 2000) for n in range(2000)]
    path = world.write("large.json", rows)
    size = path.stat().st_size
    del rows
    tracemalloc.start()
    try:
        with open_inputs([path], world.images):
            _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size > 20e6 and peak < size / 5
