"""Writes small.model: a tokenizer of 700 pieces to which "USER" happens as it does to Llama's.

    python tests/reference/make_small_model.py

The three ways to read the "USER:" after a "</s>" give three results only where "▁USER" is not a
piece, and "USER", "▁US" and "US" are: so the training text has "US" in front of words, and "USER"
inside them.
"""

from llava_text import SYSTEM, tricky_conversations
from stored_text import SMALL_MODEL

from data_pipeline.text.tokenizer import train_tokenizer


def main() -> None:
    texts = [text for c in tricky_conversations(5, 300, longest=6) for text in c.texts]
    texts = [text.replace("USER", "") for text in texts]
    texts += [f"{SYSTEM} What is this? ASSISTANT: A cat on a mat.", "US US ER", "(USER(USER:"] * 300
    tokenizer = train_tokenizer(texts, SMALL_MODEL, 700)
    for ids in (
        tokenizer.encode("USER:"),
        tokenizer.encode_without_mark("USER:"),
        tokenizer.encode("USER:", dummy_prefix=False),
    ):
        print(ids, [tokenizer.decode([i]) for i in ids])


if __name__ == "__main__":
    main()
