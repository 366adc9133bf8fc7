"""Record, and its form on disk: a tf.train.Example that TFDS reads with `record_features`."""

import dataclasses
import itertools
from typing import cast

import tensorflow_datasets as tfds
from google.protobuf.message import DecodeError
from tensorflow_datasets.proto import tf_example_pb2

from data_pipeline.common.dialogue import Dialogue, Role, Turn

# TFDS flattens nested features to these names and keeps ragged ones as flat values and row lengths
# (tensorflow_datasets/core/example_serializer.py). Its own serializer needs TensorFlow for ragged
# features, so the few fields are filled in here; its reader needs NumPy alone.
_IMAGE_ID = "image_id"
_IMAGES = "images"
_DIALOGUE_IDS = "dialogues/id"
_ROLES = "dialogues/turns/role/ragged_flat_values"
_ROLE_COUNTS = "dialogues/turns/role/ragged_row_lengths_0"
_TEXTS = "dialogues/turns/text/ragged_flat_values"
_TEXT_COUNTS = "dialogues/turns/text/ragged_row_lengths_0"


@dataclasses.dataclass(frozen=True)
class Record:
    """One picture, or several that are shown together, with all dialogues; or one without.

    `image_id` is the picture's path in the images folder, the paths one a line where there are
    several, "" without one (`picture_names` reads it); `images` are these files' bytes, in order.
    """

    image_id: str
    images: tuple[bytes, ...]
    dialogues: tuple[Dialogue, ...]


def record_features() -> tfds.features.FeaturesDict:
    """What TFDS calls the fields of a record. `images` holds those that `image_id` names."""
    turns = {"role": tfds.features.Text(), "text": tfds.features.Text()}
    return tfds.features.FeaturesDict(
        {
            "image_id": tfds.features.Text(),
            "images": tfds.features.Sequence(tfds.features.Image()),
            "dialogues": tfds.features.Sequence(
                {"id": tfds.features.Text(), "turns": tfds.features.Sequence(turns)}
            ),
        }
    )


def encode_record(record: Record) -> bytes:
    """The record as a serialized tf.train.Example: the same bytes for an equal record."""
    turns = [turn for dialogue in record.dialogues for turn in dialogue.turns]
    counts = [len(dialogue.turns) for dialogue in record.dialogues]
    example = tf_example_pb2.Example()
    feature = example.features.feature
    feature[_IMAGE_ID].bytes_list.value.append(record.image_id.encode())
    # An empty list still has to be a list: the reader refuses a feature of no kind.
    feature[_IMAGES].bytes_list.SetInParent()
    feature[_IMAGES].bytes_list.value.extend(record.images)
    feature[_DIALOGUE_IDS].bytes_list.value.extend(d.id.encode() for d in record.dialogues)
    feature[_ROLES].bytes_list.value.extend(turn.role.encode() for turn in turns)
    feature[_ROLE_COUNTS].int64_list.value.extend(counts)
    feature[_TEXTS].bytes_list.value.extend(turn.text.encode() for turn in turns)
    feature[_TEXT_COUNTS].int64_list.value.extend(counts)
    return example.SerializeToString(deterministic=True)


def decode_record(data: bytes) -> Record:
    """The record that `encode_record` wrote; the pictures stay encoded.

    Raises ValueError where the bytes are something else.
    """
    try:
        feature = tf_example_pb2.Example.FromString(data).features.feature
        images = tuple(feature[_IMAGES].bytes_list.value)
        turns = zip(feature[_ROLES].bytes_list.value, feature[_TEXTS].bytes_list.value, strict=True)
        dialogues = tuple(
            Dialogue(
                dialogue_id.decode(),
                tuple(
                    Turn(cast(Role, role.decode()), text.decode())
                    for role, text in itertools.islice(turns, count)
                ),
            )
            for dialogue_id, count in zip(
                feature[_DIALOGUE_IDS].bytes_list.value,
                feature[_ROLE_COUNTS].int64_list.value,
                strict=True,
            )
        )
        image_id = feature[_IMAGE_ID].bytes_list.value[0].decode()
        return Record(image_id, images, dialogues)
    except (DecodeError, IndexError, ValueError) as error:
        raise ValueError(f"not a record of dialogues ({type(error).__name__}: {error})") from error
