"""Random samples, and the two ways to lay them out: ours (rows of a Batch) and transformers'."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from torch_reference import image_token, pixel_values

from data_pipeline.loading.batch import Batch
from svit_jax.inference.engine import Prompt
from svit_jax.models.svit import SvitConfig


@dataclasses.dataclass(frozen=True)
class Sample:
    """tokens [T] with -1 where a patch goes; targets [T], True where a token is predicted."""

    tokens: np.ndarray
    targets: np.ndarray
    images: np.ndarray

    def __len__(self) -> int:
        return len(self.tokens)


def random_sample(
    config: SvitConfig, rng: np.random.Generator, words: int, pictures: int, answer: int = 4
) -> Sample:
    """`words` random ids (0 and the image id among none of them) with pictures at random places
    behind the first; the last `answer` words are the targets."""
    vision = config.vision
    text = rng.integers(1, image_token(config), words)
    places = np.sort(rng.integers(1, words - answer, pictures))
    pieces = np.split(text, places)
    gap = np.full(vision.patches, -1)
    tokens = np.concatenate([pieces[0], *(part for p in pieces[1:] for part in (gap, p))])
    targets = np.arange(len(tokens)) >= len(tokens) - answer
    size = vision.image_size
    images = rng.integers(0, 256, (pictures, size, size, 3)).astype(np.uint8)
    return Sample(tokens.astype(np.int32), targets, images)


def batch_of(
    config: SvitConfig, rows: Sequence[Sequence[Sample]], length: int, pictures: int
) -> Batch:
    """Row r packs the samples `rows[r]`, padded to `length` tokens and `pictures` slots."""
    count, size, patches = len(rows), config.vision.image_size, config.vision.patches
    tokens = np.zeros((count, length), np.int32)
    weights = np.zeros((count, length), np.float32)
    segments = np.zeros((count, length), np.int32)
    positions = np.zeros((count, length), np.int32)
    index = np.full((count, length), -1, np.int32)
    images = np.zeros((count, pictures, size, size, 3), np.uint8)
    for r, row in enumerate(rows):
        start, slot = 0, 0
        for number, sample in enumerate(row, 1):
            here = slice(start, start + len(sample))
            gap = sample.tokens < 0
            tokens[r, here] = np.where(gap, 0, sample.tokens)
            weights[r, here] = sample.targets
            segments[r, here] = number
            positions[r, here] = np.arange(len(sample))
            patch = slot * patches + np.cumsum(gap) - 1
            index[r, here] = np.where(gap, patch, -1)
            images[r, slot : slot + len(sample.images)] = sample.images
            start, slot = start + len(sample), slot + len(sample.images)
    return Batch(tokens, weights, segments, positions, images, index)


def llava_inputs(
    config: SvitConfig, samples: Sequence[Sample], padding: str = "right"
) -> dict[str, torch.Tensor]:
    """The samples as one padded batch of transformers: ids, mask, labels, pictures."""
    length = max(map(len, samples))
    ids = np.zeros((len(samples), length), np.int64)
    mask = np.zeros((len(samples), length), np.int64)
    labels = np.full((len(samples), length), -100, np.int64)
    for r, sample in enumerate(samples):
        start = 0 if padding == "right" else length - len(sample)
        here = slice(start, start + len(sample))
        ids[r, here] = np.where(sample.tokens < 0, image_token(config), sample.tokens)
        mask[r, here] = 1
        labels[r, here] = np.where(sample.targets, sample.tokens, -100)
    inputs = {
        "input_ids": torch.from_numpy(ids),
        "attention_mask": torch.from_numpy(mask),
        "labels": torch.from_numpy(labels),
    }
    images = np.concatenate([sample.images for sample in samples])
    return inputs | ({"pixel_values": pixel_values(images)} if len(images) else {})


def prompt_of(config: SvitConfig, sample: Sample) -> Prompt:
    """The sample's tokens as what our engine goes on from."""
    gap = sample.tokens < 0
    index = np.where(gap, np.cumsum(gap) - 1, -1).astype(np.int32)
    return Prompt(np.where(gap, 0, sample.tokens).astype(np.int32), index, sample.images)
