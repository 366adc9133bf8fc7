"""The page to browse a dataset with: one file for a sample, or the start of what a server gives."""

import base64
import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

from data_pipeline.common.errors import UserError
from data_pipeline.common.files import PathLike, write_text
from data_pipeline.common.html import Html, element, fragment, page
from data_pipeline.inspection.browse_records import sampled_records
from data_pipeline.records.source import open_records

_HERE = Path(__file__).parent
_SCRIPT = (_HERE / "browse.js").read_text()
_SCRIPT_HASH = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()

CONTENT_POLICY = (
    "default-src 'none'; img-src 'self' data:; style-src 'unsafe-inline'; connect-src 'self'; "
    f"script-src 'sha256-{_SCRIPT_HASH}'; base-uri 'none'; form-action 'none'"
)
"""No script runs but ours, known by its hash, even if a text were to enter the page as markup."""


@dataclasses.dataclass(frozen=True)
class BrowseReport:
    """The page that was written: its size, its records, and those of them that can't be shown or
    whose pictures can't."""

    path: str
    bytes: int
    records: int
    faults: int


def write_browse_page(
    data_folder: PathLike,
    out: PathLike,
    split: str = "train",
    limit: int = 200,
    seed: int = 0,
    longest_side: int = 640,
) -> BrowseReport:
    """Writes a page of up to `limit` records, drawn by `seed`, that needs nothing but itself.

    Pictures larger than `longest_side` pixels are scaled down.
    """
    for what, number in (("limit of records", limit), ("pictures' side", longest_side)):
        if number < 1:
            raise UserError(f"the {what} is {number}; expected 1 or more.")
    source = open_records(data_folder, split)
    rows = sampled_records(source, limit, seed, longest_side)
    title = f"{source.header.name}, {split}: {len(rows):,} of {len(source):,} records"
    text = browse_page(title, {"records": rows})
    write_text(out, text)
    faults = sum("fault" in row or None in row["pictures"] for row in rows)
    return BrowseReport(str(out), len(text.encode()), len(rows), faults)


def browse_page(title: str, data: dict[str, Any]) -> str:
    """The page around `data`: {"records": [...]}, or {"total": n} where a server has them."""
    total = len(data["records"]) if "records" in data else data["total"]
    # Inside a script element only "<" could end it or open a comment.
    embedded = json.dumps(data, ensure_ascii=False).replace("<", "\\u003c")
    body = fragment(
        element("header", element("h1", title), *_controls(total)),
        element("p", id="status", role="status"),
        element("div", id="record"),
        _keys(),
        element("script", Html(embedded), type="application/json", id="data"),
        element("script", Html(_SCRIPT)),
    )
    policy = element("meta", http_equiv="Content-Security-Policy", content=CONTENT_POLICY)
    return page(title, body, style=(_HERE / "browse.css").read_text(), head=policy)


def _controls(total: int) -> list[Html]:
    rounds = [element("option", "any rounds", value=0)]
    rounds += [element("option", f"{n} or more rounds", value=n) for n in (2, 3, 5, 10)]
    place = element("input", id="place", type="number", min=1, max=total, value=1)
    return [
        element("input", id="text", type="search", placeholder="search", aria_label="search text"),
        element("select", element("option", "all kinds", value=""), id="kind", aria_label="kind"),
        element("select", *rounds, id="rounds", aria_label="rounds"),
        element("label", element("input", id="boxes", type="checkbox"), " with boxes"),
        element(
            "nav",
            element("button", "←", id="previous", type="button", aria_label="previous record"),
            element("label", place, f" of {total:,}"),
            element("button", "→", id="next", type="button", aria_label="next record"),
        ),
    ]


def _keys() -> Html:
    keys = (("←", "previous"), ("→", "next"), ("/", "search"), ("Esc", "leave the search"))
    parts = [fragment(element("kbd", key), f" {does}  ") for key, does in keys]
    return element("p", *parts, id="keys", class_="soft small")
