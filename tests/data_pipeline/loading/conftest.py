"""A small dataset and a tokenizer of its words."""

import pytest
from memory_source import WORDS, make_source

from data_pipeline.text.templates import V1
from data_pipeline.text.tokenizer import train_tokenizer


@pytest.fixture(scope="session")
def source():
    return make_source(23)


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory):
    texts = [V1.system, *(f"USER: {word} ASSISTANT: {word}" for word in WORDS)] * 5
    return train_tokenizer(texts, tmp_path_factory.mktemp("tokenizer") / "t.model", 400)
