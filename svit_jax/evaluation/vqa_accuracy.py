"""VQA accuracy and its two answer normalisers, quirks kept: scores must equal the published ones.

Sources: the EvalAI processor that LLaVA-1.5 applies to its answers (from Pythia/MMF), and the VQA
challenge's own `vqaEval.py`, which the server runs on what was uploaded.
"""

import re
from collections import Counter
from collections.abc import Sequence

_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_MARKS_TO_SPACES = str.maketrans(dict.fromkeys(_PUNCTUATION, " "))
_DIGIT_COMMA = re.compile(r"(?<=\d),(?=\d)")
_PERIOD = re.compile(r"\.(?!\d)")
_PERIOD_DELETIONS = 32
_NUMBERS = {
    word: digits
    for digits, words in enumerate(
        ["none zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
    )
    for word in words.split()
}
_ARTICLES = frozenset(("a", "an", "the"))
_WITH_APOSTROPHES = """
ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't
haven't he'd he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've
might've mustn't must've needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've
shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd someone'd've someone'll
someone's something'd something'd've something'll that's there'd there'd've there're there's they'd
they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's what've
when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't
would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
"""


def _contractions() -> dict[str, str]:
    """Misspelling -> contraction: the form with any one of its apostrophes left out.

    The official table also holds "somebody'd" -> "somebodyd", kept here because both sides of a
    comparison go through it, and capitalised entries that no lowercased word can reach.
    """
    table = {"somebody'd": "somebodyd"}
    for word in re.findall(r"\S+", _WITH_APOSTROPHES):
        for place in re.finditer("'", word):
            table[word[: place.start()] + word[place.end() :]] = word
    return table


_CONTRACTIONS = _contractions()

VQA_QUIRKS = (
    "Only the first 32 periods of an answer are deleted.",
    'A mark between letters becomes a space if it stands beside a space nowhere: "t-shirt" is '
    '"t shirt", but "a t-shirt - red" is "tshirt red".',
    'A possessive is set apart: "cat\'s" is "cat \'s".',
    "An answer of articles alone is the same as any other such one.",
)
"""What scoring without `strict` has of the official normalisers, for people."""


def normalise_answer(answer: str) -> str:
    """The answer as LLaVA-1.5 uploads and compares it (EvalAI processor).

    Lowercase; "," and "?" deleted; "'s" set apart by a space, so possessives become "x 's";
    then what `server_normalise` does.
    """
    text = answer.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()
    return server_normalise(text)


def server_normalise(answer: str) -> str:
    """The answer as the VQA challenge's own script normalises it.

    - A punctuation mark is deleted everywhere if it stands next to a space anywhere, or if the
      text holds a comma between digits; otherwise every occurrence becomes a space ("t-shirt" ->
      "t shirt", "a red-car" -> "red car").
    - A period is deleted unless a digit follows, and only the first 32 of them: the reference
      passes a regex flag (value 32) where the count belongs. Its look-behind for a digit is
      mistyped and excludes nothing ("3." -> "3").
    - Number words none/zero to ten become digits, articles go, "dont" -> "don't" and the like.
    """
    source = answer.replace("\n", " ").replace("\t", " ").strip()
    delete_all = _DIGIT_COMMA.search(source) is not None
    text = source
    for mark in _PUNCTUATION:
        beside_space = f"{mark} " in source or f" {mark}" in source
        text = text.replace(mark, "" if delete_all or beside_space else " ")
    text = _PERIOD.sub("", text, count=_PERIOD_DELETIONS)
    words = (str(_NUMBERS.get(word, word)) for word in text.lower().split())
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def agreement(prediction: str, answers: Sequence[str]) -> float:
    """The share (0..1) of VQA accuracy that a prediction earns among annotators, compared as is.

    The mean over the annotators left out one at a time of min(1, matches among the others / 3);
    with ten annotators 0/1/2/3/4+ matches give 0, 0.3, 0.6, 0.9, 1 (Antol et al. 2015 state
    min(1, matches / 3), the mean is what the scripts compute).
    """
    total = len(answers)
    matches = sum(answer == prediction for answer in answers)
    left_out_match = matches * min(1.0, (matches - 1) / 3)
    left_out_other = (total - matches) * min(1.0, matches / 3)
    return (left_out_match + left_out_other) / total


def vqa_accuracy(prediction: str, answers: Sequence[str]) -> float:
    """VQA accuracy (0..1) with both sides normalised as LLaVA-1.5's local scorer does."""
    return agreement(normalise_answer(prediction), [normalise_answer(a) for a in answers])


def strict_accuracy(prediction: str, answers: Sequence[str]) -> float:
    """VQA accuracy (0..1) without the official quirks: both sides always go through one rule."""
    said = strict_normalise(prediction)
    return agreement(said, [strict_normalise(answer) for answer in answers]) if said else 0.0


def strict_normalise(answer: str) -> str:
    """Lowercase words without articles, number words as digits, contractions whole; marks become
    spaces and periods go, however many there are, but for those before a digit."""
    text = _DIGIT_COMMA.sub("", answer.lower()).translate(_MARKS_TO_SPACES)
    words = (str(_NUMBERS.get(word, word)) for word in _PERIOD.sub("", text).split())
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def most_common_answer(answers: Sequence[str]) -> str:
    """The annotators' most common answer as its first writer gave it, counted after normalising."""
    normal = [normalise_answer(answer) for answer in answers]
    return answers[normal.index(Counter(normal).most_common(1)[0][0])]


def server_accuracy(uploaded: str, answers: Sequence[str]) -> float:
    """VQA accuracy (0..1) as the challenge server computes it for an uploaded answer.

    Both sides are normalised only if the annotators differ; unanimous answers are compared as
    they stand, after line breaks and tabs became spaces and the ends were stripped.
    """
    prediction, *truths = (
        text.replace("\n", " ").replace("\t", " ").strip() for text in (uploaded, *answers)
    )
    if len(set(truths)) > 1:
        prediction, *truths = (server_normalise(text) for text in (prediction, *truths))
    return agreement(prediction, truths)
