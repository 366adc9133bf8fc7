"""Each flaw of instructions, put into a clean dataset, is found once and nothing else is."""

import pytest

from data_pipeline.common.errors import UserError
from data_pipeline.inspection.check import check_dataset
from data_pipeline.inspection.findings import DEFECTS
from data_pipeline.inspection.reading import Reading
from data_pipeline.text.templates import PLAIN, V1


def counts(report):
    return {name: found.count for name, found in report.found.items()}


def referring(answer):
    """A flaw in the answer about the wide picture."""
    return lambda made: made.set_text("svit_referring_0", 1, answer)


def question(row_id, text):
    return lambda made: made.set_text(row_id, 0, text)


def turns(row_id, change):
    return lambda made: change(made.by_id(row_id)["conversations"])


def field(row_id, **values):
    return lambda made: made.by_id(row_id).update(values)


def file(name, data):
    return lambda made: (made.images / name).write_bytes(data)


def repeat(row_id, new_id):
    return lambda made: made.rows.append({**made.by_id(row_id), "id": new_id})


def same_id(made):
    made.by_id("svit_referring_1")["id"] = "svit_referring_0"


def cut_off(made):
    path = made.images / "vg/2.jpg"
    path.write_bytes(path.read_bytes()[:-60])


FLAWS = [
    ("bad_row", turns("svit_conversation_0", lambda t: t[1].update({"from": "assistant"}))),
    ("bad_row", turns("svit_conversation_0", lambda t: t[1].update({"from": "human"}))),
    ("bad_row", turns("svit_conversation_0", lambda t: t[1].update(value=3))),
    ("bad_row", turns("svit_conversation_0", lambda t: t.clear())),
    ("bad_row", turns("chat_4", lambda t: t.pop())),
    ("bad_row", field("vqa_3", id=None)),
    ("bad_row", field("vqa_3", image="../3.jpg")),
    ("bad_row", lambda made: made.rows.append("not a row")),
    ("image_marker", question("svit_conversation_0", "What is it?")),
    ("image_marker", question("svit_conversation_0", "<image><image>\nWhat is it?")),
    ("image_marker", turns("vqa_3", lambda t: t[2].update(value="<image>\nIs it blue?"))),
    ("missing_picture", lambda made: (made.images / "vg/2.jpg").unlink()),
    ("broken_picture", file("vg/2.jpg", b"")),
    ("broken_picture", cut_off),
    ("malformed_box", referring("The clock [0.1, 0.2, 0.25].")),
    ("malformed_box", referring("The clock [0.1 0.2 0.25 0.5].")),
    ("malformed_box", referring("The clock [0.1, 0.2, 0.25, 0.5, 0.6].")),
    ("malformed_box", referring("The clock [0.1, 0.2, 0.25, 0.5")),
    ("malformed_box", referring("The clock [0.1, 0.2..5, 0.25, 0.5].")),
    ("box_out_of_range", referring("The clock [0.1, 0.2, 1.25, 0.5].")),
    ("box_out_of_range", referring("The clock [-0.1, 0.2, 0.25, 0.5].")),
    ("box_out_of_range", referring("The clock [8, 15, 20, 40].")),
    ("box_without_area", referring("The clock [0.3, 0.2, 0.25, 0.5].")),
    ("box_without_area", referring("The clock [0.1, 0.5, 0.25, 0.5].")),
    # 80x60 pixels: (80 - 60) // 2 = 10 rows of padding, 10 / 80 = 0.125.
    ("box_in_padding", referring("The clock [0.1, 0.0, 0.25, 0.125].")),
    ("box_in_padding", referring("The clock [0.1, 0.9, 0.25, 0.95].")),
    ("box_reaches_padding", referring("The clock [0.1, 0.1, 0.25, 0.5].")),
    ("box_reaches_padding", referring("The clock [0.1, 0.2, 0.25, 0.9].")),
    ("box_tags", referring("The <st>clock<ed> [0.1, 0.2, 0.25, 0.5].")),
    ("empty_answer", turns("vqa_3", lambda t: t[3].update(value=" "))),
    ("empty_question", question("vqa_3", "<image>\n")),
    ("unanswered_question", turns("vqa_3", lambda t: t.pop())),
    ("opening_by_gpt", turns("chat_4", lambda t: t.insert(0, {"from": "gpt", "value": "Hi."}))),
    ("role_in_text", referring("So ASSISTANT: said.")),
    ("special_token_in_text", referring("The end.</s>")),
    ("marker_in_text", referring("The <image> shows it.")),
    ("marker_in_text", question("chat_4", "<image>\nWhat?")),
    ("duplicate_text", repeat("svit_referring_0", "svit_referring_0")),
    ("duplicate_text", repeat("svit_referring_0", "other_1")),
    ("duplicate_text", repeat("chat_4", "other_1")),
    ("duplicate_id", same_id),
]


def test_a_clean_dataset_has_no_findings(made):
    report = check_dataset([made.llava], made.images, strict=True)
    assert counts(report) == {} and report.passed
    assert report.counts == {
        "rows": 5,
        "dialogues": 5,
        "boxes": 3,
        "pictures": 3,
        "pictures_decoded": 3,
    }


@pytest.mark.parametrize(("name", "spoil"), FLAWS)
def test_a_flaw_is_found_once(made, name, spoil):
    spoil(made)
    report = check_dataset([made.llava], made.images)
    assert counts(report) == {name: 1}
    severity = DEFECTS[name].severity
    assert (report.errors, report.warnings) == ((1, 0) if severity == "error" else (0, 1))
    assert report.passed == (severity == "warning")
    assert not check_dataset([made.llava], made.images, strict=True).passed
    ((where, detail),) = report.found[name].examples
    assert where and detail


def test_examples_name_the_row_and_what_stands_there(made):
    made.set_text("svit_referring_0", 1, "The clock [0.1, 0.0, 0.25, 0.125].")
    report = check_dataset([made.llava], made.images)
    assert report.found["box_in_padding"].examples == (
        ("rows.json: svit_referring_0", "turn 2: [0.1, 0.0, 0.25, 0.125] of a 80x60 picture"),
    )


def test_boxes_of_the_raw_format_are_seen_in_the_padding(made):
    """A box along the upper edge, in fractions of the picture: 0.0 to 0.1 of 60 rows."""
    made.set_text("svit_referring_0", 1, "The sign [0.1, 0.0, 0.25, 0.1].")
    assert counts(check_dataset([made.llava], made.images)) == {"box_in_padding": 1}
    assert counts(check_dataset([made.llava])) == {}, "not without the picture's size"


def test_a_box_may_lie_a_pixel_outside_its_picture(made):
    """A pixel of 80 and 0.001: 0.0135 above 0.125."""
    made.set_text("svit_referring_0", 1, "The sign [0.1, 0.112, 0.25, 0.5].")
    assert counts(check_dataset([made.llava], made.images)) == {}
    made.set_text("svit_referring_0", 1, "The sign [0.1, 0.111, 0.25, 0.5].")
    assert counts(check_dataset([made.llava], made.images)) == {"box_reaches_padding": 1}


def test_held_out_pictures_are_found_by_their_file_name(made, tmp_path):
    ids = tmp_path / "ids.txt"
    ids.write_text("1\n77\n")
    report = check_dataset([made.llava], made.images, exclude_ids=ids)
    assert counts(report) == {"held_out": 1}, "once, though two dialogues are about it"
    assert report.found["held_out"].examples[0][0] == "vg/1.jpg"
    ids.write_text("77\n31\n")
    assert counts(check_dataset([made.llava], made.images, exclude_ids=ids)) == {}
    ids.write_text("")
    with pytest.raises(UserError, match="empty"):
        check_dataset([made.llava], exclude_ids=ids)


def test_a_sample_decodes_so_many_pictures(made):
    cut_off(made)
    decoded = [check_dataset([made.llava], made.images, sample=2, seed=n) for n in range(12)]
    assert {report.counts["pictures_decoded"] for report in decoded} == {2}
    assert {counts(report).get("broken_picture", 0) for report in decoded} == {0, 1}
    assert counts(check_dataset([made.llava], made.images, sample=0)) == {}


def test_every_finding_stands_in_the_report_file_and_a_few_in_the_result(made, tmp_path):
    for number in range(5):
        made.rows.append({**made.by_id("chat_4"), "id": f"again_{number}"})
    report = check_dataset([made.llava], report_path=tmp_path / "all.jsonl")
    assert report.found["duplicate_text"].count == 5
    assert len(report.found["duplicate_text"].examples) == 3
    lines = (tmp_path / "all.jsonl").read_text().splitlines()
    assert len(lines) == 5 and all("again_" in line for line in lines)


def test_tokens_are_those_of_the_whole_text_encoded_at_once(made, tokenizer):
    """One round of text: <s> + SYSTEM USER: question ASSISTANT: answer + </s>."""
    prompt = f"{V1.system} USER: What is 2 + 2? ASSISTANT:"
    answer = made.by_id("chat_4")["conversations"][1]["value"]
    made.rows = [made.by_id("chat_4")]
    total = 1 + len(tokenizer.encode(f"{prompt} {answer}")) + 1
    learned = total - 1 - len(tokenizer.encode(prompt))

    def check(row_length):
        return check_dataset([made.llava], reading=Reading(tokenizer, V1, 16, row_length))

    whole = check(total)
    assert counts(whole) == {}
    assert (whole.counts["tokens"], whole.counts["kept_tokens"]) == (total, total)
    assert (whole.counts["learned_tokens"], whole.counts["picture_tokens"]) == (learned, 0)

    cut = check(total - 3)
    assert counts(cut) == {"truncated": 1}
    assert cut.counts["learned_tokens"] == learned - 3
    assert "the last 3 are cut off" in cut.found["truncated"].examples[0][1]

    masked = check(total - learned)
    assert counts(masked) == {"truncated": 1, "nothing_to_learn": 1}
    assert masked.counts["learned_tokens"] == 0


def test_a_picture_takes_its_patches(made, tokenizer):
    made.rows = [made.by_id("svit_referring_1")]
    few, many = (
        check_dataset([made.llava], reading=Reading(tokenizer, V1, patches, 10_000)).counts
        for patches in (16, 576)
    )
    assert (few["picture_tokens"], many["picture_tokens"]) == (16, 576)
    assert many["tokens"] - few["tokens"] == 560
    assert many["learned_tokens"] == few["learned_tokens"]


def test_what_the_template_cannot_write_is_found(made, tokenizer):
    made.rows = [made.by_id("svit_referring_1"), made.by_id("svit_conversation_0")]
    report = check_dataset([made.llava], reading=Reading(tokenizer, PLAIN, 4, 100))
    assert counts(report) == {"unwritable": 1}, "a caption has one round"


def test_nothing_to_check_is_an_error():
    with pytest.raises(UserError, match="nothing to check"):
        check_dataset()


def test_numbers_that_make_no_sense_are_errors(made, tokenizer):
    with pytest.raises(UserError, match="sample is -1"):
        check_dataset([made.llava], sample=-1)
    for patches, row_length in ((0, 100), (4, 1)):
        with pytest.raises(UserError, match="must be at least"):
            Reading(tokenizer, V1, patches, row_length)
