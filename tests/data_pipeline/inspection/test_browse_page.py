"""The page: boxes placed by arithmetic, texts that stay texts, filters that filter."""

import base64
import hashlib
import io
import json
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from data_pipeline.common.errors import UserError
from data_pipeline.inspection import browse_page
from data_pipeline.inspection.browse_page import write_browse_page
from data_pipeline.inspection.browse_records import shown_record
from data_pipeline.records.source import open_records
from svit_jax.cli import main

HOSTILE = (
    "</script><script>alert(1)</script><img src=x onerror=alert(2)><!--<script>",
    "<!-- <b onmouseover='alert(3)'>bold</b> \u2028 &lt;i&gt; ${alert(4)} `\\u003c/script>",
)


class Elements(HTMLParser):
    """The start tags of a page, and the text of its elements by id."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.texts, self._id = [], [], {}, None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes.append(dict(attrs))
        self._id = dict(attrs).get("id")

    def handle_data(self, data):
        self.texts.setdefault(self._id, "")
        self.texts[self._id] += data


def written(made, **options):
    path = made.root / "browse.html"
    report = write_browse_page(made.shard(), path, **options)
    page = Elements(path.read_text())
    return report, page, json.loads(page.texts["data"])["records"]


def dialogue(row, dialogue_id):
    (found,) = [d for d in row["dialogues"] if d["id"] == dialogue_id]
    return found


def test_boxes_stand_on_the_picture_where_arithmetic_puts_them(made):
    source = open_records(made.shard())
    wide = shown_record(0, source[0])
    assert wide["sizes"] == [[80, 60]]
    # On a square of 80 with 10 rows above the picture: x 8..20, y 10..40, so 0..30 of its 60 rows;
    # and x 24..80, y 16..70, so 6..60.
    assert wide["boxes"] == [[0.1, 0.0, 0.15, 0.5], [0.3, 0.1, 0.7, 0.9]]
    assert dialogue(wide, "svit_referring_0")["turns"][1]["pieces"] == [
        "The clock ",
        {"box": 0, "text": "[0.1, 0.125, 0.25, 0.5]"},
        " hangs by the sign ",
        {"box": 1, "text": "[0.3, 0.2, 1.0, 0.875]"},
        ".",
    ]
    # 10 columns left of the picture: 10..70 of the square is all of its 60 columns.
    assert shown_record(1, source[1])["boxes"] == [[0.0, 0.0, 1.0, 1.0]]
    assert shown_record(3, source[3])["boxes"] == [], "text alone"


def test_what_cannot_be_drawn_stays_text(made):
    texts = "The [0.1, 0.0, 0.2, 0.1], [0.3, 0.3, 0.2, 0.5], [8, 15, 20, 40] and [1]."
    made.set_text("svit_referring_0", 1, texts)
    row = shown_record(0, open_records(made.shard())[0])
    assert row["boxes"] == [] and row["dialogues"][1]["turns"][1]["pieces"] == [texts]


def test_equal_boxes_are_one(made):
    twice = "[0.1, 0.125, 0.25, 0.5] and [0.100, 0.125, 0.25, 0.5]"
    made.set_text("svit_referring_0", 1, twice)
    row = shown_record(0, open_records(made.shard())[0])
    pieces = row["dialogues"][1]["turns"][1]["pieces"]
    assert row["boxes"] == [[0.1, 0.0, 0.15, 0.5]]
    assert [piece["box"] for piece in pieces if not isinstance(piece, str)] == [0, 0]


def test_hostile_texts_and_names_add_no_element(made):
    _, clean, _ = written(made)
    shutil.rmtree(made.root / "dataset")
    for turn, text in enumerate(HOSTILE):
        made.set_text("chat_4", turn, text)
    made.by_id("chat_4")["id"] = "<script>alert(5)</script>_1"
    hostile_name = "vg/<img src=x onerror=alert(6)>.jpg"
    (made.images / "coco/3.jpg").rename(made.images / hostile_name)
    made.by_id("vqa_3")["image"] = hostile_name
    _, page, rows = written(made)
    assert (page.tags, page.tags.count("script")) == (clean.tags, 2)
    shown = {turn["role"]: turn["pieces"] for turn in rows[3]["dialogues"][0]["turns"]}
    assert shown == {"human": [HOSTILE[0]], "gpt": [HOSTILE[1]]}, "they come through unchanged"
    assert rows[2]["images"] == [hostile_name]


def test_the_policy_lets_our_script_run_alone(made):
    _, page, _ = written(made)
    (policy,) = [
        one["content"]
        for one in page.attributes
        if one.get("http-equiv") == "Content-Security-Policy"
    ]
    digest = hashlib.sha256(Path(browse_page.__file__).with_name("browse.js").read_bytes()).digest()
    assert f"script-src 'sha256-{base64.b64encode(digest).decode()}'" in policy
    assert policy.startswith("default-src 'none'")
    script = page.texts[None]
    assert "innerHTML" not in script and "insertAdjacentHTML" not in script
    assert not any(one.get("src") or one.get("href") for one in page.attributes)


def test_a_sample_is_drawn_by_seed_and_pictures_are_scaled(made):
    report, _, rows = written(made, limit=2, seed=5, longest_side=40)
    assert (report.records, report.faults, len(rows)) == (2, 0, 2)
    assert report.bytes == (made.root / "browse.html").stat().st_size
    assert [row["index"] for row in written(made, limit=2, seed=5)[2]] == [r["index"] for r in rows]
    drawn = {tuple(row["index"] for row in written(made, limit=2, seed=n)[2]) for n in range(9)}
    assert len(drawn) > 1

    _, _, rows = written(made, longest_side=40)
    picture = Image.open(io.BytesIO(base64.b64decode(rows[0]["pictures"][0].partition(",")[2])))
    assert picture.size == (40, 30)
    assert rows[0]["sizes"] == [[80, 60]] and rows[3]["pictures"] == []


@pytest.mark.parametrize("wrong", [{"limit": 0}, {"longest_side": 0}])
def test_numbers_that_make_no_sense_are_errors(made, wrong):
    with pytest.raises(UserError, match="expected 1 or more"):
        written(made, **wrong)


def test_the_job_says_where_and_how_large(made, capsys):
    out = made.root / "b.html"
    assert main(["data", "browse", "--data", str(made.shard()), "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"4 records in {out} (0.0 MB)\n"


FILTERS = [
    ({}, ["a", "b", "c"]),
    ({"kind": "y"}, ["b", "c"]),
    ({"rounds": 2}, ["b"]),
    ({"boxes": True}, ["c"]),
    ({"text": "clock"}, ["a"]),
    ({"text": "box [0.1"}, ["c"]),
    ({"kind": "y", "text": "clock"}, []),
]


@pytest.mark.skipif(shutil.which("node") is None, reason="no Node.js to run the page's script")
def test_the_script_filters_and_finds(tmp_path):
    def one(name, kind, rounds, *pieces):
        turns = [{"role": "human", "pieces": list(pieces)}]
        return {"id": name, "kind": kind, "rounds": rounds, "turns": turns}

    dialogues = [
        one("a", "x", 1, "A Clock"),
        one("b", "y", 3, "bee"),
        one("c", "y", 1, "box ", {"box": 0, "text": "[0.1, 0.2, 0.3, 0.4]"}),
    ]
    filters = [{"text": "", "kind": "", "boxes": False, "rounds": 0} | f for f, _ in FILTERS]
    rows = [{"dialogues": [d]} for d in dialogues] + [{"fault": "torn"}]
    script = """
      const { matches, find, recordsInPage } = require(process.argv[1]);
      const [dialogues, filters, rows] = JSON.parse(process.argv[2]);
      const kept = filters.map((f) => dialogues.filter((d) => matches(d, f)).map((d) => d.id));
      const records = recordsInPage(rows);
      (async () => {
        const found = [];
        for (const [f, start, step] of [[1, 0, 1], [1, 1, -1], [1, 3, -1], [0, 3, 1], [4, 1, 1]]) {
          found.push(await find(records, filters[f], start, step));
        }
        console.log(JSON.stringify([kept, found]));
      })();
    """
    code = Path(browse_page.__file__).with_name("browse.js")
    given = json.dumps([dialogues, filters, rows])
    done = subprocess.run(
        ["node", "-e", script, str(code), given], capture_output=True, text=True, check=True
    )
    kept, found = json.loads(done.stdout)
    assert kept == [names for _, names in FILTERS]
    assert found == [1, 1, 2, 3, None]
