"""The four kinds of instruction data."""

from collections.abc import Collection

from data_pipeline.common.errors import UserError

CONVERSATION = "conversation"
COMPLEX_REASONING = "complex_reasoning"
DETAIL_DESCRIPTION = "detail_description"
REFERRING_QA = "referring_qa"

# What the prompts ask for, as SVIT's do.
CONVERSATIONS_ASKED = 3
PAIRS_ASKED = {CONVERSATION: 5, COMPLEX_REASONING: 15, REFERRING_QA: 10}

KINDS: tuple[str, ...] = (CONVERSATION, COMPLEX_REASONING, DETAIL_DESCRIPTION, REFERRING_QA)


def require_kinds(kinds: Collection[str]) -> tuple[str, ...]:
    """The asked kinds in the fixed order. Raises UserError naming the one that does not exist."""
    for kind in kinds:
        if kind not in KINDS:
            raise UserError(f"there is no kind of data {kind!r}; choose from: {', '.join(KINDS)}.")
    if not kinds:
        raise UserError(f"no kind of data was asked for; choose from: {', '.join(KINDS)}.")
    return tuple(kind for kind in KINDS if kind in kinds)
