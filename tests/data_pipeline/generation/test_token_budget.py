"""Prompts are cut in the documented way: held against the rule read literally, and a tokenizer."""

from pathlib import Path

import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.annotations.scene import PixelBox, Region, Scene, SceneObject
from data_pipeline.annotations.visual_genome import read_visual_genome
from data_pipeline.common.errors import UserError
from data_pipeline.endpoint.token_estimate import most_tokens
from data_pipeline.generation.kinds import KINDS
from data_pipeline.generation.prompt import compose_prompt, load_templates
from data_pipeline.generation.token_budget import Line, fit_lines

TEMPLATES = load_templates()


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", 0),
        ("man", 1),
        ("street", 2),
        ("a man", 2),
        ("0.526", 5),
        ("[0.5, 0.25]", 11),
        ("\n", 1),
    ],
)
def test_the_estimate_by_hand(text: str, tokens: int) -> None:
    assert most_tokens(text) == tokens


def test_the_estimate_is_near_llama_and_not_below(real_data: Path) -> None:
    model = str(real_data / "tokenizers" / "llama2.model")
    llama = sentencepiece.SentencePieceProcessor(model_file=model)
    for scene in read_visual_genome(real_data / "visual_genome_sample"):
        for kind in KINDS:
            prompt = compose_prompt(kind, scene, TEMPLATES)
            assert prompt.cut_lines == 0
            text = f"{prompt.system}\n{prompt.user}"
            assert 1.0 <= most_tokens(text) / len(llama.encode(text)) <= 1.2


lines = st.lists(
    st.builds(Line, st.sampled_from(["cat", "a red cat", "x: 0.5"]), st.integers(1, 9))
)


@given(lines, lines, st.integers(0, 120))
def test_the_smallest_go_first_until_each_share_is_kept(
    objects: list[Line], regions: list[Line], tokens: int
) -> None:
    def cost(group: list[Line]) -> int:
        return sum(most_tokens(line.text) + 1 for line in group)

    both = cost(objects) + cost(regions)
    expected = []
    for group in (objects, regions):
        left = list(group)
        while left and both > tokens and cost(left) > tokens * cost(group) // both:
            smallest = min(line.area for line in left)
            last = max(k for k, line in enumerate(left) if line.area == smallest)
            del left[last]
        expected.append([line.text for line in left])
    assert fit_lines([objects, regions], tokens) == expected


def scene(objects: int, regions: int, captions: int = 2) -> Scene:
    """Object k is k+1 pixels wide; regions shrink instead."""
    return Scene(
        *(1, "1.jpg", 100, 100),
        captions=tuple(f"Caption {k}." for k in range(captions)),
        objects=tuple(
            SceneObject(k, f"thing {k}", PixelBox(0, 0, k + 1, 10)) for k in range(objects)
        ),
        regions=tuple(Region(f"part {k}", PixelBox(0, 0, regions - k, 10)) for k in range(regions)),
    )


@pytest.mark.parametrize("kind", KINDS)
def test_long_scenes_are_cut_to_the_budget_and_counted(kind: str) -> None:
    long = scene(60, 80)
    whole = compose_prompt(kind, long, TEMPLATES)
    assert whole.cut_lines == 0 and len(whole.user.splitlines()) == 3 + 2 + 60 + 80
    needed = most_tokens(f"{whole.system}\n{whole.user}")
    budget = needed - 400
    cut = compose_prompt(kind, long, TEMPLATES, prompt_tokens=budget)
    assert budget - 60 < most_tokens(f"{cut.system}\n{cut.user}") <= budget
    assert cut.cut_lines == len(whole.user.splitlines()) - len(cut.user.splitlines()) > 0
    kept = cut.user.splitlines()
    objects = [line for line in kept if line.startswith("thing")]
    regions = [line for line in kept if line.startswith("part")]
    assert objects == whole.user.splitlines()[-80 - 1 - len(objects) : -80 - 1]
    assert regions == whole.user.splitlines()[-80:][: len(regions)]
    assert kept[:4] == ["(1) captions:", "Caption 0.", "Caption 1.", "(2) objects:"]
    assert cut == compose_prompt(kind, long, TEMPLATES, prompt_tokens=budget)


def test_captions_go_last_and_instructions_never() -> None:
    templates = {**TEMPLATES, "conversation": "Talk."}
    headings = "Talk.\n(1) captions:\n(2) objects:\n(3) regions:"
    base = most_tokens(headings)
    one = most_tokens("Caption 0.\n")
    prompt = compose_prompt("conversation", scene(5, 5), templates, prompt_tokens=base + one + 2)
    assert prompt.user.splitlines() == [
        "(1) captions:",
        "Caption 0.",
        "(2) objects:",
        "(3) regions:",
    ]
    assert prompt.cut_lines == 11
    assert compose_prompt("conversation", scene(5, 5), templates, base).cut_lines == 12
    with pytest.raises(UserError, match=f"take about {base} tokens, more than the {base - 1}"):
        compose_prompt("conversation", scene(5, 5), templates, base - 1)
