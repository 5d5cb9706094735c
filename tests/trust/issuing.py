"""What tests of the issuer share: keys, a service that knows who has which password, and how clients ask."""

import contextlib
import http.client
import json
import socket
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

PASSWORDS = {"ann": "correct horse", "bob": "battery staple"}
KINDS = {
    "ES256": ["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
    "EdDSA": ["genpkey", "-algorithm", "ED25519"],
    "RS256": ["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
}


def make_key(folder: Path, name: str, kind: str = "ES256") -> Path:
    """As the guide tells to make one."""
    path = folder / name
    subprocess.run(["openssl", *KINDS[kind], "-out", path], check=True, capture_output=True)
    path.chmod(0o600)
    return path


def know_people(connection: socket.socket, request: bytes) -> bool:
    """A login service: 401 with telling words, 200 with claims, 429 and 503 for some, and no answer that can be used."""
    body = json.loads(request.partition(b"\r\n\r\n")[2])
    name, status, more, answer = body["name"], 200, "", None
    if name == "busy":
        status, more, answer = 429, "retry-after: 7\r\n", {"message": "busy busy"}
    elif name == "down":
        status, more, answer = 503, "retry-after: 9\r\n", {"message": "database is down"}
    elif name == "broken":
        answer = {"id": 7}
    elif name == "nobody":
        answer = None
    elif PASSWORDS.get(name) != body["password"]:
        status, answer = 401 if name in PASSWORDS else 404, {"message": f"there is something about {name}"}
    else:
        answer = {"subject": name, "scopes": ["read", "write"], "claims": {"role": "admin", "shoe": 44, "iss": "me"}}
    text = json.dumps(answer).encode()
    head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n{more}connection: close\r\n"
    with contextlib.suppress(OSError):
        connection.sendall(f"{head}content-length: {len(text)}\r\n\r\n".encode() + text)
    return False


class Answer(NamedTuple):
    status: int
    fields: dict[str, str]
    document: Any

    @property
    def access(self) -> str:
        """The access token."""
        return str(self.document["access_token"])

    @property
    def refresh(self) -> str:
        """The refresh token, in body or cookie."""
        if "refresh_token" in self.document:
            return str(self.document["refresh_token"])
        return self.fields["set-cookie"].partition("=")[2].partition(";")[0]


def ask(port: int, method: str, path: str, body: Any = None, fields: dict[str, str] | None = None) -> Answer:
    """One request; `body` is sent as JSON unless it is text."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=15)
    sent = body if body is None or isinstance(body, str) else json.dumps(body)
    try:
        connection.request(method, path, sent, {"content-type": "application/json", **(fields or {})})
        got = connection.getresponse()
        text = got.read()
        document = json.loads(text) if "json" in got.headers.get("content-type", "") else text.decode()
        return Answer(got.status, {name.lower(): value for name, value in got.headers.items()}, document)
    finally:
        connection.close()


def login(port: int, name: str = "ann", password: str | None = None) -> Answer:
    given = PASSWORDS.get(name, "?") if password is None else password
    return ask(port, "POST", "/auth/login", {"name": name, "password": given})


def refresh(port: int, token: str) -> Answer:
    return ask(port, "POST", "/auth/refresh", {"refresh_token": token})


def logout(port: int, token: str) -> Answer:
    return ask(port, "POST", "/auth/logout", {"refresh_token": token})


def whose(port: int, token: str) -> Answer:
    """What the service behind a protected route is told."""
    return ask(port, "GET", "/me", fields={"authorization": f"Bearer {token}"})
