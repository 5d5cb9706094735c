"""The shop's recommendations, over plain HTTP: what somebody might like. The home page can do without them.

Run: PORT=8002 python service.py
"""

import contextlib
import json
import os
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

liked = {"1": ["table", "chair"], "2": ["lamp"]}


class Recommendations(BaseHTTPRequestHandler):
    """One object for each connection; HTTP/1.1 keeps it open between requests."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        user = self.path.removeprefix("/recs/")
        body = json.dumps({"items": liked.get(user, ["lamp"])}).encode()
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing of each request: the gateway's access log does."""


class Server(ThreadingHTTPServer):
    """A thread for each connection."""

    daemon_threads = True


if __name__ == "__main__":
    server = Server(("127.0.0.1", int(os.environ.get("PORT", "8002"))), Recommendations)
    print(f"recs ready on http://127.0.0.1:{server.server_port}", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        server.serve_forever()
