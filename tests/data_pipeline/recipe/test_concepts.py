"""The concept set we ship, files that are wrong, and keywords that a teacher drafts."""

import http.server
import json
import threading
from pathlib import Path
from typing import Any

import pytest

from data_pipeline.common.errors import UserError
from data_pipeline.recipe.concepts import (
    Concept,
    ConceptSet,
    draft_concepts,
    drafted_keywords,
    read_concepts,
    write_concepts,
)
from svit_jax.evaluation.mme import COGNITION, PERCEPTION

MMBENCH_L3 = """image_style image_scene image_emotion image_quality image_topic object_localization
attribute_recognition celebrity_recognition ocr spatial_relationship attribute_comparison
action_recognition physical_property_reasoning function_reasoning identity_reasoning social_relation
nature_relation physical_relation structured_image_text future_prediction"""


def test_our_set_has_the_abilities_of_both_benchmarks() -> None:
    concepts = read_concepts()
    names = {(c.benchmark, c.ability) for c in concepts.concepts}
    mme = {("mme", subtask.lower()) for subtask in PERCEPTION + COGNITION}
    assert names == mme | {("mmbench", ability) for ability in MMBENCH_L3.split()}
    assert len(mme) == 14 and len(concepts.concepts) == 34
    assert all(20 <= len(c.keywords) <= 50 and c.means for c in concepts.concepts)
    assert len(concepts.keywords) == len(set(concepts.keywords))


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text("zoo:\n  animals:\n    keywords: [Zebra, t-shirt, zebra, 'no']\n")
    (concept,) = read_concepts(path).concepts
    assert concept == Concept("zoo", "animals", "animals", ("zebra", "t shirt", "no"))


@pytest.mark.parametrize(
    "text, said",
    [
        ("zoo: [", "not valid YAML"),
        ("- zoo", "expected a mapping"),
        ("zoo: zebra", "zoo holds 'zebra'"),
        ("zoo: {animals: {keywords: zebra}}", "zoo/animals has no list"),
        ("zoo: {animals: {keywords: [no]}}", "keyword False"),
        ("zoo: {animals: {keywords: ['12']}}", "keyword '12'"),
        ("", "expected a mapping"),
    ],
)
def test_a_wrong_file_is_explained(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(text)
    with pytest.raises(UserError, match=said):
        read_concepts(tmp_path / "own.yaml")


def test_answers_in_many_layouts_give_the_same_keywords() -> None:
    expected = ("zebra", "traffic light", "t shirt")
    for answer in (
        "zebra\ntraffic light\nT-shirt",
        "1. Zebra\n2) traffic light\n3. **t-shirt**\n",
        "- zebra,\n- traffic light, t-shirt\n\nzebra",
        "Here are the keywords that you asked for:\nzebra, traffic light, t-shirt.",
    ):
        assert drafted_keywords(answer) == expected


TWO = ConceptSet(
    (Concept("b", "count", "how many", ("one",)), Concept("b", "hue", "which hue", ("red",)))
)


def test_a_drafted_set_keeps_the_abilities(tmp_path: Path) -> None:
    path = tmp_path / "drafted.yaml"
    answers = {"how many": "one\ntwo\nthree\nfour\nfive", "which hue": "red\nblue\ntan\ngold\npink"}
    asked: list[str] = []

    def ask(prompt: str) -> str:
        asked.append(prompt)
        return next(answer for means, answer in answers.items() if means in prompt)

    drafted = draft_concepts(ask, TWO, path)
    assert len(asked) == 2
    assert [c.keywords for c in drafted.concepts] == [tuple(a.split()) for a in answers.values()]
    assert read_concepts(path) == drafted
    with pytest.raises(UserError, match="there already"):
        draft_concepts(ask, TWO, path)


def test_an_answer_without_keywords_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="b/count could not be read: 'I cannot"):
        draft_concepts(lambda _: "I cannot help with that kind of thing.", TWO, tmp_path / "d.yaml")
    assert not (tmp_path / "d.yaml").exists()


def test_our_set_survives_writing(tmp_path: Path) -> None:
    write_concepts(tmp_path / "copy.yaml", read_concepts())
    assert read_concepts(tmp_path / "copy.yaml").hash == read_concepts().hash


def test_the_client_asks_an_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openai")
    from data_pipeline.recipe.concepts_teacher import openai_ask

    bodies: list[Any] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            message = {"role": "assistant", "content": "zebra"}
            choice = {"index": 0, "finish_reason": "stop", "message": message}
            answer = {"id": "1", "object": "chat.completion", "created": 0, "model": "m"}
            text = json.dumps({**answer, "choices": [choice]}).encode()
            self.send_response(200 if bodies[-1]["model"] == "m" else 401)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/v1"
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    try:
        assert openai_ask("m", url)("Which?") == "zebra"
        assert bodies == [{"model": "m", "messages": [{"role": "user", "content": "Which?"}]}]
        with pytest.raises(UserError, match="model other at"):
            openai_ask("other", url)("Which?")
    finally:
        server.shutdown()
        server.server_close()
