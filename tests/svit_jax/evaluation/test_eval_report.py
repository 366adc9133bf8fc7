"""The report of svit eval: the paper's table, breakdowns and intervals in three forms."""

import json
from html.parser import HTMLParser
from pathlib import Path

import pytest

from svit_jax.evaluation.compare import compare_with
from svit_jax.evaluation.eval_report import EvalReport, write_eval_report
from svit_jax.evaluation.markdown import markdown_table
from svit_jax.evaluation.registry import BENCHMARKS
from svit_jax.evaluation.run import scores
from svit_jax.evaluation.runner import run_benchmark
from svit_jax.evaluation.summary import BenchmarkRun


class Cells(HTMLParser):
    """The rows of all tables, as lists of texts."""

    def __init__(self, text: str):
        super().__init__()
        self.rows: list[list[str]] = []
        self._inside = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        if tag == "tr":
            self.rows.append([])
        self._inside = tag in ("td", "th")
        if self._inside:
            self.rows[-1].append("")

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.rows[-1][-1] += data

    def handle_endtag(self, tag: str) -> None:
        self._inside = False


def run(name: str, benchmarks: Path, images: Path, said: str | None = None) -> BenchmarkRun:
    benchmark = BENCHMARKS[name]
    questions = benchmark.read(benchmarks / name, images)
    answers = {q.question_id: said or benchmark.expected(q) for q in questions}
    return BenchmarkRun(benchmark, questions, answers)


@pytest.fixture
def report(benchmarks: Path, images: Path, tmp_path: Path) -> Path:
    runs = {name: run(name, benchmarks, images) for name in ("gqa", "mme", "pope", "mmmu")}
    runs["pope"] = run("pope", benchmarks, images, "yes")
    test = run("vizwiz", benchmarks, images)
    hidden = [BENCHMARKS["vizwiz"].read(benchmarks / "vizwiz", images)[0]]
    object.__setattr__(hidden[0], "truth", None)
    runs["vizwiz"] = BenchmarkRun(test.benchmark, hidden, {hidden[0].question_id: "x"})
    other = tmp_path / "other"
    pope = runs["pope"]
    truths = [pope.benchmark.expected(q) for q in pope.questions]
    run_benchmark(pope.benchmark, pope.questions, lambda _: iter(truths), other, "other")
    written = EvalReport(
        checkpoint="run/checkpoints/7",
        data="benchmarks",
        runs=runs,
        strict=scores(runs, strict=True),
        compared=compare_with(other, runs),
        notes=["At most 4 questions."],
    )
    write_eval_report(tmp_path / "out", written)
    return tmp_path / "out"


def test_this_run_stands_beside_the_published_models(report: Path) -> None:
    html = (report / "report.html").read_text()
    rows = {row[0]: row for row in Cells(html).rows}
    markdown = {
        cells[1]: cells[1:-1]
        for line in (report / "report.md").read_text().splitlines()
        if line.startswith("|") and (cells := [cell.strip() for cell in line.split("|")])
    }
    # "yes" to all of yes, no, yes, no: precision 1/2, recall 1, so F1 is 2/3.
    assert rows["POPE"][1] == markdown["POPE"][1] == "66.7"
    assert rows["MME-C"][1:5] == ["200.0", "200.0 to 200.0", "364.3", "323.2"]
    assert rows["MMMU-test"][1] == "\u2013" and rows["MMMU-test"][3] == "34.1"
    assert rows["MMMU-val"][1] == "100.0" and rows["MMMU-val"][3] == "38.0"
    assert rows["VizWiz"][1] == "\u2013" and rows["VizWiz-val"][1] == "\u2013"
    assert rows["Art Theory"][1] == "100.0"
    assert rows["pope f1"][3] == markdown["pope f1"][3] == "-33.33"
    assert markdown["POPE"] == rows["POPE"]


def test_the_json_holds_what_the_pages_show(report: Path) -> None:
    content = json.loads((report / "report.json").read_text())
    pope = content["benchmarks"]["pope"]
    assert pope["scores"]["f1"] == pytest.approx(200 / 3)
    # All four questions are about one picture: there is nothing to draw.
    assert pope["intervals"]["f1"] == pytest.approx([200 / 3, 200 / 3])
    assert pope["strict"]["f1"] == pytest.approx(200 / 3) and len(pope["quirks"]) == 2
    assert content["benchmarks"]["vizwiz"]["scores"] == {}
    (compared,) = content["compared"]
    assert compared["first"] == 100.0 and compared["only_first"] == 2
    text = (report / "report.md").read_text()
    assert "1 questions without public answers: see vizwiz.upload/." in text
    assert "At most 4 questions." in text
    assert (report / "report.html").read_text().count("<img") > 4


def test_a_cell_with_a_bar_stays_one_cell() -> None:
    text = markdown_table(["a", "b"], [["x | y", "1"]])
    assert text.splitlines()[2].split(" | ")[-1] == "1 |"
    assert "x \\| y" in text


class Parrot:
    """What `load` gives, but for the model: says one word to every question."""

    checkpoint = "run/checkpoints/1"

    def __init__(self, word: str):
        self.word = word

    def answerer(self, max_new_tokens: int):
        return lambda asked: (self.word for _ in asked)

    def identity(self, max_new_tokens: int) -> str:
        return self.word


def test_svit_eval_runs_several_benchmarks_and_reports_them(
    benchmarks: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import svit_jax.api
    from svit_jax.cli import main

    for word in ("no", "yes"):
        monkeypatch.setattr(svit_jax.api, "load", lambda *_, said=word, **__: Parrot(said))
        arguments = ["eval", "--checkpoint", "run", "--benchmark", "mme", "pope", "--strict"]
        arguments += ["--data", str(benchmarks), "--images", str(images)]
        arguments += ["--out", str(tmp_path / word), "--limit", "4"]
        arguments += ["--against", str(tmp_path / "no")] if word == "yes" else []
        assert main(arguments) == 0
    content = json.loads((tmp_path / "yes" / "report.json").read_text())
    assert content["notes"] == ["At most 4 questions of each benchmark were asked (--limit)."]
    assert content["benchmarks"]["mme"]["questions"] == 4
    assert content["benchmarks"]["pope"]["strict"]["accuracy"] == 50.0
    by_figure = {row["figure"]: row for row in content["compared"]}
    # "no" to all has no true yes and F1 0; "yes" to all has 2/3.
    assert by_figure["f1"]["difference"] == pytest.approx(200 / 3)
    assert by_figure["f1"]["only_first"] == by_figure["f1"]["only_second"] == 2
