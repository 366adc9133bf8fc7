"""Figures of a small dataset against what was counted by hand, and summaries against NumPy."""

import json
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.common.errors import UserError
from data_pipeline.inspection.dialogues import kind_of
from data_pipeline.inspection.reading import Reading
from data_pipeline.inspection.statistics import Kind, dataset_statistics, summarise
from data_pipeline.text.templates import PLAIN, V1
from svit_jax.cli import main


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=60))
def test_a_summary_is_numpys(values):
    found = summarise(Counter(values))
    assert found.mean == pytest.approx(np.mean(values))
    assert found.median == np.quantile(values, 0.5, method="inverted_cdf")
    assert found.p95 == np.quantile(values, 0.95, method="inverted_cdf")
    assert (found.count, found.least, found.largest) == (len(values), min(values), max(values))
    assert summarise(Counter()) is None


@pytest.mark.parametrize(
    ("dialogue_id", "kind"),
    [
        ("svit_referring_12", "svit_referring"),
        ("caption_5_0", "caption"),
        ("identity-3", "identity"),
        ("000000033471", "other"),
        ("wNBG8Gp", "other"),
        ("", "other"),
    ],
)
def test_the_kind_is_the_stem_of_the_id(dialogue_id, kind):
    assert kind_of(dialogue_id) == kind


@pytest.mark.parametrize("form", ["json", "shards"])
def test_figures_are_those_counted_by_hand(made, form):
    if form == "json":
        found = dataset_statistics([made.llava], made.images)
    else:
        found = dataset_statistics(data_folder=made.shard())
    assert (found.dialogues, found.pictures, found.text_only, found.skipped_rows) == (5, 3, 1, 0)
    # "What is it?" 3, "Why?" 1; 10; "Where?" 1; "Is it red? [1] Say so." 6, "Is it blue?" 3;
    # "What is 2 + 2?" 5.
    assert found.question_words.counts == {1: 2, 3: 2, 5: 1, 6: 1, 10: 1}
    # "A clock." 2, "Time." 1; 14; 5; "Yes" 1, "No" 1; 8.
    assert found.answer_words.counts == {1: 3, 2: 1, 5: 1, 8: 1, 14: 1}
    assert found.rounds.counts == {1: 3, 2: 2}
    assert found.dialogues_a_picture.counts == {1: 2, 2: 1}
    assert found.tokens is None and found.masked_share is None
    assert found.first_words == {"what": 2, "where": 2, "is": 2, "why": 1}
    assert found.first_three_words == {
        "is it blue": 1,
        "is it red": 1,
        "what is 2": 1,
        "what is it": 1,
        "where": 1,
        "where is the": 1,
        "why": 1,
    }
    assert found.yes_no == {"yes": 1, "no": 1}
    assert found.kinds["svit_referring"] == Kind(2, 2, (10 + 1) / 2, (14 + 5) / 2)
    assert found.kinds["vqa"].rounds == 2
    assert list(found.kinds) == ["svit_referring", "chat", "svit_conversation", "vqa"]


def test_boxes_and_pictures_are_measured(made):
    found = dataset_statistics([made.llava], made.images)
    assert found.boxes == 3 and found.boxes_a_turn.counts == {1: 1, 2: 1}
    boxes = [(0.1, 0.125, 0.25, 0.5), (0.3, 0.2, 1.0, 0.875), (0.125, 0.0, 0.875, 1.0)]
    sizes = Counter()
    centres = np.zeros((16, 16), int)
    for x1, y1, x2, y2 in boxes:
        sizes[math.floor(20 * ((x2 - x1) * (y2 - y1)) ** 0.5)] += 1
        centres[math.floor(16 * (y1 + y2) / 2), math.floor(16 * (x1 + x2) / 2)] += 1
    assert found.box_sizes == dict(sorted(sizes.items()))
    assert found.box_centres == centres.tolist()
    assert found.picture_sizes == {"50x50": 1, "60x80": 1, "80x60": 1}
    assert found.longer_sides.counts == {50: 1, 80: 2}
    assert found.aspect_ratios == {7: 1, 10: 1, 13: 1}, "0.75, 1 and 1.333"
    assert dataset_statistics([made.llava]).longer_sides is None


def test_tokens_are_counted_where_a_tokenizer_is_given(made, tokenizer):
    made.rows = [made.by_id("chat_4")]
    answer = made.rows[0]["conversations"][1]["value"]
    total = 2 + len(tokenizer.encode(f"{V1.system} USER: What is 2 + 2? ASSISTANT: {answer}"))
    masked = 1 + len(tokenizer.encode(f"{V1.system} USER: What is 2 + 2? ASSISTANT:"))
    found = dataset_statistics([made.llava], reading=Reading(tokenizer, V1, 4, 4096))
    assert found.tokens.counts == {total: 1}
    assert found.masked_share == pytest.approx(masked / total)
    assert found.unwritable == 0
    captions = dataset_statistics([made.llava], reading=Reading(tokenizer, PLAIN, 4, 4096))
    assert (captions.unwritable, captions.tokens, captions.masked_share) == (1, None, None)


def test_rare_kinds_are_gathered(made):
    made.rows = [
        made.row(f"kind{chr(97 + n)}_{i}", None, "Q?", "A.") for n in range(25) for i in (0, 1)
    ]
    found = dataset_statistics([made.llava])
    assert len(found.kinds) == 21 and found.kinds["other"].dialogues == 10
    assert sum(kind.dialogues for kind in found.kinds.values()) == 50


def test_unusable_rows_are_counted_and_nothing_left_is_an_error(made):
    made.rows[0]["conversations"][0]["from"] = "user"
    assert dataset_statistics([made.llava]).skipped_rows == 1
    made.rows = made.rows[:1]
    with pytest.raises(UserError, match="no dialogue"):
        dataset_statistics([made.llava])
    with pytest.raises(UserError, match="either"):
        dataset_statistics()


def test_the_job_draws_a_page_that_needs_nothing_else(made, capsys, tmp_path):
    made.set_text("chat_4", 0, "<script>alert(1)</script> what is it?")
    page = tmp_path / "stats.html"
    command = ["data", "stats", "--llava", str(made.llava), "--images", str(made.images)]
    assert main([*command, "--out", str(page), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["question_words"]["count"] == 7
    text = page.read_text()
    for title in ("Words in a question", "First three words", "Size of a box", "Aspect ratio"):
        assert title in text
    assert "<script" not in text and "http" not in text.replace("http-equiv", "")
    assert main(command) == 0
    assert capsys.readouterr().out.startswith("5 dialogues about 3 pictures; 1 of them text alone")
