"""A judge on loopback that speaks the chat-completions API, and grades by a rule."""

import http.server
import json
import threading
from collections.abc import Callable
from typing import Any


class JudgeServer:
    """`rule` takes the body of a call and gives the reply; an int is an HTTP error, None a reply
    that the endpoint's filter withholds. It keeps the calls."""

    def __init__(self, rule: Callable[[dict[str, Any]], str | int | None]):
        self.calls: list[dict[str, Any]] = []
        judge = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                judge.calls.append(body)
                reply = rule(body)
                status = reply if isinstance(reply, int) else 200
                message = {"role": "assistant", "content": reply}
                finish = "content_filter" if reply is None else "stop"
                content = {
                    "object": "chat.completion",
                    "choices": [{"index": 0, "message": message, "finish_reason": finish}],
                    "usage": {"prompt_tokens": 100, "completion_tokens": 3, "total_tokens": 103},
                }
                if status != 200:
                    content = {"error": {"code": "", "message": "as the test wants it"}}
                payload = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(payload)))
                self.end_headers()
                self.wfile.write(payload)

            def log_message(self, *arguments: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> "JudgeServer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
