"""A server that answers what a test tells it to."""

from __future__ import annotations

import base64
import http.server
import json
import threading

import pytest


class Script(http.server.ThreadingHTTPServer):
    """Answers requests from a list of `(status, headers, document)` or callables, then 200."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.script: list = []
        self.requests: list[tuple[str, str, dict | None]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        document = json.loads(body) if body else None
        self.server.requests.append((self.command, self.path, document))
        step = self.server.script.pop(0) if self.server.script else (200, {}, classes(document))
        if callable(step):
            step(self)
            return
        status, headers, answer = step
        content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = answer  # noqa: N815

    def log_message(self, *args: object) -> None:
        pass


def classes(document: dict | None) -> dict:
    """Names each image after its content."""
    if document is None or not isinstance(document["inputs"], dict):
        return {"models": ["m"]}
    contents = [base64.b64decode(i["b64"]) for i in document["inputs"].get("image_bytes", [])]
    return {
        "outputs": {
            "classes": [[c.decode(), "other"] for c in contents],
            "scores": [[0.75, 0.25] for _ in contents],
        }
    }


@pytest.fixture
def server():
    server = Script()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()
