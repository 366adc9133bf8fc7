"""The web page, which is one file, and the policy that lets it run its own scripts alone."""

import base64
import hashlib
from html.parser import HTMLParser
from pathlib import Path

from starlette.responses import Response

PAGE = Path(__file__).with_name("page.html")


def page_response(file: Path = PAGE) -> Response:
    """The page as a browser gets it. Raises FileNotFoundError where there is none."""
    text = file.read_text()
    return Response(
        text,
        media_type="text/html",
        headers={
            "Content-Security-Policy": content_policy(text),
            "Referrer-Policy": "no-referrer",
        },
    )


def content_policy(text: str) -> str:
    """Lets the page's own scripts and styles in, by their hashes, pictures that the reader chose,
    and requests to this server; nothing else."""
    inline = _Inline()
    inline.feed(text)
    inline.close()
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src {_hashes(inline.texts['script'])}",
            f"style-src {_hashes(inline.texts['style'])}",
            "img-src 'self' data: blob:",
            "media-src blob:",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    )


def _hashes(texts: list[str]) -> str:
    digests = [hashlib.sha256(text.encode()).digest() for text in texts]
    return " ".join(f"'sha256-{base64.b64encode(d).decode()}'" for d in digests) or "'none'"


class _Inline(HTMLParser):
    """The texts of inline scripts and styles."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=False)
        self.texts: dict[str, list[str]] = {"script": [], "style": []}
        self._within = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._within = tag if tag in self.texts else ""
        if self._within:
            self.texts[tag].append("")

    def handle_data(self, data: str) -> None:
        if self._within:
            self.texts[self._within][-1] += data

    def handle_endtag(self, tag: str) -> None:
        self._within = ""
