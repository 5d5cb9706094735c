"""How the doctor reaches things: nothing that hangs holds it up for longer than allowed."""

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from castlegate.doctor.findings import Unreachable, connect, in_thread


@pytest.fixture
def full() -> Iterator[int]:
    """A port whose queue of connections is full: further ones get no answer."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        waiting = []
        for _ in range(8):
            each = socket.socket()
            each.setblocking(False)
            each.connect_ex(listening.getsockname())
            waiting.append(each)
        yield listening.getsockname()[1]
        for each in waiting:
            each.close()


async def test_a_port_that_never_answers(full: int) -> None:
    began = time.monotonic()
    with pytest.raises(Unreachable, match=r"127\.0\.0\.1: no answer within 0\.3 s") as raised:
        await connect("127.0.0.1", full, 0.3)
    assert time.monotonic() - began < 3
    assert "firewall" in raised.value.advice


async def test_a_name_that_is_not_resolved_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    answered = threading.Event()

    def hang(*_: object, **__: object) -> list[object]:
        answered.wait(30)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    try:
        with pytest.raises(Unreachable, match=r"'slow\.example' was not resolved within 0\.2 s"):
            await connect("slow.example", 80, 0.2)
    finally:
        answered.set()


async def test_what_a_thread_raises_is_raised_where_it_is_awaited() -> None:
    def fail() -> None:
        raise LookupError("x")

    with pytest.raises(LookupError, match="x"):
        await in_thread(fail, 5)
    assert await in_thread(lambda: 5, 5) == 5
