"""What LLaVA-1.5 makes of a conversation: ids and labels by the rules of the fact sheet.

Written apart from our code, which it judges, and from the standard library alone, so that it also
runs beside the old releases of transformers that the checkpoints were trained with.
"""

import dataclasses
import random
from collections.abc import Callable, Sequence

BOS, UNK = 1, 0
IMAGE, IGNORED = -200, -100
MAX_LENGTH = 2048

SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)

Tokenize = Callable[[str], list[int]]
"""Text to ids, the first of which is BOS; "</s>" in the text is the end-of-sequence token."""


@dataclasses.dataclass(frozen=True)
class Conversation:
    """Texts in turn, the human's first; `image` says whether the row has a picture."""

    texts: tuple[str, ...]
    image: bool


@dataclasses.dataclass(frozen=True)
class Sample:
    """`masked`: lengths did not agree, so the reference gave the whole sample no labels."""

    ids: list[int]
    labels: list[int]
    masked: bool


def place_marker(text: str, collapse: bool) -> str:
    count = text.count("<image>")
    if not count:
        return text
    rest = text.replace("<image>", "").strip()
    return ("<image>\n" * (1 if collapse else count) + rest).strip()


def conversation_text(texts: Sequence[str]) -> str:
    text = f"{SYSTEM} "
    for number, message in enumerate(texts):
        role, end = (("USER", " "), ("ASSISTANT", "</s>"))[number % 2]
        text += f"{role}: {message}{end}" if message else f"{role}:"
    return text


def tokenize_with_images(text: str, tokenize: Tokenize) -> list[int]:
    first, *others = (tokenize(chunk)[1:] for chunk in text.split("<image>"))
    ids = [BOS, *first]
    for chunk in others:
        ids += [IMAGE, *chunk]
    return ids


def v1_sample(
    conversation: Conversation, tokenize: Tokenize, correction: bool, collapse: bool = True
) -> Sample:
    """The reference's sample, before a picture becomes patches.

    `correction`: later rounds are one shorter than they are alone (transformers 4.37). `collapse`
    False keeps several markers in a turn apart, which the reference does not.
    """
    texts = conversation.texts
    if conversation.image:
        texts = tuple(place_marker(text, collapse) for text in texts)
    text = conversation_text(texts)

    def encode(part: str) -> list[int]:
        return tokenize_with_images(part, tokenize) if conversation.image else tokenize(part)

    ids = encode(text)
    if not conversation.image:
        ids = ids[:MAX_LENGTH]
    labels = list(ids)
    total = sum(i != UNK for i in ids)
    labels[0] = IGNORED
    place = 1
    for number, part in enumerate(text.split("</s>")):
        halves = part.split(" ASSISTANT: ")
        if not part or len(halves) != 2:
            break
        late = int(correction and number > 0)
        instruction = len(encode(f"{halves[0]} ASSISTANT: ")) - 2 - late
        for i in range(place, min(place + instruction, len(labels))):
            labels[i] = IGNORED
        place += len(encode(part)) - late
    labels[place:] = [IGNORED] * len(labels[place:])
    masked = place < MAX_LENGTH and place != total
    if masked:
        labels = [IGNORED] * len(labels)
    return Sample(ids[:MAX_LENGTH], labels[:MAX_LENGTH], masked)


def plain_sample(caption: str, tokenize: Tokenize) -> Sample:
    ids = tokenize_with_images(f"<image>{caption}\n", tokenize)
    return Sample(ids, [IGNORED, IGNORED, *ids[2:]], False)


def differences(conversation: Conversation) -> set[str]:
    """Where our samples differ from the reference's on purpose (docs/model_inputs.md says how).

    "text": the reference writes another text. "special": it reads special tokens out of the text.
    "role": it finds no end of the question, or a wrong one. "collapse": several markers in a turn.
    """
    texts = conversation.texts
    questions, answers = texts[::2], texts[1::2]
    found = {
        "text": "" in texts or len(texts) % 2 == 1,
        "special": any(token in text for text in texts for token in ("<s>", "</s>", "<unk>"))
        or (conversation.image and any("<image>" in text for text in answers)),
        "role": any(" ASSISTANT: " in f" {text} " for text in questions)
        or any(" ASSISTANT: " in text for text in answers),
        "collapse": conversation.image and any(text.count("<image>") > 1 for text in questions),
    }
    return {name for name, present in found.items() if present}


_PIECES = [
    *["What", "is", "this", "a cat", "the", "It's", "Is", "User", "(0.125,", "0.5)", "[1, 2]"],
    *[".", ",", "?", "!", ":", "-", "--", "'", '"', "\\", "\\n", "{}"],
    *["<", ">", "</", "<im", "</s"],
    *["\n", "\n\n", "\t", "\r\n", " ", "  ", "   ", "\u00a0", "\u200b", "▁", "▁▁", "\u0301"],
    *["é", "ß", "İ", "猫", "犬は", "עברית", "العربية", "हिन्दी"],
    *["🙂", "👩\u200d👩\u200d👧", "\ufeff", "\x00", "\x7f"],
    *["USER:", "USER", "ASSISTANT", "ASSISTANT,", "system", "12345", "x" * 40],
]
_EXOTIC = [" ASSISTANT: ", "ASSISTANT:", "</s>", "<s>", "<unk>", "<image>", "</s>USER: "]


def _text(rng: random.Random, exotic: float, longest: int) -> str:
    pieces = rng.choices(_PIECES, k=rng.randint(1, longest))
    if rng.random() < exotic:
        pieces.insert(rng.randint(0, len(pieces)), rng.choice(_EXOTIC))
    joint = rng.choice(["", " ", " ", " "])
    space = rng.choices(["", " ", "\n", "  "], weights=[12, 1, 1, 1], k=2)
    return space[0] + joint.join(pieces) + space[1]


def tricky_conversations(seed: int, count: int, longest: int = 14) -> list[Conversation]:
    """The same conversations for the same seed: odd text, several turns, none to three pictures;
    one in fifty is longer than MAX_LENGTH, when `longest` is left as it is."""
    rng = random.Random(seed)
    made = []
    for number in range(count):
        image = rng.random() < 0.7
        exotic = 0.25 if number % 4 == 0 else 0.0
        words = 900 if longest == 14 and number % 50 == 49 else longest
        texts = []
        for _ in range(rng.choice([1, 1, 1, 2, 2, 3, 4])):
            texts += [_text(rng, exotic, words), _text(rng, exotic, words)]
        for turn in range(0, len(texts), 2):
            if image and (turn == 0 or rng.random() < 0.1):
                markers = 2 if rng.random() < 0.03 else 1
                for _ in range(markers):
                    texts[turn] = rng.choice(
                        [
                            f"<image>\n{texts[turn]}",
                            f"{texts[turn]}\n<image>",
                            f"<image>{texts[turn]}",
                        ]
                    )
        if image and rng.random() < 0.03:
            texts[0] = "<image>"
        if number % 25 == 7:
            texts[rng.randrange(len(texts))] = ""
        if number % 25 == 13:
            texts.pop()
        made.append(Conversation(tuple(texts), image))
    return made
