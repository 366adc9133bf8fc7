"""The 665K mixture: its published counts, and a small one whose rows know their part."""

import dataclasses
import hashlib
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from mixture_samples import COUNTS, part_rows, small_mixture, write_files

from data_pipeline.common.errors import UserError
from data_pipeline.recipe.mixture import mix
from data_pipeline.recipe.mixture_spec import SVIT_MIX_665K, read_mixture

SHEET = Path(__file__).parents[4] / "shared/reference/svit.md"
TAKEN = {part: count for part, count in COUNTS.items() if part != "llava_instruct"}


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def parts_of(rows: list[dict[str, Any]]) -> dict[str, int]:
    return dict(Counter(row["id"].partition("/")[0] for row in rows))


def test_the_published_counts() -> None:
    mixture = read_mixture()
    taken = [part for part in mixture.parts if not part.leave_out]
    assert len(taken) == 10
    assert sum(part.rows or 0 for part in taken) == 665_298
    by_folder: Counter[str] = Counter()
    for part in taken:
        by_folder[str(part.folder)] += part.rows or 0
    assert by_folder == {
        "coco": 206_388,
        "vg": 244_129,
        "gqa": 72_140,
        "ocr_vqa": 80_000,
        "textvqa": 21_953,
        "none": 40_688,
    }
    # LLaVA's own file: the rows of one input, with the part that is replaced.
    shared = [part for part in mixture.parts if part.input == "llava_mix"]
    assert sum(part.rows or 0 for part in shared) == 665_298
    assert sum(part.rows or 0 for part in shared if part.folder == "coco") == 364_100


@pytest.mark.skipif(not SHEET.exists(), reason="the fact sheet is not here")
def test_the_table_of_the_fact_sheet() -> None:
    table = re.findall(r"^\| ([\w\- .(),]+?) \| ([\d,]+) \|$", SHEET.read_text(), re.MULTILINE)
    counts = {int(number.replace(",", "")) for name, number in table if name != "total"}
    assert counts == {part.rows for part in read_mixture().parts if not part.leave_out}


def test_parts_are_recognised_and_shuffled(tmp_path: Path) -> None:
    home, out = write_files(tmp_path), tmp_path / "mix.json"
    report = mix(small_mixture(), out, home=home)
    rows = read(out)
    assert parts_of(rows) == TAKEN
    assert report.rows == len(rows) == sum(TAKEN.values())
    assert report.parts == COUNTS and report.notes == [] and report.rejected == {}
    for part, count in TAKEN.items():
        mine = sorted((r for r in rows if r["id"].startswith(f"{part}/")), key=str)
        assert mine == sorted(part_rows(part, count), key=str)
    assert report.folders == {
        "coco": 48 + 66 + 8 + 82,
        "vg": 157 + 86,
        "gqa": 72,
        "ocr_vqa": 80,
        "textvqa": 21,
        "none": 40,
    }
    assert len({row["id"].partition("/")[0] for row in rows[:40]}) > 5
    text = out.read_bytes()
    mix(small_mixture(), out, home=home)
    assert out.read_bytes() == text
    mix(small_mixture(), out, home=home, seed=1)
    assert out.read_bytes() != text and sorted(map(str, read(out))) == sorted(map(str, rows))
    mix(small_mixture(), out, home=home, shuffle=False)
    order = [row["id"].partition("/")[0] for row in read(out)]
    assert order == [
        part.name for part in small_mixture().parts for _ in range(TAKEN.get(part.name, 0))
    ]
    core = [row["id"] for row in read(out)[:157]]
    assert core == [f"svit_core/{number}" for number in range(157)]


def test_the_manifest_says_what_it_was_made_of(tmp_path: Path) -> None:
    home, out = write_files(tmp_path), tmp_path / "mix.json"
    report = mix(small_mixture(), out, home=home, seed=5)
    manifest = read(tmp_path / "mix.manifest.json")
    assert report.manifest == str(tmp_path / "mix.manifest.json")
    assert manifest["sha256"] == hashlib.sha256(out.read_bytes()).hexdigest() == report.sha256
    for name, file in (
        ("svit_core", "SVIT_core_150K.json"),
        ("llava_mix", "llava_v1_5_mix665k.json"),
    ):
        digest = hashlib.sha256((home / file).read_bytes()).hexdigest()
        assert manifest["inputs"][name] == {"file": file, "sha256": digest}
    assert manifest["seed"] == 5 and manifest["rows"] == sum(TAKEN.values())
    assert manifest["parts"]["gqa"] == {"rows": 72, "expected": 72, "taken": True}
    assert manifest["parts"]["llava_instruct"]["taken"] is False
    assert str(tmp_path) not in (tmp_path / "mix.manifest.json").read_text()


def test_a_wrong_count_names_the_part(tmp_path: Path) -> None:
    home, out = (
        write_files(tmp_path, gqa=70, svit_core=158, llava_instruct=156),
        tmp_path / "mix.json",
    )
    with pytest.raises(UserError) as error:
        mix(small_mixture(), out, home=home)
    for text in (
        "gqa has 70 rows, expected 72",
        "svit_core has 158 rows, expected 157",
        "llava_instruct has 156 rows, expected 157",
    ):
        assert text in str(error.value)
    assert not out.exists()
    report = mix(small_mixture(), out, home=home, allow_partial=True)
    assert parts_of(read(out)) == TAKEN | {"gqa": 70, "svit_core": 158}
    assert len(report.notes) == 3


def test_short_answers_are_checked_by_their_sum(tmp_path: Path) -> None:
    out = tmp_path / "mix.json"
    report = mix(small_mixture(), out, home=write_files(tmp_path, okvqa=10, vqav2=80))
    assert parts_of(read(out)) == TAKEN | {"okvqa": 10, "vqav2": 80}
    (note,) = report.notes
    assert "okvqa 10 of 8, vqav2 80 of 82" in note
    with pytest.raises(UserError, match="okvqa and vqav2 has 91 rows, expected 90"):
        mix(small_mixture(), out, home=write_files(tmp_path, okvqa=9, vqav2=82))


def test_missing_files_are_named_together(tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        mix(small_mixture(), tmp_path / "mix.json", home=tmp_path)
    for text in ("SVIT_core_150K.json", "llava_v1_5_mix665k.json", "datasets/BAAI/SVIT", "vqav2"):
        assert text in str(error.value)


def test_one_of_the_files_is_enough_for_a_part_of_it(tmp_path: Path) -> None:
    home, out = write_files(tmp_path), tmp_path / "mix.json"
    (home / "SVIT_core_150K.json").unlink()
    with pytest.raises(UserError, match="lacks svit_core"):
        mix(small_mixture(), out, home=home)
    report = mix(small_mixture(), out, home=home, allow_partial=True)
    assert "svit_core" not in parts_of(read(out)) and len(report.notes) == 2


def test_parts_may_have_files_of_their_own(tmp_path: Path) -> None:
    home, out = write_files(tmp_path, vqav2=3), tmp_path / "mix.json"
    own = part_rows("vqav2", 82)
    own[0]["conversations"] = own[0]["conversations"][:2]
    (tmp_path / "own.json").write_text(json.dumps(own))
    report = mix(small_mixture(), out, given={"vqav2": tmp_path / "own.json"}, home=home)
    assert parts_of(read(out)) == TAKEN
    assert report.notes == ["3 rows of vqav2 in the shared file give way to its own file"]
    (tmp_path / "own.json").write_text(json.dumps(part_rows("vg", 82)))
    with pytest.raises(UserError, match="82 rows are of no part"):
        mix(small_mixture(), out, given={"vqav2": tmp_path / "own.json"}, home=home)
    with pytest.raises(UserError, match="no input or part 'vqa'"):
        mix(small_mixture(), out, given={"vqa": tmp_path / "own.json"}, home=home)


def test_llava_instruct_is_subtracted_by_its_own_file(tmp_path: Path) -> None:
    """As in the original file: no folders, `<image>` at another place."""
    home, out = write_files(tmp_path), tmp_path / "mix.json"
    originals = part_rows("llava_instruct", 157)
    for row in originals:
        first = row["conversations"][0]
        first["value"] = first["value"].removeprefix("<image>\n") + "\n<image>"
        row["image"] = row["image"].rpartition("/")[2]
        row["id"] = "another"
    (tmp_path / "llava_instruct_150k.json").write_text(json.dumps(originals))
    given = {"llava_instruct": tmp_path / "llava_instruct_150k.json"}
    report = mix(small_mixture(), out, given=given, home=home)
    assert parts_of(read(out)) == TAKEN and report.parts == COUNTS
    used = read(tmp_path / "mix.manifest.json")["inputs"]
    assert set(used) == {"svit_core", "llava_mix", "llava_instruct"}
    (tmp_path / "llava_instruct_150k.json").write_text(json.dumps(originals[1:]))
    with pytest.raises(UserError, match="has 156 rows, expected 157; 1 rows are of no"):
        mix(small_mixture(), out, given=given, home=home)


def test_rows_of_no_part_are_listed(tmp_path: Path) -> None:
    home, out = write_files(tmp_path), tmp_path / "mix.json"
    path = home / "llava_v1_5_mix665k.json"
    odd = [{"id": "sam/1", "image": "sam/images/1.jpg", "conversations": []}, 7]
    path.write_text(json.dumps(read(path) + odd))
    with pytest.raises(UserError, match="2 rows are of no part"):
        mix(small_mixture(), out, home=home)
    report = mix(small_mixture(), out, home=home, allow_partial=True)
    assert report.rejected == {"no_part": 1, "malformed_row": 1}
    listed = [json.loads(line) for line in (tmp_path / "mix.quarantine.jsonl").open()]
    assert listed[0]["row_id"] == "sam/1"


OWN = """
name: mine
inputs:
  core: {file: core.json}
  vqa: {file: vqa.json}
parts:
  - {name: core, input: core, rows: 5, folder: vg}
  - {name: vqa, input: vqa}
"""


def test_a_mixture_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(OWN)
    (tmp_path / "core.json").write_text(json.dumps(part_rows("svit_core", 5)))
    (tmp_path / "vqa.json").write_text(json.dumps(part_rows("gqa", 7)))
    report = mix(read_mixture(tmp_path / "mine.yaml"), tmp_path / "out.json")
    assert report.parts == {"core": 5, "vqa": 7}
    assert parts_of(read(tmp_path / "out.json")) == {"svit_core": 5, "gqa": 7}
    (tmp_path / "vqa.json").write_text("[]")
    with pytest.raises(UserError, match="vqa has no row"):
        mix(read_mixture(tmp_path / "mine.yaml"), tmp_path / "out.json")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a: [", "not valid YAML"),
        ("7", "expected keys with values"),
        ("name: a\nparts: 3", "expected the keys name"),
        ("name: a\nweights: {}\nparts: []", "expected the keys name"),
        ("name: a\nparts: [{name: b, input: c}]", "there is no input 'c'"),
        ("name: a\nparts: [{name: b, count: 3}]", "unknown key 'count'; keys are name, input"),
        ("name: a\nparts: [{name: b, input: c, rows: many}]", "rows is 'many'"),
        ("name: a\nparts: [{name: b}]", "incomplete"),
        (OWN.replace("name: vqa, input", "name: core, input"), "the same name"),
    ],
)
def test_wrong_descriptions_are_explained(tmp_path: Path, text: str, complaint: str) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(UserError, match=complaint):
        read_mixture(tmp_path / "mine.yaml")


def test_the_packaged_description_looks_beside_the_user() -> None:
    mixture = read_mixture(SVIT_MIX_665K)
    assert mixture.files({}, None)["llava_mix"].name == "llava_v1_5_mix665k.json"
    assert str(mixture.home) == "."
    assert dataclasses.replace(mixture).folder_of("vg/VG_100K_2/1.jpg") == "vg/VG_100K_2"
    assert mixture.folder_of("own/a/b.jpg") == "own/a"
