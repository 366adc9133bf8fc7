"""The Jinja template beside an exported checkpoint writes what training writes."""

import jinja2
import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

from data_pipeline.common.dialogue import Turn
from data_pipeline.text.chat_template import chat_template
from data_pipeline.text.templates import get_template, render, render_prompt

MARKS = {"image": "<image>", "eos": "</s>"}


def written(name: str, messages: list[dict], prompt: bool = True) -> str:
    """As transformers renders a chat template."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    compiled = environment.from_string(chat_template(get_template(name)))
    return compiled.render(
        messages=messages, bos_token="<s>", eos_token="</s>", add_generation_prompt=prompt
    )


def trained(segments) -> str:
    return "<s>" + "".join(MARKS.get(each.kind, each.text) for each in segments)


def picture(text: str, count: int = 1) -> list[dict]:
    return [{"type": "text", "text": text}, *[{"type": "image"}] * count]


@pytest.mark.parametrize("name", ["v1", "llava_v1"])
@pytest.mark.parametrize(
    ("messages", "turns"),
    [
        (
            [{"role": "user", "content": picture("What is this? ")}],
            [Turn("human", "<image>\nWhat is this? ")],
        ),
        (
            [{"role": "user", "content": [{"type": "image_url"}, *picture("Same?")]}],
            [Turn("human", "<image>\n<image>\nSame?")],
        ),
        (
            [
                {"role": "user", "content": picture("What is this?")},
                {"role": "assistant", "content": "A dog."},
                {"role": "user", "content": 'Which "one"?\nSay.'},
            ],
            [
                Turn("human", "<image>\nWhat is this?"),
                Turn("gpt", "A dog."),
                Turn("human", 'Which "one"?\nSay.'),
            ],
        ),
    ],
)
def test_a_prompt_is_what_training_writes(name, messages, turns):
    assert written(name, messages) == trained(render_prompt(turns, get_template(name)))


def test_without_a_picture_and_with_an_answer():
    messages = [
        {"role": "user", "content": " Hello? "},
        {"role": "assistant", "content": [{"type": "text", "text": "Yes."}]},
    ]
    turns = [Turn("human", " Hello? "), Turn("gpt", "Yes.")]
    expected = trained(render(turns, get_template("v1"), has_picture=False))
    assert written("v1", messages, prompt=False) == expected


def test_a_system_message_takes_the_templates_place():
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello?"}]
    assert written("v1", messages) == "<s>Be brief. USER: Hello? ASSISTANT:"


def test_captions_have_none():
    assert chat_template(get_template("plain")) is None
