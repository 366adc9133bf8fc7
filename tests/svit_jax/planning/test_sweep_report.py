"""A sweep's page, on closed-form plans: every plan is there once, in tables and in plots."""

import dataclasses
from html.parser import HTMLParser

import pytest
from stand_in_planner import GIB, StandIn

from svit_jax.planning.sweep.grid import Outcome, Space
from svit_jax.planning.sweep.report import sweep_page
from svit_jax.planning.sweep.report_charts import pareto
from svit_jax.planning.sweep.table import Sweep

SPACE = Space(
    batch_sizes={"full.py": 32, "lora.py": 32},
    accumulates={"full.py": 1, "lora.py": 1},
    devices={"toy:8": 8, "toy:16": 16, "toy:32": 32},
    rows=(1, 2, 4),
    remats=("dots", "full"),
    axes={"replica": (1,), "sequence": (1,), "tensor": (1, 2, 4)},
    grow=True,
)
REFUSAL = "7 heads <b> & 2 devices"


def sweep(space: Space = SPACE, planner=None) -> Sweep:
    """Without `tensor=4`, which the trainer refuses; `dots` with four rows the compiler refuses."""
    outcomes = []
    for candidate in space.candidates():
        if candidate.sizes["tensor"] == 4:
            outcomes.append(Outcome(candidate, reason=REFUSAL, skipped=True))
        elif (candidate.rows, candidate.remat) == (4, "dots"):
            outcomes.append(Outcome(candidate, reason="needs 40G of 16G"))
        else:
            outcomes.append(Outcome(candidate, (planner or StandIn(capacity=30))(candidate).plan))
    return Sweep.of(outcomes, "svit plan --sweep 'a b'", compiles=9, known=3)


class Page(HTMLParser):
    """Headings with what follows them: cells by row, titles of points, texts."""

    def __init__(self, text: str):
        super().__init__()
        self.sections: dict[str, dict[str, list]] = {}
        self._now = self.sections.setdefault("", {"rows": [], "dots": [], "texts": []})
        self._tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self._tags.append(tag)
        if tag == "tr":
            self._now["rows"].append([])
        if tag in ("td", "th"):
            self._now["rows"][-1].append("")
        if tag == "circle":
            self._now["dots"].append([dict(attributes)["class"], ""])

    def handle_endtag(self, tag):
        while self._tags and self._tags.pop() != tag:
            pass

    def handle_data(self, data):
        if self._tags and self._tags[-1] == "h2":
            self._now = self.sections.setdefault(data, {"rows": [], "dots": [], "texts": []})
        elif self._tags and self._tags[-1] in ("td", "th"):
            self._now["rows"][-1][-1] += data
        elif self._tags[-2:] == ["circle", "title"]:
            self._now["dots"][-1][1] += data
        self._now["texts"].append(data)


@pytest.fixture(scope="module")
def page() -> dict[str, dict[str, list]]:
    return Page(sweep_page(sweep())).sections


def test_every_plan_is_ranked_and_drawn(page):
    """3 topologies x 2 configs x 2 sizes of tensor x (3 + 2) rows and policies are planned."""
    plans = 3 * 2 * 2 * 5
    rows = page["All plans, ranked"]["rows"][1:]
    assert [row[0] for row in rows] == [str(rank) for rank in range(1, plans + 1)]
    assert len(page["Memory against speed"]["dots"]) == plans
    too_large = sum("too much" in row[7] for row in rows)
    hollow = [kind for kind, _ in page["Memory against speed"]["dots"] if "hollow" in kind]
    assert 0 < too_large == len(hollow) < plans


def test_memory_against_rows_with_the_capacity(page):
    """StandIn's closed form: on 8 devices (200 / 8 + rows * 12 * 0.04 + 0.5) GiB with `full`."""
    said = [text for _, text in page["Memory against batch"]["dots"]]
    for rows in (1, 2, 4):
        many = "1 row" if rows == 1 else f"{rows} rows"
        memory = f"{25 + rows * 12 * 0.04 + 0.5:.2f} GiB"
        assert any(f"fsdp 8, {many} a device, full: {memory}" in text for text in said)
    assert "a device has 30.00 GiB" in page["Memory against batch"]["texts"]


def test_time_against_mesh_and_scaling(page):
    meshes = page["Time against mesh"]["texts"]
    assert all(name in meshes for name in ("fsdp 32", "fsdp 16, tensor 2", "interconnect"))
    dots = page["Scaling"]["dots"]
    assert len(dots) == 2 * 2 * 3, "throughput and hours, full and LoRA, three numbers of devices"


def test_marks_reasons_and_the_command(page):
    ranked = page["All plans, ranked"]
    marked = [row for row in ranked["rows"][1:] if row[6].endswith("*")]
    paper = [row for row in ranked["rows"][1:] if row[6] == "132"]
    assert len(marked) + len(paper) == len(ranked["rows"]) - 1 and marked and paper
    assert any("33 dialogues a step, not 128" in text for text in ranked["texts"])
    skipped = 3 * 2 * 3 * 2
    assert page["Without a plan"]["rows"][1:] == [
        [str(3 * 2 * 2), "the compiler", "needs 40G of 16G"],
        [str(skipped), "the trainer", REFUSAL],
    ]
    assert "svit plan --sweep 'a b'" in page["To repeat it"]["texts"]


def test_the_best_of_each_topology_comes_with_its_command(page):
    best = page["The fastest that fits"]
    assert len(best["rows"]) - 1 == 3 * 2
    (command,) = (
        t for t in best["texts"] if t.startswith("svit plan --config lora.py --topology toy:8 ")
    )
    assert "--mesh.fsdp=" in command and "--data.batch_size=" in command


def test_the_front_is_what_nothing_beats():
    """Against a comparison of every pair."""
    plans = [each.plan for each in sweep().planned if each.candidate.topology == "toy:16"]
    fitting = [plan for plan in plans if plan.memory.total <= 30 * GIB]

    def beaten(plan) -> bool:
        mine = plan.memory.total, -plan.estimate.tokens_per_second
        others = [(p.memory.total, -p.estimate.tokens_per_second) for p in fitting]
        return any(o != mine and o[0] <= mine[0] and o[1] <= mine[1] for o in others)

    expected = {(p.memory.total, p.estimate.seconds) for p in fitting if not beaten(p)}
    front = pareto(plans)
    assert {(p.memory.total, p.estimate.seconds) for p in front} == expected
    assert [p.memory.total for p in front] == sorted(p.memory.total for p in front)


def test_small_and_empty_sweeps_have_pages():
    one = dataclasses.replace(
        SPACE, rows=(1,), remats=("full",), axes={"tensor": (1,), "fsdp": (8,)}
    )
    small = Page(sweep_page(sweep(dataclasses.replace(one, devices={"toy:8": 8})))).sections
    assert len(small["Memory against batch"]["dots"]) == 2 and "Scaling" not in small
    nothing = Page(sweep_page(sweep(planner=StandIn(capacity=1)))).sections
    assert "The fastest that fits" not in nothing and "Time against mesh" not in nothing
    assert all("hollow" in kind for kind, _ in nothing["Memory against speed"]["dots"])
    assert "0 candidates" in sweep_page(Sweep.of([], "svit plan", 0, 0))


def test_the_page_needs_no_other_file():
    text = sweep_page(sweep())
    assert not any(word in text for word in ("http:", "https:", "<script", "src=", "@import"))
