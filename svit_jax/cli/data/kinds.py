"""The kinds of instructions, as choices; spelt out so that `--help` loads no room."""

KINDS = ("conversation", "complex_reasoning", "detail_description", "referring_qa")
