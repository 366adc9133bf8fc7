"""A small server on this machine alone, so that a dataset of any size can be paged through."""

import http.server
import json
from urllib.parse import parse_qs, urlsplit

from data_pipeline.common.errors import BadRecordError, UserError
from data_pipeline.inspection.browse_page import CONTENT_POLICY, browse_page
from data_pipeline.inspection.browse_records import record_at
from data_pipeline.inspection.pictures import media_type
from data_pipeline.records.source import RecordSource

HOST = "127.0.0.1"
MOST_RECORDS = 100
"""In one answer."""

_JSON, _HTML, _TEXT = (
    f"{kind}; charset=utf-8" for kind in ("application/json", "text/html", "text/plain")
)


class BrowseServer(http.server.ThreadingHTTPServer):
    """Answers on 127.0.0.1 with the page, records and pictures; each is read when it is asked for.

    `port` 0 takes a free one. Raises UserError where the port is taken.
    """

    daemon_threads = True

    def __init__(self, source: RecordSource, port: int):
        self.source = source
        title = f"{source.header.name}, {source.header.split}"
        self.page = browse_page(title, {"total": len(source)}).encode()
        try:
            super().__init__((HOST, port), _Handler)
        except (OSError, OverflowError) as error:
            raise UserError(f"port {port} can't be served ({error}); choose another one.") from None

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.server_address[1]}/"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: BrowseServer

    def do_GET(self) -> None:
        # A page of the web may name this machine by a domain of its own to read what we serve.
        host = urlsplit(f"//{self.headers.get('Host', '')}").hostname
        if host not in (HOST, "localhost"):
            self._answer(403, _TEXT, b"This server answers to localhost only.")
            return
        address = urlsplit(self.path)
        try:
            query = {name: int(values[0]) for name, values in parse_qs(address.query).items()}
            if address.path == "/":
                self._answer(200, _HTML, self.server.page)
            elif address.path == "/records":
                self._records(query["start"], query["count"])
            elif address.path == "/picture":
                self._picture(query["record"], query.get("number", 0))
            else:
                self._answer(404, _TEXT, b"There is no such page.")
        except (ValueError, KeyError, IndexError):
            self._answer(400, _TEXT, b"Give start and count, or record, within the dataset.")

    def _records(self, start: int, count: int) -> None:
        source = self.server.source
        if not 0 <= start < len(source):
            raise IndexError(start)
        stop = min(start + min(count, MOST_RECORDS), len(source))
        rows = [record_at(source, index)[0] for index in range(start, stop)]
        self._answer(200, _JSON, json.dumps(rows, ensure_ascii=False).encode())

    def _picture(self, index: int, number: int) -> None:
        try:
            images = self.server.source[index].images
        except BadRecordError as error:
            self._answer(404, _TEXT, str(error).encode())
            return
        data = images[number] if 0 <= number < len(images) else None
        kind = media_type(data) if data is not None else None
        if data is None or kind is None:
            self._answer(404, _TEXT, b"The record has no picture that can be shown.")
            return
        self._answer(200, kind, data)

    def _answer(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Security-Policy", CONTENT_POLICY)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: a line for each picture would bury the address."""
