"""Conversation templates: the one place that turns a dialogue into pieces of text and pictures.

`render` gives segments that know whether they carry loss, so nobody ever finds a reply again by
tokenising and counting. A boundary between two text segments of one chunk stands only where a
word starts (before a space) or at a chunk's edge, and SentencePiece never merges across a word
start: the joined ids are those of the whole chunk encoded at once, as the reference does.
"""

import dataclasses
from collections.abc import Sequence
from typing import Literal, get_args

from data_pipeline.common.dialogue import IMAGE_MARKER, Turn
from data_pipeline.common.errors import BadRecordError, UserError
from data_pipeline.common.files import content_hash

AfterEos = Literal["legacy", "4.31", "4.37"]
Join = Literal["start", "inside", "after_eos"]


@dataclasses.dataclass(frozen=True)
class Template:
    """How a dialogue is written out.

    style: "dialogue" writes "SYSTEM USER: question ASSISTANT: answer</s>USER: ...";
      "caption" writes the picture, the reply and a newline, and drops the question.
    after_eos: how the "USER" right after a "</s>" is tokenised; it depends on the version of
      transformers that a checkpoint was trained with. With Llama's vocabulary "</s>USER:" is
      "legacy" -> 3148 1001 29901 (any version, legacy=True), "4.31" -> 3308 1001 29901 (what
      LLaVA-1.5 and SVIT-v1.5 saw), "4.37" -> 11889 29901 (today's legacy=False).
    """

    name: str
    style: Literal["dialogue", "caption"]
    system: str = ""
    human: str = ""
    assistant: str = ""
    after_eos: AfterEos = "4.31"

    @property
    def fingerprint(self) -> str:
        """Name and hash: equal fingerprints write equal text."""
        return f"{self.name}:{content_hash(dataclasses.asdict(self))}"


def _vicuna(name: str, someone: str) -> Template:
    system = (
        f"A chat between a curious {someone} and an artificial intelligence assistant. "
        f"The assistant gives helpful, detailed, and polite answers to the {someone}'s questions."
    )
    return Template(name, "dialogue", system, "USER", "ASSISTANT")


V1 = _vicuna("v1", "user")
LLAVA_V1 = _vicuna("llava_v1", "human")
PLAIN = Template("plain", "caption")

TEMPLATES = {"v1": V1, "vicuna_v1": V1, "llava_v1": LLAVA_V1, "plain": PLAIN}


def get_template(name: str, after_eos: AfterEos = "4.31") -> Template:
    """The template of that name, with that way to read a later "USER". Raises UserError where
    either is unknown, naming the known ones."""
    if name not in TEMPLATES:
        raise UserError(f"there is no template {name!r}; choose one of {', '.join(TEMPLATES)}.")
    if after_eos not in get_args(AfterEos):
        known = ", ".join(get_args(AfterEos))
        raise UserError(f"after_eos is {after_eos!r}, which is unknown; choose one of {known}.")
    return dataclasses.replace(TEMPLATES[name], after_eos=after_eos)


@dataclasses.dataclass(frozen=True)
class Segment:
    """One stretch of a sample: text, a picture's place, or the end-of-sequence token.

    join: "start" text opens a chunk (the sequence, or what follows a picture) and takes a dummy
      prefix; "inside" text goes on from what stands before; "after_eos" follows a "</s>".
    """

    kind: Literal["text", "image", "eos"]
    text: str = ""
    join: Join = "inside"
    loss: bool = False


_IMAGE = Segment("image")


def _turns(turns: Sequence[Turn]) -> Sequence[Turn]:
    """The turns from the human's first on, as the reference reads them; they must alternate."""
    kept = turns[1:] if turns and turns[0].role != "human" else turns
    if not kept:
        raise BadRecordError("empty dialogue: expected a human turn; correct or remove it.")
    for number, turn in enumerate(kept):
        expected = "gpt" if number % 2 else "human"
        if turn.role != expected:
            raise BadRecordError(
                f"turns do not alternate: turn {number + 1} is from {turn.role}, expected "
                f"{expected}; correct or remove the dialogue."
            )
    return kept


def place_images(text: str) -> str:
    """Moves the markers of one human turn to its front, each on a line of its own.

    Several stay several; the reference collapses them to one, so only there do ids differ.
    """
    count = text.count(IMAGE_MARKER)
    if not count:
        return text
    return (f"{IMAGE_MARKER}\n" * count + text.replace(IMAGE_MARKER, "").strip()).strip()


def _question(text: str, has_picture: bool) -> list[Segment]:
    """The segments of a human turn's text, which goes on from the role's name."""
    if not has_picture:
        return [Segment("text", text)]
    before, *after = text.split(IMAGE_MARKER)
    segments = [Segment("text", before)]
    for chunk in after:
        segments.append(_IMAGE)
        if chunk:
            segments.append(Segment("text", chunk, "start"))
    return segments


def _render_dialogue(
    turns: Sequence[Turn], template: Template, has_picture: bool, prompt: bool
) -> list[Segment]:
    segments = []
    for number, turn in enumerate(turns):
        if turn.role == "gpt":
            # An empty answer teaches nothing but to say nothing: it stands there, without loss.
            if turn.text:
                segments.append(Segment("text", f" {turn.text}", loss=True))
            segments.append(Segment("eos", loss=bool(turn.text)))
            continue
        if number == 0:
            segments.append(Segment("text", f"{template.system} {template.human}:", "start"))
        else:
            segments.append(Segment("text", f"{template.human}:", "after_eos"))
        message = place_images(turn.text) if has_picture else turn.text
        answered = prompt or number + 1 < len(turns)
        # One segment with the question: spaces at its end would otherwise form another piece.
        ending = f" {template.assistant}:" if answered else ""
        segments += _question(f" {message}{ending}", has_picture)
    return segments


def _pictures(turns: Sequence[Turn]) -> int:
    return sum(turn.text.count(IMAGE_MARKER) for turn in turns if turn.role == "human")


def render(turns: Sequence[Turn], template: Template, has_picture: bool = True) -> list[Segment]:
    """The segments of a training sample, in order; a bos token is understood before them.

    `has_picture` False makes a literal "<image>" ordinary text (a text-only sample); so it is in
    the assistant's turns always. Raises BadRecordError where turns do not alternate, or where a
    caption template gets anything but one question with a picture and one reply.
    """
    turns = _turns(turns)
    if template.style == "dialogue":
        return _render_dialogue(turns, template, has_picture, prompt=False)
    pictures = _pictures(turns) if has_picture else 0
    if len(turns) != 2 or pictures == 0:
        raise BadRecordError(
            f"template {template.name} needs one question with {IMAGE_MARKER} and one reply, found "
            f"{len(turns)} turns and {pictures} pictures; use template v1, or remove the dialogue."
        )
    return [_IMAGE] * pictures + [Segment("text", f"{turns[1].text}\n", "start", loss=True)]


def render_prompt(
    turns: Sequence[Turn], template: Template, has_picture: bool = True
) -> list[Segment]:
    """The segments up to where the model's answer begins: for "v1" they end with "ASSISTANT:".

    The ids are a prefix of what `render` gives once the reply is there. Raises BadRecordError
    where the last turn is not the human's.
    """
    turns = _turns(turns)
    if turns[-1].role != "human":
        raise BadRecordError(
            "a prompt must end with a human turn, found a reply of gpt; remove the last turn."
        )
    if template.style == "dialogue":
        return _render_dialogue(turns, template, has_picture, prompt=True)
    return [_IMAGE] * (_pictures(turns) if has_picture else 0)
