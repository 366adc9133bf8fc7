"""Writes text.json: ids and labels by transformers' own tokenizers of the reference's time.

Run it in two environments, which need nothing else (any order; each adds its part):

    pip install transformers==4.31.0 sentencepiece protobuf "numpy<2"
    python tests/reference/make_text_fixtures.py TOKENIZER_FOLDER
    pip install transformers==4.37.2
    python tests/reference/make_text_fixtures.py TOKENIZER_FOLDER

TOKENIZER_FOLDER holds Llama's tokenizer.model.
"""

import json
import pathlib
import shutil
import sys
import tempfile

import transformers
from llava_text import Conversation, plain_sample, tricky_conversations, v1_sample
from stored_text import CAPTIONS, FIXTURE, SMALL_MODEL, digest, small_conversations

# As in Vicuna-v1.5's tokenizer_config.json, but for `legacy`.
_SPECIAL = {"__type": "AddedToken", "lstrip": False, "rstrip": False, "single_word": False}
_CONFIG = {
    "add_bos_token": True,
    "add_eos_token": False,
    "bos_token": {**_SPECIAL, "content": "<s>", "normalized": False},
    "eos_token": {**_SPECIAL, "content": "</s>", "normalized": False},
    "unk_token": {**_SPECIAL, "content": "<unk>", "normalized": False},
    "clean_up_tokenization_spaces": False,
    "tokenizer_class": "LlamaTokenizer",
}


def load(model: pathlib.Path, legacy: bool) -> transformers.LlamaTokenizer:
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(model, pathlib.Path(folder) / "tokenizer.model")
        config = json.dumps({**_CONFIG, "legacy": legacy})
        (pathlib.Path(folder) / "tokenizer_config.json").write_text(config)
        tokenizer = transformers.LlamaTokenizer.from_pretrained(folder)
    tokenizer.pad_token = tokenizer.unk_token
    return tokenizer


def main() -> None:
    llama = pathlib.Path(sys.argv[1]) / "tokenizer.model"
    version = ".".join(transformers.__version__.split(".")[:2])
    if version not in ("4.31", "4.37"):
        sys.exit(
            f"this is transformers {transformers.__version__}; 4.31 and 4.37 are the reference"
        )
    fixture = json.loads(FIXTURE.read_text()) if FIXTURE.exists() else {}
    for after_eos, legacy in (("legacy", True), (version, False)):
        correction = after_eos == "4.37"

        def samples(model: pathlib.Path, conversations: list[Conversation]) -> list:
            tokenizer = load(model, legacy)  # noqa: B023
            made = [
                v1_sample(c, lambda text: tokenizer(text).input_ids, correction)  # noqa: B023
                for c in conversations
            ]
            return [(sample.ids, sample.labels, sample.masked) for sample in made]

        tokenizer = load(SMALL_MODEL, legacy)
        part = {
            "small": [
                [ids, [n for n, label in enumerate(labels) if label != -100], masked]
                for ids, labels, masked in samples(SMALL_MODEL, small_conversations())
            ],
            "captions": [
                plain_sample(text, lambda text: tokenizer(text).input_ids).ids  # noqa: B023
                for text in CAPTIONS
            ],
            "thousand": [
                digest(ids, labels)
                for ids, labels, _ in samples(llama, tricky_conversations(0, 1000))
            ],
        }
        if after_eos == "legacy" and fixture.get(after_eos, part) != part:
            sys.exit("legacy=True differs between releases")
        fixture[after_eos] = part
    FIXTURE.write_text(json.dumps(fixture, separators=(",", ":"), sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
