"""From LLaVA-format files to the selected rows, their manifest and the report."""

import hashlib
import json
import random
import re
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_pipeline.common.errors import UserError
from data_pipeline.generation.kinds import KINDS
from data_pipeline.instructions.llava import BOX_INSTRUCTIONS
from data_pipeline.recipe.concepts import Concept, ConceptSet
from data_pipeline.recipe.select import Choices, select
from data_pipeline.recipe.select_compare import compare
from data_pipeline.recipe.select_items import Source, parse_source, read_items
from data_pipeline.recipe.select_pool import measure_items
from data_pipeline.recipe.select_quotas import CORE_COUNT

Row = dict[str, Any]
WORDS = [f"w{chr(97 + place)}x" for place in range(20)]
CONCEPTS = ConceptSet(
    (
        Concept("b", "early", "early", tuple(WORDS[:10])),
        Concept("b", "late", "late", (*WORDS[8:], "never there")),
    )
)


def run(path: Path, out: str = "core.json", **choices: Any) -> tuple[Any, list[Row]]:
    target = path.parent / out
    report = select([Source(path)], target, CONCEPTS, Choices(**{"count": 60, **choices}))
    return report, json.loads(target.read_text())


def texts(row: Row) -> str:
    return " ".join(turn["value"] for turn in row["conversations"])


def test_exactly_so_many_rows_as_they_are_in_the_order_of_the_input(
    many_rows: list[Row], write_rows: Callable[..., Path]
) -> None:
    rows = [{**row, "extra": number} for number, row in enumerate(many_rows)]
    report, chosen = run(write_rows(rows))
    assert len(chosen) == report.items == 60
    places = [row["extra"] for row in chosen]
    assert places == sorted(places)
    assert all(rows[row["extra"]] == row for row in chosen)
    assert report.kinds == dict(zip(KINDS, (15, 21, 6, 18), strict=True))
    starts = Counter(
        match[1].lower()
        for row in chosen
        for turn in row["conversations"][1::2]
        if (match := re.match(r"(yes|no)\b", turn["value"].lower()))
    )
    assert (report.yes, report.no) == (starts["yes"], starts["no"])
    assert abs(report.yes - report.no) <= 4


def test_the_selection_holds_more_keywords_than_chance(
    many_rows: list[Row], write_rows: Callable[..., Path]
) -> None:
    path = write_rows(many_rows)
    _, chosen = run(path, yes_share=None, cap=400)

    def different(rows: list[Row]) -> float:
        return sum(len({w for w in WORDS if w in texts(row)}) for row in rows) / len(rows)

    for seed in range(5):
        drawn = random.Random(seed).sample(many_rows, 60)
        assert different(chosen) > different(drawn) + 0.5


def test_same_input_same_bytes_whatever_the_order(
    many_rows: list[Row], write_rows: Callable[..., Path]
) -> None:
    path = write_rows(many_rows)
    run(path, "a.json", seed=3)
    run(path, "b.json", seed=3)
    folder = path.parent
    assert (folder / "a.json").read_bytes() == (folder / "b.json").read_bytes()
    assert (folder / "a.report.html").read_bytes() == (folder / "b.report.html").read_bytes()
    _, first = run(path, seed=3)
    shuffled = random.Random(0).sample(many_rows, len(many_rows))
    _, second = run(write_rows(shuffled, "other.json"), seed=3)
    by_id = {row["id"]: row for row in first}
    assert {row["id"]: row for row in second} == by_id
    _, other_seed = run(path, seed=4)
    assert {row["id"] for row in other_seed} != set(by_id)


def test_the_manifest_tells_what_was_made_of_what(
    many_rows: list[Row], write_rows: Callable[..., Path]
) -> None:
    path = write_rows(many_rows)
    report, _ = run(path, yes_share=Fraction(1, 3), seed=7)
    manifest = json.loads(Path(report.manifest).read_text())
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert manifest["inputs"] == [{"file": "svit.json", "kind": None, "sha256": digest}]
    out = path.parent / "core.json"
    assert manifest["output"]["sha256"] == hashlib.sha256(out.read_bytes()).hexdigest()
    assert manifest["choices"]["yes_share"] == "1/3" and manifest["choices"]["seed"] == 7
    assert manifest["choices"]["cap"] == 1
    assert manifest["dropped_keywords"] == {"never there": 0}
    assert manifest["concepts"]["keywords"] == 20
    assert str(path.parent) not in json.dumps(manifest)


def test_rare_keywords_are_dropped_and_reported(
    many_rows: list[Row], write_rows: Callable[..., Path]
) -> None:
    path = write_rows(many_rows)
    frequency = {word: sum(word in texts(row) for row in many_rows) for word in WORDS}
    limit = sorted(frequency.values())[8]
    report, _ = run(path, min_frequency=limit / len(many_rows))
    rare = {word: n for word, n in frequency.items() if n < limit}
    assert report.dropped_keywords == {**rare, "never there": 0}


def test_bad_rows_are_listed_and_too_many_stop(
    many_rows: list[Row], make_row: Callable[..., Row], write_rows: Callable[..., Path]
) -> None:
    odd = {**make_row(KINDS[0], 1, ("Q", "A")), "id": "vqa_1"}
    bad = [odd, {"id": "svit_complex_5"}, 7]
    path = write_rows([*bad[:2], *many_rows, bad[2]])
    report, chosen = run(path)
    assert len(chosen) == 60 and report.from_items == 400
    listed = [
        json.loads(line)
        for line in (path.parent / "core.quarantine.jsonl").read_text().splitlines()
    ]
    assert [row["id"] for row in listed] == ["vqa_1", "svit_complex_5", "svit.json[402]"]
    assert "tells no kind" in listed[0]["reason"]
    assert report.rejections == {"bad row": 3}
    with pytest.raises(UserError, match="more than the 2 allowed"):
        select([Source(path)], path.parent / "c.json", CONCEPTS, Choices(count=60), max_bad=2)


def test_a_row_that_stands_twice_counts_once(
    many_rows: list[Row], write_rows: Callable[..., Path]
) -> None:
    report, chosen = run(write_rows([*many_rows, *many_rows[:300]]), count=400, yes_share=None)
    assert (report.from_items, report.repeated) == (400, 300)
    assert chosen == many_rows


def test_one_file_a_kind(
    many_rows: list[Row], write_rows: Callable[..., Path], tmp_path: Path
) -> None:
    sources = []
    for kind in KINDS:
        rows = [
            {**row, "id": f"row {number}"}
            for number, row in enumerate(many_rows)
            if number % 4 == KINDS.index(kind)
        ]
        write_rows(rows, f"{kind}.json")
        sources.append(parse_source(f"{kind}={tmp_path / kind}.json"))
    report = select(sources, tmp_path / "core.json", CONCEPTS, Choices(count=60))
    assert report.kinds == dict(zip(KINDS, (15, 21, 6, 18), strict=True))
    assert parse_source("a=b.json") == Source("a=b.json")


def test_single_questions_become_rows(
    make_row: Callable[..., Row], write_rows: Callable[..., Path]
) -> None:
    pairs = [("Is it wax?", "Yes."), ("And wbx?", "No."), ("Where?", "Here.")]
    talk = make_row(KINDS[0], 9, *pairs)
    report, chosen = run(write_rows([talk]), unit="qa", count=2, quotas=dict.fromkeys(KINDS[1:], 0))
    assert report.from_items == 3
    assert chosen == [
        {**make_row(KINDS[0], 9, pair), "id": f"svit_conversation_9_{number}"}
        for number, pair in enumerate(pairs[:2])
    ]


def test_the_marker_and_the_box_instruction_are_not_the_text(
    make_row: Callable[..., Row], write_rows: Callable[..., Path]
) -> None:
    question, answer = f"Where is it? {BOX_INSTRUCTIONS[0]}", "Here [0.1, 0.2, 0.3, 0.4]."
    path = write_rows([make_row(KINDS[3], 1, (question, answer))])
    pool = measure_items(read_items([Source(path)]), ["bounding box", "image", "it"], 0)
    assert pool.keywords.tolist() == [2]
    assert pool.words.tolist() == [4]
    assert pool.openings == ("where is",)


def test_too_few_rows_are_an_error_and_leave_no_file(
    many_rows: list[Row], write_rows: Callable[..., Path]
) -> None:
    path = write_rows(many_rows)
    with pytest.raises(UserError, match=r"--count to 400 or less"):
        run(path, count=401)
    with pytest.raises(UserError, match=r"101 detail_description \(there are 100\)"):
        run(path, count=200, quotas={"detail_description": 101})
    assert not (path.parent / "core.json").exists()
    with pytest.raises(UserError, match="one of the inputs"):
        run(path, path.name)


@pytest.mark.parametrize("wrong", [{"cap": 0}, {"min_frequency": 2.0}, {"unit": "word"}])
def test_choices_that_cannot_be_are_explained(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=str(next(iter(wrong.values())))):
        Choices(**wrong)


def test_the_comparison_counts_what_stands_in_the_texts(
    many_rows: list[Row], write_rows: Callable[..., Path]
) -> None:
    keywords = CONCEPTS.keywords
    pool = measure_items(read_items([Source(write_rows(many_rows))]), keywords, 0)
    chosen = np.arange(0, 400, 7)
    found = compare(pool, chosen, CONCEPTS, np.ones(len(keywords), bool), 5, seed=0)
    for summary, rows in ((found.all, many_rows), (found.selected, many_rows[::7])):
        counts = {word: sum(word in texts(row) for row in rows) for word in WORDS}
        assert summary.keyword_counts == sorted([*counts.values(), 0], reverse=True)
        assert summary.worth == sum(min(5, n) for n in counts.values())
        early = sum(any(word in texts(row) for word in WORDS[:10]) for row in rows) / len(rows)
        assert summary.covered["b/early"] == pytest.approx(early)
        questions = [t["value"] for row in rows for t in row["conversations"][::2]]
        assert summary.questions == len(questions)
        where = sum("Where is" in q for q in questions) / len(questions)
        assert summary.openings["where is"] == pytest.approx(where)
        assert sum(share for _, share in summary.lengths) == pytest.approx(1)
    assert found.random.kinds == found.selected.kinds
    assert found.random.items == len(chosen)


def test_the_report_is_whole(many_rows: list[Row], write_rows: Callable[..., Path]) -> None:
    report, _ = run(write_rows(many_rows))
    text = Path(report.report).read_text()
    assert not re.search(r"https?://|<script|url\(", text)
    for said in ("never there (0)", "early", "Commonest in the input", "share of yes", "random"):
        assert said in text
    assert text.count("<svg") == 7


def test_the_command(
    many_rows: list[Row], write_rows: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    from svit_jax.cli import main, make_parser

    assert make_parser().parse_args(["data", "select"]).count == CORE_COUNT == 157_712
    path = write_rows(many_rows)
    out = path.parent / "core.json"
    files = ["--llava", str(path), "--out", str(out)]
    arguments = ["data", "select", *files, "--count", "40", "--json"]
    assert main([*arguments, "--quota", "conversation=10", "detail_description=25%"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["items"], printed["kinds"]["conversation"]) == (40, 10)
    assert printed["kinds"]["detail_description"] == 10
    assert main(["data", "select", "--out", str(out)]) == 1
    assert main(["data", "select", "--draft-concepts", str(path.parent / "d.yaml")]) == 1
    assert main([*arguments, "--yes-share", "2"]) == 1
    errors = capsys.readouterr().err
    assert "needs --llava" in errors and "needs --model" in errors and "--yes-share 2" in errors
