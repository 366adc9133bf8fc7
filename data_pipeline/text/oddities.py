"""What is out of the ordinary in a dialogue: counted by the plan; docs/model_inputs.md explains."""

from collections.abc import Sequence

from data_pipeline.common.dialogue import IMAGE_MARKER, Turn
from data_pipeline.text.templates import Template

ODDITIES: dict[str, str] = {
    "text_only": "without a picture",
    "empty_answer": "with an empty answer",
    "empty_question": "with an empty question",
    "unanswered_question": "ending with a question",
    "role_in_text": 'with the words "ASSISTANT:" inside a turn',
    "special_token_in_text": "with a literal <s>, </s> or <unk>, read as text",
    "marker_in_text": "with a literal <image>, read as text",
    "several_pictures_in_a_turn": "with several <image> in one question",
}
"""Each oddity, and how it is said of "n dialogues"."""

_SPECIAL_TOKENS = ("<s>", "</s>", "<unk>")


def find_oddities(turns: Sequence[Turn], template: Template, has_picture: bool) -> set[str]:
    """The names of the oddities of a dialogue that `templates.render` accepts."""
    questions = [turn.text for turn in turns if turn.role == "human"]
    answers = [turn.text for turn in turns if turn.role == "gpt"]
    markers = [text.count(IMAGE_MARKER) for text in questions]
    inner_role = f" {template.assistant}: "
    everything = " ".join(turn.text for turn in turns)
    found = {
        "text_only": not has_picture,
        "empty_answer": "" in answers,
        "empty_question": "" in questions,
        "unanswered_question": turns[-1].role == "human",
        # The spaces are those that the template would write around the text.
        "role_in_text": bool(template.assistant)
        and inner_role.strip() in everything
        and any(inner_role in f" {turn.text} " for turn in turns),
        "special_token_in_text": any(token in everything for token in _SPECIAL_TOKENS),
        "marker_in_text": any(IMAGE_MARKER in text for text in answers)
        or (not has_picture and any(markers)),
        "several_pictures_in_a_turn": has_picture and max(markers, default=0) > 1,
    }
    return {name for name, present in found.items() if present}
