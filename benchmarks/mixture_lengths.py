"""Lengths that stand for SVIT-mix-665K, whose texts can't be read here.

    python benchmarks/mixture_lengths.py --out lengths.npz

Known (the dataset's composition as its makers state it): how many dialogues each source has, which
have no picture, that a picture takes 576 tokens, what the template adds, that a row ends at 2048,
and that 113,732 of SVIT-core's 157,712 are of one round. Assumed, for want of the texts: everything
else in `SOURCES`. Rounds are 1 + Poisson; questions and answers are log-normal in tokens; 0.75
words a token.
"""

import argparse
import dataclasses
import sys

import numpy as np

from data_pipeline.loading.packing import Sizes

PICTURE, CUT = 576, 2048
OPENING, MARKER, ROUND = 35, 2, 3 + 5 + 1
"""Tokens of "SYSTEM USER:" with bos; around a picture; of "USER:", "ASSISTANT:" and "</s>"."""
WORDS_PER_TOKEN = 0.75


@dataclasses.dataclass(frozen=True)
class Source:
    """`dialogues` is known. Assumed: the mean number of rounds, the median tokens of a question and
    of an answer, and how far they spread (sigma of the logarithm). `single`: the share of dialogues
    that have one round whatever `rounds` says."""

    name: str
    dialogues: int
    rounds: float
    question: int
    answer: int
    spread: float
    picture: bool = True
    single: float = 0.0


SOURCES = (
    Source("SVIT-core-150K", 157_712, 5, 18, 70, 0.8, single=113_732 / 157_712),
    Source("ShareGPT", 40_688, 5, 60, 250, 1.0, picture=False),
    Source("VQAv2", 82_783, 5.4, 18, 2, 0.3),
    Source("GQA", 72_140, 13, 20, 2, 0.3),
    Source("OKVQA", 8_998, 1, 22, 2, 0.3),
    Source("OCR-VQA", 80_000, 5, 20, 5, 0.6),
    Source("A-OKVQA", 66_160, 1, 65, 2, 0.2),
    Source("TextCaps", 21_953, 1, 70, 15, 0.4),
    Source("RefCOCO", 48_447, 6, 28, 10, 0.5),
    Source("VG", 86_417, 8, 28, 12, 0.5),
)


@dataclasses.dataclass(frozen=True, eq=False)
class Lengths:
    """What `Sizes` wants, a number for each dialogue, uncut; `source` is its place in SOURCES."""

    source: np.ndarray
    tokens: np.ndarray
    pictures: np.ndarray
    words: np.ndarray

    def sizes(self, cut: int = CUT) -> Sizes:
        tokens = np.minimum(self.tokens, cut)
        return Sizes(np.ones(len(tokens), np.int32), tokens, self.pictures, self.words)


def mixture_lengths(share: float = 1.0, seed: int = 0) -> Lengths:
    """The lengths, or those of a `share` of every source; the same seed gives the same ones."""
    parts = []
    for number, source in enumerate(SOURCES):
        rng = np.random.default_rng([seed, number])
        n = max(1, round(source.dialogues * share))
        rounds = 1 + rng.poisson(source.rounds - 1, n)
        rounds[rng.random(n) < source.single] = 1
        text = np.zeros(n, np.int64)
        for median in (source.question, source.answer):
            drawn = rng.lognormal(np.log(median), source.spread, rounds.sum())
            of = np.repeat(np.arange(n), rounds)
            text += np.bincount(of, np.maximum(1, np.rint(drawn)), n).astype(np.int64)
        # The first round's "USER:" is part of the opening.
        template = OPENING - 3 + ROUND * rounds + MARKER * source.picture
        tokens = text + template + PICTURE * source.picture
        shown = np.full(n, source.picture)
        words = np.maximum(1, text * WORDS_PER_TOKEN)
        parts.append([np.full(n, number), tokens, shown, words if source.picture else -words])
    columns = (np.concatenate(column).astype(np.int32) for column in zip(*parts, strict=True))
    return Lengths(*columns)


def summary(lengths: Lengths) -> str:
    cut = np.minimum(lengths.tokens, CUT)
    lines = [f"{'source':16}{'dialogues':>10}{'mean':>7}{'median':>8}{'99%':>6}{'cut':>7}"]
    for number, source in enumerate((*SOURCES, None)):
        here = lengths.source == number if source else np.ones(len(cut), bool)
        mean, median, most = cut[here].mean(), np.median(cut[here]), np.quantile(cut[here], 0.99)
        share = (lengths.tokens[here] > CUT).mean()
        name = source.name if source else "all"
        lines.append(f"{name:16}{here.sum():10}{mean:7.0f}{median:8.0f}{most:6.0f}{share:7.1%}")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", help="write them into this .npz file")
    options = parser.parse_args()
    lengths = mixture_lengths()
    print(summary(lengths))
    if options.out:
        np.savez_compressed(options.out, **dataclasses.asdict(lengths))
    return 0


if __name__ == "__main__":
    sys.exit(main())
