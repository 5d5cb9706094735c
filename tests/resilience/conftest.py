"""A gateway between clients and services that fail as they are told."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.testbeds.gateway import Gateway
from tests.testbeds.wire import OK, Client, Origin, Script

Start = Callable[[str], Gateway]


class Told(Origin):
    """An instance that does with its next requests what it is told, and answers 200 to all others."""

    def __init__(self) -> None:
        self.todo: deque[Script] = deque()
        self.otherwise: Script = says(200)
        super().__init__(self._do)

    def reset(self) -> None:
        self.todo.clear()
        self.otherwise = says(200)
        self.seen.clear()
        self.hang_up()

    def _do(self, connection: Any, request: bytes) -> bool:
        try:
            script = self.todo.popleft()
        except IndexError:
            script = self.otherwise
        return script(connection, request)


def says(status: int, fields: str = "", body: bytes = b"ok") -> Script:
    """Answers so."""

    def script(connection: Any, _request: bytes) -> bool:
        head = f"HTTP/1.1 {status} Told\r\ncontent-length: {len(body)}\r\n{fields}\r\n"
        connection.sendall(head.encode() + body)
        return True

    return script


def closes(_connection: Any, _request: bytes) -> bool:
    """Ends the connection without an answer."""
    return False


def is_slow(seconds: float, then: Script | None = None) -> Script:
    """Answers after a while, or sooner if the gateway goes away."""

    def script(connection: Any, request: bytes) -> bool:
        connection.settimeout(seconds)
        try:
            if connection.recv(1) == b"":
                return False
        except TimeoutError:
            pass
        except OSError:
            return False
        connection.settimeout(None)
        return (then or says(200))(connection, request)

    return script


def holds(release: threading.Event) -> Script:
    """Answers when it is released."""

    def script(connection: Any, _request: bytes) -> bool:
        release.wait(10)
        connection.sendall(OK)
        return True

    return script


def first_does(one: Told, other: Told, first: Script, then: Script) -> None:
    """Whichever is asked first does one thing, all others another."""
    todo = [first]

    def script(connection: Any, request: bytes) -> bool:
        return (todo.pop() if todo else then)(connection, request)

    one.otherwise = other.otherwise = script


def ask(gateway: Gateway, line: str, *fields: str, body: bytes = b"") -> tuple[int, dict[str, str], bytes]:
    """One request on a connection of its own."""
    length = f"Content-Length: {len(body)}\r\n" if body or line.startswith(("POST", "PUT", "PATCH")) else ""
    head = f"{line} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{length}" + "".join(f"{each}\r\n" for each in fields)
    with Client(gateway.port, 40) as client:
        return client.send(f"{head}\r\n".encode() + body).read_answer()


def eventually(is_so: Callable[[], bool], timeout_s: float = 10.0) -> None:
    """Wait until it is so."""
    end = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < end, "it never was so"
        time.sleep(0.01)


@pytest.fixture(scope="module")
def one() -> Iterator[Told]:
    with Told() as told:
        yield told


@pytest.fixture(scope="module")
def other() -> Iterator[Told]:
    with Told() as told:
        yield told


@pytest.fixture(autouse=True)
def _fresh(request: pytest.FixtureRequest) -> Iterator[None]:
    """Nothing of one test is left to the next."""
    yield
    for name in ("one", "other"):
        if name in request.fixturenames:
            request.getfixturevalue(name).reset()


@pytest.fixture(scope="module")
def start_shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Starts gateways for all tests of a module."""
    running: list[Gateway] = []

    def start(config: str) -> Gateway:
        running.append(Gateway(tmp_path_factory.mktemp("gateway"), config))
        return running[-1]

    yield start
    for gateway in running:
        gateway.stop()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts gateways on configurations, and stops them."""
    running: list[Gateway] = []

    def start(config: str) -> Gateway:
        running.append(Gateway(tmp_path, config))
        return running[-1]

    yield start
    for gateway in running:
        gateway.stop()
