"""The few shapes that prompts and caches are padded to, so that programs are compiled once."""

BUCKET = 64
"""The least length, and the least step from one length to the next."""


def bucket_length(length: int) -> int:
    """The padded length: a multiple of 64 up to 512, then of an eighth of the power of two below.

    Padding is less than an eighth from 512 tokens on, and there are 32 lengths up to 4096.
    """
    step = max(BUCKET, 1 << max(0, (length - 1).bit_length() - 4))
    return -(-length // step) * step


def cache_slots(prompt_length: int, new_tokens: int, max_length: int) -> int:
    """How many positions the cache of a prompt has, in a context of `max_length`: by its own length
    alone, so that it meets the same shape in any batch."""
    wanted = bucket_length(prompt_length) + new_tokens
    return bucket_length(min(wanted, max(max_length, bucket_length(prompt_length))))
