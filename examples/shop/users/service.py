"""The shop's users, over plain HTTP: nothing here knows of a gateway or of Kafka.

Look at: the routes of `do_GET` and `do_POST`; the gateway forwards requests to them as they are. `check` says whose a
name and a password are, and what they may do; the gateway makes the tokens.
Run: PORT=8001 python service.py
"""

import contextlib
import hmac
import json
import os
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

users: dict[str, dict[str, str]] = {
    "1": {"id": "1", "name": "Ada", "email": "ada@shop.example"},
    "2": {"id": "2", "name": "Linus", "email": "linus@shop.example"},
}

# A real service keeps hashes that are slow to compute, such as argon2's.
passwords = {"ada": "lovelace", "linus": "penguin"}
grants: dict[str, dict[str, Any]] = {
    "ada": {"subject": "1", "scopes": ["stock:reserve"], "claims": {"name": "Ada", "role": "staff"}},
    "linus": {"subject": "2", "scopes": [], "claims": {"name": "Linus", "role": "customer"}},
}


class Users(BaseHTTPRequestHandler):
    """One object for each connection; HTTP/1.1 keeps it open between requests."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        user_id = path.removeprefix("/users/")
        if path == "/healthz":
            self.answer(HTTPStatus.OK, {"status": "ok"})
        elif path == "/users":
            self.answer(HTTPStatus.OK, list(users.values()))
        elif user_id in users:
            self.answer(HTTPStatus.OK, users[user_id])
        else:
            self.answer(HTTPStatus.NOT_FOUND, {"error": f"nothing at {path}"})

    def do_POST(self) -> None:
        if "Content-Length" not in self.headers:
            self.close_connection = True  # a body of unknown length may follow
            self.answer(HTTPStatus.LENGTH_REQUIRED, {"error": "say how long the body is"})
            return
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/check":
            self.check(body)
        elif self.path == "/users":
            self.add(body)
        else:
            self.answer(HTTPStatus.NOT_FOUND, {"error": f"nothing at {self.path}"})

    def check(self, body: bytes) -> None:
        try:
            said = json.loads(body)
            name, password = str(said["name"]), str(said["password"])
        except (ValueError, KeyError, TypeError):
            self.answer(HTTPStatus.BAD_REQUEST, {"error": "a login needs a name and a password"})
            return
        right = hmac.compare_digest(passwords.get(name, "").encode(), password.encode()) and name in passwords
        self.answer(
            *((HTTPStatus.OK, grants[name]) if right else (HTTPStatus.UNAUTHORIZED, {"error": "not the password"}))
        )

    def add(self, body: bytes) -> None:
        try:
            wanted = json.loads(body)
            user = {"id": str(len(users) + 1), "name": str(wanted["name"]), "email": str(wanted["email"])}
        except (ValueError, KeyError, TypeError):
            self.answer(HTTPStatus.BAD_REQUEST, {"error": "a user needs a name and an email"})
            return
        users[user["id"]] = user
        self.answer(HTTPStatus.CREATED, user, location=f"/users/{user['id']}")

    def answer(self, status: HTTPStatus, content: Any, location: str | None = None) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if location:
            self.send_header("Location", location)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Say nothing of each request: the gateway's access log does."""


class Server(ThreadingHTTPServer):
    """A thread for each connection."""

    daemon_threads = True
    request_queue_size = 128


if __name__ == "__main__":
    server = Server(("127.0.0.1", int(os.environ.get("PORT", "8001"))), Users)
    print(f"users ready on http://127.0.0.1:{server.server_port}", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        server.serve_forever()
