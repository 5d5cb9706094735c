"""A gateway that composes, between a raw client and services that answer as the test says."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.testbeds.gateway import Gateway
from tests.testbeds.wire import Client, Origin

Start = Callable[..., Gateway]


def http(
    content: bytes, status: int = 200, kind: str | None = "application/json", fields: tuple[str, ...] = ()
) -> bytes:
    """A whole answer."""
    lines = [f"HTTP/1.1 {status} x", f"content-length: {len(content)}", *fields]
    lines += [] if kind is None else [f"content-type: {kind}"]
    return "\r\n".join([*lines, "", ""]).encode() + content


class Services(Origin):
    """One HTTP service; what it answers is said by path. `hold` names paths that are not answered until `release`."""

    def __init__(self) -> None:
        self.answers: dict[str, bytes] = {}
        self.held: dict[str, threading.Event] = {}
        self.cuts: set[str] = set()  # paths on which the connection ends behind the answer
        super().__init__(self._answer)

    def says(self, path: str, value: Any, **more: Any) -> None:
        """JSON, for every request of this path, without its query."""
        self.answers[path] = http(json.dumps(value).encode(), **more)

    def hold(self, *paths: str) -> None:
        """Answer nothing on these paths until they are released."""
        for path in paths:
            self.held[path] = threading.Event()

    def release(self, *paths: str) -> None:
        """Answer on them from now on."""
        for path in paths or list(self.held):
            self.held[path].set()

    def __exit__(self, *_: object) -> None:
        self.release()
        super().__exit__(*_)

    def asked(self, path: str) -> list[bytes]:
        """The requests of this path, head and body."""
        return [request for request in self.seen if _path(request) == path]

    def wait_asked(self, path: str, gateway: Gateway, count: int = 1) -> None:
        """Until so many requests of this path are here."""
        gateway.program.wait_until(lambda: len(self.asked(path)) >= count, f"{count} requests of {path}")

    def _answer(self, connection: socket.socket, request: bytes) -> bool:
        path = _path(request)
        if path in self.held:
            self.held[path].wait(10)
        answer = self.answers.get(path)
        if answer is None:
            return False
        connection.sendall(answer)
        return path not in self.cuts


def _path(request: bytes) -> str:
    return request.split(b" ", 2)[1].partition(b"?")[0].decode()


class Answer:
    """What a client got."""

    def __init__(self, status: int, fields: dict[str, str], body: bytes) -> None:
        self.status, self.fields, self.body = status, fields, body

    @property
    def json(self) -> Any:
        """The body, in which no member may stand twice."""
        return json.loads(self.body.decode(), object_pairs_hook=_once, parse_constant=_refuse)

    @property
    def parts(self) -> dict[str, str]:
        """Part → outcome, by the field."""
        listed = self.fields["castlegate-parts"].split(", ")
        return {each.split(";")[0]: each.split(";")[1].removeprefix("outcome=") for each in listed}


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return dict(pairs)


def _refuse(constant: str) -> Any:
    raise AssertionError(f"{constant} is no JSON")


def ask(gateway: Gateway, path: str, *fields: str, method: str = "GET", body: bytes = b"") -> Answer:
    """One request on a connection of its own."""
    lines = [f"{method} {path} HTTP/1.1", "Host: h", "Connection: close", *fields]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    with Client(gateway.port) as client:
        client.send("\r\n".join([*lines, "", ""]).encode() + body)
        return Answer(*client.read_answer())


@pytest.fixture
def services() -> Iterator[Services]:
    with Services() as services:
        yield services


@pytest.fixture
def start(tmp_path: Path, services: Services) -> Iterator[Start]:
    """Starts gateways on routes, whose service is `s`; stops them, and sees that they hold nothing any more."""
    running: list[Gateway] = []

    def start(routes: str, more: str = "", timeout: str = "2s", kafka: str = "") -> Gateway:
        config = f"""
services:
  s: {{http: ["http://127.0.0.1:{services.port}"]}}
{"" if not kafka else f"  {kafka}: {{kafka: {kafka}}}"}
  gone: {{http: ["http://127.0.0.1:1"]}}
defaults: {{public: true, timeout: {timeout}}}
{more}
routes:
{routes}
"""
        running.append(Gateway(tmp_path, config))
        return running[-1]

    yield start
    services.release()
    for gateway in running:
        assert_quiet(gateway)
        gateway.stop()


def assert_quiet(gateway: Gateway) -> None:
    """No connection is busy, nothing waits for a reply."""

    def quiet() -> bool:
        busy = [
            value
            for name, value in gateway.metrics().items()
            if ('state="busy"' in name) or name.startswith(("castlegate_kafka_pending", "castlegate_upstream_waiting"))
        ]
        return not any(busy)

    gateway.program.wait_until(quiet, "nothing is under way")
