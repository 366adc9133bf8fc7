"""A disk or bucket that refuses: said in one sentence, whichever library met it."""

import contextlib
import errno
import logging
import os
from collections.abc import Iterator

from data_pipeline.common.errors import UserError
from data_pipeline.common.files import PathLike

_REFUSALS = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.ENOTDIR,
    errno.EIO,
)


def refusal(error: BaseException | None) -> str | None:
    """What the disk said ("no space left on device"), None where the error is of another kind.

    Libraries in C++ report such errors in kinds of their own, with the system's words in the text.
    """
    while error is not None:
        for code in _REFUSALS:
            words = os.strerror(code)
            if (isinstance(error, OSError) and error.errno == code) or words in str(error):
                return words.lower()
        error = error.__cause__ or error.__context__
    return None


@contextlib.contextmanager
def explained(what: str, path: PathLike) -> Iterator[None]:
    """Turns a refusal of the disk into a UserError that names `what` and the path."""
    try:
        yield
    except OSError as error:
        said = refusal(error)
        if said is None:
            raise
        # The file is more exact: the folder may be whole and one file in it read-only.
        place = error.filename or os.fspath(path)
        raise UserError(
            f"{what} {path} can't be written or read ({place}: {said}); make room, mend its "
            "permissions, or choose another place, then run the same command again."
        ) from None


def say_refusals_once(logger: str) -> None:
    """Keeps a library's log from telling, in pages, what `explained` says in a sentence."""
    found = logging.getLogger(logger)
    if _not_a_refusal not in found.filters:
        found.addFilter(_not_a_refusal)


def _not_a_refusal(record: logging.LogRecord) -> bool:
    return not (record.exc_info and refusal(record.exc_info[1]))
