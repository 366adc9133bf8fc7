"""The pooled summary by hand count, the gallery's mix, and a report that stands alone."""

import dataclasses
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from data_pipeline.common.boxes import NormalBox
from data_pipeline.common.errors import BadRecordError
from svit_jax.evaluation.gallery import (
    GalleryItem,
    ReferringItem,
    choose_gallery,
    choose_referring,
)
from svit_jax.evaluation.published import COLUMNS, PUBLISHED, official_figures
from svit_jax.evaluation.registry import BENCHMARKS
from svit_jax.evaluation.report import (
    RunReport,
    StageReport,
    TrainingCurve,
    render_report,
    write_report,
)
from svit_jax.evaluation.summary import BenchmarkRun, summarise

NAMES = ("vqav2", "gqa", "mme", "pope")


@pytest.fixture
def runs(benchmarks: Path, images: Path) -> list[BenchmarkRun]:
    """Right with the picture except for g1; "yes" to everything without it."""
    made = []
    for name in NAMES:
        benchmark = BENCHMARKS[name]
        questions = benchmark.read(benchmarks / name, images)
        answers = {q.question_id: benchmark.expected(q) for q in questions}
        if name == "gqa":
            answers["g1"] = "green"
        blind = {q.question_id: "yes" for q in questions}
        made.append(BenchmarkRun(benchmark, questions, answers, blind))
    return made


@pytest.fixture
def referring(benchmarks: Path, images: Path) -> BenchmarkRun:
    benchmark = BENCHMARKS["referring"]
    questions = benchmark.read(benchmarks / "referring", images)
    return BenchmarkRun(benchmark, questions, {"r1": "[0.1, 0.2, 0.5, 0.6]", "r2": "no idea"})


def test_the_summary_pools_all_questions(runs: list[BenchmarkRun], referring: BenchmarkRun) -> None:
    summary = summarise(runs, referring)
    # 2 vqav2 + 2 gqa + 8 mme + 4 pope; "yes" is right for 1 + 0 + 4 + 2 of them.
    assert summary["questions"] == 16
    assert summary["with_image"] == pytest.approx(15 / 16, abs=1e-4)
    assert summary["blind"] == pytest.approx(7 / 16, abs=1e-4)
    assert summary["open_share"] == pytest.approx(2 / 16, abs=1e-4)
    assert summary["by_benchmark"]["gqa"] == {"with_image": 0.5, "blind": 0.0, "questions": 2}
    assert summary["by_kind"]["count"] == {"with_image": 1.0, "blind": 0.5, "questions": 4}
    assert sum(kind["questions"] for kind in summary["by_kind"].values()) == 16
    assert summary["novel_combinations"] == {"with_image": 1.0, "blind": 0.0, "questions": 1}
    assert summary["referring_iou_50"] == 0.5


def test_a_missing_blind_run_leaves_blind_empty(runs: list[BenchmarkRun]) -> None:
    summary = summarise([dataclasses.replace(runs[0], blind=None), *runs[1:]])
    assert summary["blind"] is None
    assert summary["by_benchmark"]["pope"]["blind"] == 0.5
    assert summary["referring_iou_50"] is None


def test_published_rows_have_known_columns() -> None:
    assert all(set(row.figures) <= set(COLUMNS) for row in PUBLISHED)
    svit = {row.model: row.figures for row in PUBLISHED}
    assert svit["SVIT-v1.5-13B Full"]["MME-P"] == 1565.8
    assert "POPE" not in svit["SVIT-v1.5-13B LoRA"]
    scores = {"mme": {"perception": 300.0}, "pope": {"f1": 80.0, "accuracy": 70.0}}
    assert official_figures(scores) == {"MME-P": 300.0, "POPE": 80.0}
    scores = {
        "scienceqa": {"image_accuracy": 70.0, "accuracy": 72.0},
        "seedbench": {"accuracy": 60.0, "image": 66.0, "video": 37.0},
        "mmbench": {"accuracy": 50.0, "by_row": 70.0},
        "mmbench_cn": {"accuracy": 40.0, "by_row": 65.0},
    }
    assert official_figures(scores) == {
        "SQA-I": 70.0,
        "SEED": 60.0,
        "SEED-image": 66.0,
        "MMB": 50.0,
        "MMB-CN": 40.0,
    }
    # What is scored here of these three is another split than the published one.
    local = {name: {"accuracy": 50.0} for name in ("vqav2", "vizwiz", "mmmu")}
    assert official_figures(local) == dict.fromkeys(("VQAv2-val", "VizWiz-val", "MMMU-val"), 50.0)


def test_published_rows_differ_as_written_down_apart_from_them() -> None:
    """A typing error in a figure of the full schedules shows in a difference."""
    rows = {row.model: row.figures for row in PUBLISHED}
    ours, theirs = rows["SVIT-v1.5-13B Full"], rows["LLaVA-v1.5-13B Full"]
    shared = ("VQAv2", "GQA", "SQA-I", "MME-P", "MMB", "MMB-CN", "SEED")
    ahead = {column: round(ours[column] - theirs[column], 1) for column in shared}
    assert ahead == {
        "VQAv2": 0.3,
        "GQA": 0.8,
        "SQA-I": -1.6,
        "MME-P": 34.5,
        "MMB": 1.4,
        "MMB-CN": -0.5,
        "SEED": 0.3,
    }


def test_the_gallery_mixes_kinds_and_shows_the_wrong_answer(runs: list[BenchmarkRun]) -> None:
    chosen = choose_gallery(runs, count=10)
    assert len(chosen) == 10
    kinds = {q.kind for run in runs for q in run.questions}
    assert {item.kind for item in chosen} == kinds
    assert [item.correct for item in chosen].count(False) == 1
    assert chosen == choose_gallery(runs, count=10)
    assert len(choose_gallery(runs, count=99)) == 16
    assert choose_gallery([], count=3) == []


class Page(HTMLParser):
    """Collects what the page refers to, and checks that its elements nest."""

    def __init__(self, text: str):
        super().__init__()
        self.stack: list[str] = []
        self.targets: list[str] = []
        self.pictures_without_alt = 0
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in ("meta", "img", "br", "hr", "link", "input", "col"):
            self.stack.append(tag)
        given = dict(attrs)
        self.targets += [value or "" for key, value in attrs if key in ("src", "href")]
        if tag == "img" and not given.get("alt"):
            self.pictures_without_alt += 1

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag


def small_report(runs: list[BenchmarkRun], referring: BenchmarkRun) -> RunReport:
    return RunReport(
        title="A <run> & its report",
        data_name="a toy world",
        heldout=summarise(runs, referring),
        stages=[StageReport("train", 90.0, 2**30), StageReport("evaluate", 30)],
        curves=[TrainingCurve("Stage 1", [(0, 5.0, None), (10, 2.5, 0.5)])],
        scores={
            run.benchmark.name: run.benchmark.score(run.questions, run.answers) for run in runs
        },
        gallery=choose_gallery(runs),
        referring=choose_referring(referring),
        versions={"jax": "0.10.2"},
        settings={"seed": "0"},
    )


def test_the_report_stands_alone(
    runs: list[BenchmarkRun], referring: BenchmarkRun, tmp_path: Path
) -> None:
    write_report(tmp_path / "report.html", small_report(runs, referring))
    text = (tmp_path / "report.html").read_text()
    parsed = Page(text)
    assert parsed.stack == []
    assert parsed.targets and all(target.startswith("data:image/") for target in parsed.targets)
    assert parsed.pictures_without_alt == 0
    assert "script" not in parsed.tags
    assert not re.search(r"https?://|@import|url\(", text)
    assert "<title>A &lt;run&gt; &amp; its report</title>" in text
    assert "16 questions" in text and "93.8\u202f%" in text and "43.8\u202f%" in text
    assert "The whole run took 2.0 minutes." in text
    assert "Not comparable." in text and "1565.8" in text
    assert "1.00 GiB" in text and "0.10.2" in text


def test_a_report_of_figures_alone_is_whole(runs: list[BenchmarkRun]) -> None:
    bare = RunReport("Bare", "a toy world", summarise(runs))
    text = render_report(bare)
    assert Page(text).stack == []
    assert "Referring answers" not in text and "Training" not in text


def test_boxes_are_drawn_on_the_padded_square(tmp_path: Path) -> None:
    Image.new("RGB", (100, 50)).save(tmp_path / "wide.png")
    item = ReferringItem(
        tmp_path / "wide.png",
        "Where?",
        "[0.0, 0.25, 0.5, 0.75]",
        (NormalBox(0.0, 0.25, 0.5, 0.75),),
        (NormalBox(0.5, 0.25, 1.0, 0.75),),
        0.0,
    )
    heldout = {"with_image": 0.5, "blind": 0.2, "questions": 2}
    text = render_report(RunReport("Boxes", "a toy world", heldout, referring=[item]))
    assert 'viewBox="0 0 100 100"' in text
    assert re.search(r'<image [^>]*x="0" y="25" width="100" height="50"', text)
    predicted = 'class="box predicted" x="0.0" y="25.0" width="50.0" height="50.0"'
    true = 'class="box true" x="50.0" y="25.0" width="50.0" height="50.0"'
    assert predicted in text and true in text


def test_a_missing_picture_is_named(tmp_path: Path) -> None:
    item = GalleryItem(tmp_path / "gone.jpg", "What?", "a", "b", False, "kind", "gqa")
    heldout = {"with_image": 0.5, "blind": 0.2, "questions": 2}
    with pytest.raises(BadRecordError, match=r"gone\.jpg"):
        render_report(RunReport("Gone", "a toy world", heldout, gallery=[item]))
