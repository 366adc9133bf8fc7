"""What text.json holds, for the script that makes it and the tests that read it."""

import hashlib
import json
import pathlib
from collections.abc import Sequence

from llava_text import Conversation, tricky_conversations

FIXTURE = pathlib.Path(__file__).with_name("text.json")
SMALL_MODEL = pathlib.Path(__file__).with_name("small.model")

CAPTIONS = ["a cat on a mat", "", " a cat", "a cat\n", "  two  spaces ", "猫 🙂", "a </ im"]


def small_conversations() -> list[Conversation]:
    """Fifty short ones, each oddity of docs/model_inputs.md among them."""
    named = [
        Conversation(("<image>\nWhat is this?", "A cat."), True),
        Conversation(("What is this?", "A cat.", "Is it big?", "It is."), False),
        Conversation(("<image>\nWhat is this?", ""), True),
        Conversation(("<image>\nWhat is this?", "", "Is it big?", "It is."), True),
        Conversation(("", "A cat."), False),
        Conversation(("<image>\nWhat?", "I am ASSISTANT: yes."), True),
        Conversation(("What is <image>?", "It is text."), False),
        Conversation(("What is </s>?", "It is the end."), False),
        Conversation(("<image>\nWhat?", "A cat.", "Is it?"), True),
        Conversation(("<image>", " "), True),
    ]
    return named + tricky_conversations(1, 40, longest=6)


def digest(ids: Sequence[int], labels: Sequence[int]) -> str:
    return hashlib.sha256(json.dumps([list(ids), list(labels)]).encode()).hexdigest()[:8]
