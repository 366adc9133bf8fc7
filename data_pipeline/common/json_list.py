"""Long JSON lists, read value by value: memory does not grow with the file."""

from collections.abc import Iterator
from typing import Any

import ijson

from data_pipeline.common.errors import UserError
from data_pipeline.common.files import PathLike, require_file


def read_json_list(path: PathLike, what: str, form: str) -> Iterator[Any]:
    """Yields the values of the JSON list in a file, in order.

    `what` names the file in errors ("instructions file") and `form` what it should hold. Raises
    UserError where the file is absent, is not valid JSON or is not a list.
    """
    found = require_file(path, what)
    with found.open("rb") as file:
        if not file.read(64).lstrip().startswith(b"["):
            raise UserError(f"{what} {found} does not hold a JSON list; expected {form}.")
        file.seek(0)
        try:
            yield from ijson.items(file, "item", use_float=True)
        except (ijson.JSONError, UnicodeDecodeError) as error:
            detail = " ".join(str(error).split())[:120]
            raise UserError(
                f"{what} {found} is not valid JSON ({detail}); it may be cut off: "
                "fetch or make it again."
            ) from None
