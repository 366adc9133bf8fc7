"""A trained run answers: from Python, and in the terminal."""

import dataclasses
import functools
import http.server
import io
import json
import textwrap
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import svit_jax
from data_pipeline.common.dialogue import Turn
from data_pipeline.common.errors import UserError
from data_pipeline.text.encode import encode_dialogue, encode_prompt
from data_pipeline.text.templates import V1, get_template
from svit_jax.api import Assistant
from svit_jax.chat import HELP, Conversation, Screen
from svit_jax.evaluation.benchmark import NoPicture
from svit_jax.inference.engine import Engine, Token
from svit_jax.inference.sampler import Sampling

GREEDY = Sampling()
NEW = 6


@pytest.fixture(scope="module")
def assistant(trained) -> Assistant:
    return svit_jax.load(trained.workdir)


@pytest.fixture(scope="module")
def picture(tiny_data):
    return sorted(tiny_data.pictures.rglob("*.jpg"))[0]


def test_prompt_is_the_training_template(assistant, picture):
    prompt = assistant.prompt([Turn("human", "<image>\nWhat is this?")], [picture])
    patches = assistant.bundle.model.vision.patches
    turns = [Turn("human", "<image>\nWhat is this?")]
    encoded = encode_prompt(turns, V1, assistant.tokenizer, patches)
    np.testing.assert_array_equal(prompt.tokens, encoded.tokens)
    size = assistant.bundle.model.vision.image_size
    assert prompt.images.shape == (1, size, size, 3)
    # A blank is of the padding's colour, CLIP's mean.
    blank = assistant.picture(None)
    assert blank.shape == (size, size, 3) and set(blank.reshape(-1, 3)[0]) == {122, 116, 104}


@pytest.mark.parametrize("after_eos", ["legacy", "4.31", "4.37"])
def test_later_turns_are_tokenised_as_in_training(assistant, after_eos):
    said = [Turn("human", "What is this?"), Turn("gpt", "A circle."), Turn("human", "Sure?")]
    bundle = dataclasses.replace(assistant.bundle, after_eos=after_eos)
    prompt = dataclasses.replace(assistant, bundle=bundle).prompt(said, [])
    template = get_template("v1", after_eos)
    encoded = encode_prompt(said, template, assistant.tokenizer, bundle.model.vision.patches)
    np.testing.assert_array_equal(prompt.tokens, encoded.tokens)


def test_answer_is_the_same_however_it_is_asked(assistant, picture):
    question = "What color is the circle?"
    answer = assistant.answer(picture, question, NEW)
    assert answer == assistant.answer(picture.read_bytes(), question, NEW)
    turns = [Turn("human", f"<image>\n{question}")]
    assert answer == "".join(assistant.stream(turns, [picture], NEW))
    questions = [(picture, question), (None, "Is there a star?"), (str(picture), question)]
    found = list(assistant.answer_all(questions, NEW))
    assert found[0] == found[2] == answer
    assert found[1] == assistant.answer(None, "Is there a star?", NEW)
    assert list(assistant.answerer(NEW)(questions)) == found
    text_alone = [Turn("human", "What is red?")]
    mixed = [(picture, question), (NoPicture.TEXT_ALONE, "What is red?")]
    expected = [answer, "".join(assistant.stream(text_alone, [], NEW))]
    assert list(assistant.answer_all(mixed, NEW)) == expected
    found = next(assistant.engine.generate([assistant.prompt(turns, [picture])], NEW))
    assert answer == assistant.tokenizer.decode(found.tokens).strip()


def test_several_pictures_stand_before_the_question_or_at_its_markers(assistant, tiny_data):
    pair = sorted(tiny_data.pictures.rglob("*.jpg"))[:2]

    def streamed(text, images):
        return "".join(assistant.stream([Turn("human", text)], images, NEW))

    before = streamed("<image>\n<image>\nWhich is red?", pair)
    within = streamed("Is <image> or <image> red?", pair)
    assert assistant.answer(pair, "Which is red?", NEW) == before
    assert assistant.answer(pair, "Is <image> or <image> red?", NEW) == within
    asked = [(pair, "Which is red?"), (pair[0], "Red?"), ((pair[0],), "Red?")]
    found = list(assistant.answer_all(asked, NEW))
    assert found[0] == before and found[1] == found[2]

    # The order of a list is the order of the markers.
    scored = [(pair, "Which?", "red"), (pair[::-1], "Which?", "red")]
    one, other = assistant.score(scored)
    assert not np.allclose(one, other, atol=1e-6)
    turns = [Turn("human", "<image>\n<image>\nWhich?")]
    tokens = [assistant.tokenizer.encode("red"), assistant.tokenizer.encode("red")]
    prompts = [assistant.prompt(turns, pair), assistant.prompt(turns, pair[::-1])]
    for found, expected in zip((one, other), assistant.engine.score(prompts, tokens), strict=True):
        np.testing.assert_allclose(found[: len(expected)], expected, atol=2e-5)
    with pytest.raises(UserError, match="marks 1 pictures and 2 were given"):
        assistant.answer(pair, "Is <image> red?", NEW)


def test_a_stop_string_ends_the_answer_however_it_is_asked(assistant, picture):
    question = "What color is the circle?"
    hot = Sampling(3.0, seed=5)
    whole = assistant.answer(picture, question, 12, hot)
    assert len(whole) > 10 and whole != assistant.answer(picture, question, 12, Sampling(3.0))
    stop = ["never", whole[4:6]]
    cut = whole[: whole.index(whole[4:6])].strip()
    assert assistant.answer(picture, question, 12, hot, stop) == cut
    assert list(assistant.answer_all([(picture, question)] * 2, 12, hot, stop)) == [cut] * 2


def test_score_is_of_the_training_samples_tokens(assistant, picture):
    """The answer's tokens and its eos: what training has loss on; the greedy answer's own
    log-probabilities among them."""
    question, patches = "What color is the circle?", assistant.bundle.model.vision.patches
    turns = [Turn("human", f"<image>\n{question}"), Turn("gpt", "red or blue")]
    encoded = encode_dialogue(turns, V1, assistant.tokenizer, patches)
    text = [Turn("human", question), turns[1]]
    text_alone = encode_dialogue(text, V1, assistant.tokenizer, patches, has_picture=False)
    asked = [
        (picture, question, "red or blue"),
        (NoPicture.TEXT_ALONE, question, "red or blue"),
        (picture, question, ""),
    ]
    found = list(assistant.score(asked))
    targets = [int((sample.loss_weights > 0).sum()) for sample in (encoded, text_alone)]
    assert [len(logs) for logs in found] == [*targets, 1]
    prompt = assistant.prompt(turns[:1], [picture])
    tokens = encoded.tokens[encoded.loss_weights > 0].tolist()
    np.testing.assert_allclose(found[0], next(assistant.engine.score([prompt], [tokens])))
    greedy = next(assistant.engine.generate([prompt], NEW))
    scored = next(assistant.engine.score([prompt], [greedy.tokens]))
    np.testing.assert_allclose(scored, greedy.log_probabilities, atol=2e-5)


def test_one_checkpoint_folder_loads_as_its_workdir_does(assistant, trained, picture, monkeypatch):
    monkeypatch.chdir(trained.workdir.parent)
    relative = svit_jax.load(f"{trained.workdir.name}/checkpoints/6")
    assert relative.bundle.model == assistant.bundle.model
    for name, array in assistant.engine.parameters.items():
        np.testing.assert_array_equal(relative.engine.parameters[name], array)


def test_folders_that_are_no_run(tmp_path):
    with pytest.raises(UserError, match="holds no checkpoint"):
        svit_jax.load(tmp_path)


def test_pictures_that_are_none(assistant, tmp_path):
    (tmp_path / "text.jpg").write_text("not a picture")
    for image, message in (
        (tmp_path / "absent.jpg", "there is no file .*absent.jpg"),
        (tmp_path, "is a folder; give a picture file"),
        (tmp_path / "text.jpg", "text.jpg .* is not a whole JPEG"),
        (b"", r"picture given as bytes \(0 bytes\) is not .*it is empty"),
    ):
        with pytest.raises(UserError, match=message):
            assistant.answer(image, "What is this?")


def test_markers_must_match_pictures(assistant, picture):
    with pytest.raises(UserError, match="marks 2 pictures and 1 were given"):
        assistant.answer(picture, "Is <image> this one?")


class ScriptedEngine(Engine):
    """Says fixed tokens, whatever it is asked."""

    eos_id = 2

    def __init__(self, tokens: list[int]):
        self.tokens = tokens
        self.asked: list[np.ndarray] = []

    def stream(self, prompt, max_new_tokens, sampling=GREEDY):
        self.asked.append(prompt.tokens)
        for token in self.tokens[:max_new_tokens]:
            yield Token(token, 0.0)


@pytest.mark.parametrize("limit", range(1, 30))
def test_streamed_pieces_join_to_the_answer(assistant, limit):
    """Characters of several bytes come whole, however many tokens were decoded."""
    tokens = assistant.tokenizer.encode("  A ☃ and\n héé  x ☃ ")
    assert 15 < len(tokens) < 30
    scripted = dataclasses.replace(assistant, engine=ScriptedEngine(tokens))
    pieces = list(scripted.stream([Turn("human", "Well?")], [], limit))
    said = assistant.tokenizer.decode(tokens[:limit]).strip()
    assert "".join(pieces) == said
    assert all(pieces), "an empty piece was shown"
    # Only an answer that was cut off may end in half a character.
    assert all("�" not in piece for piece in pieces[:-1])
    if limit > len(tokens):
        assert said == "A ☃ and\n héé  x ☃"


def test_a_conversation_with_a_stop_string(assistant, picture):
    tokens = assistant.tokenizer.encode("red. Or blue?")
    parrot = dataclasses.replace(assistant, engine=ScriptedEngine(tokens))
    said = io.StringIO()
    talk = Conversation(parrot, lambda *asked: parrot.stream(*asked, stop=[". Or"]), said.write)
    talk.show([str(picture)])
    talk.take("Which?")
    turns = talk.turns
    assert said.getvalue() == "ASSISTANT: red\n" and turns[-1] == Turn("gpt", "red")


def talk(assistant: Assistant, image, *questions: str) -> tuple[str, list[Turn]]:
    said = io.StringIO()
    conversation = Conversation(
        assistant, lambda *asked: assistant.stream(*asked, max_new_tokens=NEW), said.write
    )
    conversation.show([] if image is None else [str(image)])
    for question in questions:
        if not conversation.take(question):
            break
    return said.getvalue(), conversation.turns


@pytest.fixture
def parrot(assistant) -> Assistant:
    return dataclasses.replace(assistant, engine=ScriptedEngine(assistant.tokenizer.encode("red")))


def test_conversation_goes_on_and_starts_anew(parrot, picture):
    said, turns = talk(parrot, picture, "What color?", "Sure?")
    assert said == "ASSISTANT: red\nASSISTANT: red\n"
    assert turns == [
        Turn("human", "<image>\nWhat color?"),
        Turn("gpt", "red"),
        Turn("human", "Sure?"),
        Turn("gpt", "red"),
    ]
    said, turns = talk(parrot, picture, "What color?", "/reset", "", "Sure?", "/quit", "More?")
    assert said == "ASSISTANT: red\nThe conversation starts anew.\nASSISTANT: red\n"
    assert turns == [Turn("human", "<image>\nSure?"), Turn("gpt", "red")]
    prompt = parrot.engine.asked[-1]
    np.testing.assert_array_equal(prompt, parrot.prompt(turns[:1], [picture]).tokens)


def test_another_picture_begins_another_conversation(parrot, picture, tmp_path):
    Image.new("RGB", (9, 9)).save(tmp_path / "my other.png")
    said, turns = talk(parrot, picture, "One?", f"/image {tmp_path / 'my other.png'}", "Two?")
    assert f"Now about {tmp_path / 'my other.png'}.\n" in said
    assert turns == [Turn("human", "<image>\nTwo?"), Turn("gpt", "red")]


@pytest.mark.parametrize("command", ["/image", "/image {tmp}/absent.jpg", "/image {tmp}"])
def test_missing_picture_is_a_sentence_and_the_talk_goes_on(parrot, picture, tmp_path, command):
    said, turns = talk(parrot, picture, "One?", command.format(tmp=tmp_path), "Two?")
    lines = said.splitlines()
    assert len(lines) == 3 and lines[1].startswith("picture: ") and lines[1].endswith(".")
    assert [turn.text for turn in turns] == ["<image>\nOne?", "red", "Two?", "red"]


def test_without_a_picture_and_help(parrot):
    said, turns = talk(parrot, None, "/help", "Hello?")
    assert said == f"{HELP}\nASSISTANT: red\n"
    assert turns[0] == Turn("human", "Hello?")


def test_question_that_cannot_be_asked_is_left_out(parrot, picture):
    said, turns = talk(parrot, picture, "What is <image>?", "One?")
    assert "marks 2 pictures" in said
    assert turns == [Turn("human", "<image>\nOne?"), Turn("gpt", "red")]


def pictures_in(folder: Path, *names: str) -> list[str]:
    for number, name in enumerate(names):
        Image.new("RGB", (9, 9), (number * 40, 0, 0)).save(folder / name)
    return [str(folder / name) for name in names]


def test_several_pictures_and_one_more_later(parrot, tmp_path):
    one, two, three = pictures_in(tmp_path, "one.png", "two.png", "three.png")
    said, turns = talk(parrot, None, f"/image {one} {two}", "Same?", f"/add {three}", "And now?")
    assert f"Now about {one}, {two}, {three}.\n" in said
    assert [turn.text for turn in turns] == [
        "<image>\n<image>\nSame?",
        "red",
        "<image>\nAnd now?",
        "red",
    ]
    prompt = parrot.engine.asked[-1]
    expected = parrot.prompt(turns[:3], [one, two, three])
    np.testing.assert_array_equal(prompt, expected.tokens)


@pytest.mark.parametrize("form", ["{}", "'{}'", "file://{}", "{escaped}"])
def test_a_pasted_path_is_a_picture(parrot, picture, tmp_path, form):
    (name,) = pictures_in(tmp_path, "my photo.png")
    shown = name.replace(" ", "%20") if "file" in form else name
    line = form.format(shown, escaped=name.replace(" ", "\\ "))
    said, turns = talk(parrot, picture, "One?", line, "Two?")
    assert f"Now about {name}.\n" in said
    assert [turn.text for turn in turns] == ["<image>\nTwo?", "red"]


def test_a_question_about_a_file_is_a_question(parrot, picture):
    _, turns = talk(parrot, picture, "What is absent.png?")
    assert turns[0].text == "<image>\nWhat is absent.png?"


def test_a_conversation_is_saved(parrot, picture, tmp_path):
    said, turns = talk(
        parrot, picture, "/save", "One?", f"/save {tmp_path}/a.json", f"/save {tmp_path}/a.txt"
    )
    assert said.startswith("/save needs a file") and "Saved 1 questions" in said
    assert json.loads((tmp_path / "a.json").read_text()) == {
        "image": [str(picture)],
        "conversations": [{"from": turn.role, "value": turn.text} for turn in turns],
    }
    text = f"pictures: {picture}\nUSER: <image>\nOne?\nASSISTANT: red\n"
    assert (tmp_path / "a.txt").read_text() == text
    said, _ = talk(parrot, picture, f"/save {tmp_path}")
    assert "can't be written" in said


def test_addresses_of_the_web_need_leave(parrot, picture, tmp_path):
    said, _ = talk(parrot, picture, "/image https://example.org/a.png")
    assert "only with --allow-urls" in said


def test_addresses_of_the_web(parrot, tmp_path):
    (name,) = pictures_in(tmp_path, "a.png")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        said = io.StringIO()
        conversation = Conversation(parrot, parrot.stream, said.write, allow_urls=True)
        conversation.show([f"{url}/a.png"])
        conversation.take("One?")
        expected = parrot.prompt(conversation.turns[:1], [name])
        np.testing.assert_array_equal(parrot.engine.asked[-1], expected.tokens)
        conversation.take(f"/image {url}/none.png")
        assert "can't be fetched" in said.getvalue()
        assert conversation.turns  # nothing changed
        server.shutdown()


@pytest.mark.parametrize("pieces", [1, 2, 3, 7, 100])
def test_answers_break_between_words(pieces):
    """As textwrap breaks them, however they come."""
    text = "A red circle stands left of the largest of all the blue squares, doesn't it?"
    shown = io.StringIO()
    screen = Screen(24, shown.write)
    for start in range(0, len(text), pieces):
        screen.say(text[start : start + pieces])
    screen.say("\n")
    lines = [line.rstrip() for line in shown.getvalue().splitlines()]
    assert lines == textwrap.wrap(text, 24)
