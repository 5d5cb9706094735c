"""Active checks of scripted instances: what passes, what fails, and why, as operators read it."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.testbeds.processes import free_port
from tests.testbeds.wire import OK, Origin, answer

from castlegate.config.report import Report
from castlegate.telemetry.metrics import Registry
from castlegate.upstreams.http.checks import Checks
from castlegate.upstreams.http.health import Health
from castlegate.upstreams.http.settings import HttpService
from castlegate.wire.timer import Timer


@asynccontextmanager
async def checking(*ports: int, http: dict[str, Any] | None = None, **said: Any) -> AsyncIterator[Checks]:
    """Runs checks; every one has been made once when this goes on."""
    urls = [f"http://127.0.0.1:{port}" for port in ports]
    health = Health(**{"path": "/healthz", "interval": 0.01, "timeout": 0.5, **said})
    timer = Timer(asyncio.get_running_loop())
    service = HttpService(instances=urls, **(http or {}))
    checks = Checks("users", health, service, timer, Registry(), Path(), lambda: None)
    await checks.start()
    checks.follow(urls)
    try:
        await until(lambda: not any(out.why == "not checked yet" for out in checks.outs().values()))
        yield checks
    finally:
        await checks.stop()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - whatever it is about
            await asyncio.sleep(0.001)


async def why(script: Callable[[socket.socket, bytes], bool], **said: Any) -> str:
    """Why an instance is out that answers so, nothing if it is not."""
    with Origin(script) as origin:
        async with checking(origin.port, **said) as checks:
            return "".join(out.why for out in checks.outs().values())


async def test_an_instance_is_asked_as_said_on_a_connection_of_its_own() -> None:
    with Origin() as origin:
        async with checking(origin.port, path="/up?deep=1", http={"host": "users.test"}) as checks:
            await until(lambda: len(origin.seen) >= 3)
            assert checks.outs() == {}
        head = b"GET /up?deep=1 HTTP/1.1\r\nhost: users.test\r\nuser-agent: castlegate\r\nconnection: close\r\n\r\n"
        assert set(origin.seen) == {head}
        assert origin.connections >= len(origin.seen)


async def test_one_that_has_come_is_out_until_it_has_passed() -> None:
    with Origin() as origin:
        async with checking(origin.port) as checks:
            other = f"127.0.0.1:{free_port()}"
            checks.follow([f"http://127.0.0.1:{origin.port}", f"http://{other}"])
            assert checks.outs()[other].why == "not checked yet"
            await until(lambda: checks.outs()[other].why == "The service could not be reached")


def body(status: int, content: bytes) -> Callable[[socket.socket, bytes], bool]:
    return answer(b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n\r\n%b" % (status, len(content), content))


def reset(connection: socket.socket, _request: bytes) -> bool:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return False


@pytest.mark.parametrize("said", [{}, {"status": [204, 503]}, {"body": "ready"}, {"method": "HEAD"}])
async def test_what_passes(said: dict[str, Any]) -> None:
    script = {
        "status": body(503, b""),
        "body": body(200, b"all ready now"),
        "method": answer(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n"),
    }
    assert await why(script.get(next(iter(said), ""), answer(OK)), **said) == ""


@pytest.mark.parametrize(
    ("script", "said", "reason"),
    [
        (body(503, b"ok"), {}, "its status was 503"),
        (body(302, b"ok"), {}, "its status was 302"),
        (body(200, b"ok"), {"status": [204]}, "its status was 200"),
        (body(200, b"starting"), {"body": "ready"}, "its answer had not the body that is expected"),
        (body(200, b"x" * 65536 + b"ready"), {"body": "ready"}, "its answer had not the body that is expected"),
        (answer(b"SSH-2.0-OpenSSH\r\n\r\n"), {}, "The service's answer is not valid: its status line is malformed"),
        (reset, {}, "The service broke off its answer"),
        (answer(b""), {"timeout": 0.1}, "no answer within 100ms"),
        (answer(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n"), {"timeout": 0.1}, "no answer within 100ms"),
    ],
)  # fmt: skip
async def test_what_fails_and_why(
    script: Callable[[socket.socket, bytes], bool], said: dict[str, Any], reason: str
) -> None:
    assert await why(script, **said) == reason


async def test_a_check_that_only_connects_asks_nothing() -> None:
    with Origin() as origin:
        refused = free_port()
        async with checking(origin.port, refused, path="tcp") as checks:
            assert {name: out.why for name, out in checks.outs().items()} == {
                f"127.0.0.1:{refused}": "it could not be reached"
            }
        assert origin.seen == []


async def test_another_port_may_be_asked() -> None:
    with Origin() as origin:
        async with checking(free_port(), port=origin.port) as checks:
            assert checks.outs() == {}


async def test_it_takes_so_many_failures_and_passes_in_a_row() -> None:
    with Origin() as origin:
        async with checking(origin.port, unhealthy=3, healthy=2) as checks:
            failing, asked = body(500, b""), len(origin.seen)
            origin.script = failing
            await until(lambda: checks.outs())
            assert len(origin.seen) - asked >= 3
            origin.script, asked = answer(OK), len(origin.seen)
            await until(lambda: not checks.outs())
            assert len(origin.seen) - asked >= 2


async def test_one_that_hangs_holds_up_no_other() -> None:
    with socket.create_server(("127.0.0.1", 0)) as hanging, Origin() as origin:
        async with checking(origin.port, hanging.getsockname()[1], timeout=0.3) as checks:
            asked = len(origin.seen)
            await until(lambda: len(origin.seen) > asked + 3)
            assert list(checks.outs()) == [f"127.0.0.1:{hanging.getsockname()[1]}"]


async def test_one_that_is_gone_is_asked_no_more() -> None:
    with Origin() as origin, Origin() as other:
        async with checking(origin.port, other.port) as checks:
            checks.follow([f"http://127.0.0.1:{origin.port}"])
            await until(lambda: not other._open)
            asked, before = len(other.seen), len(origin.seen)
            await until(lambda: len(origin.seen) > before + 3)
            assert len(other.seen) == asked


@pytest.mark.parametrize(
    ("said", "mistake"),
    [
        ({"path": "healthz"}, "expected a path such as /healthz, or 'tcp', found 'healthz'"),
        ({"path": "tcp", "body": "ok"}, "a check that only connects has no answer"),
        ({"path": "/x", "method": "HEAD", "body": "ok"}, "answers to HEAD have no body"),
    ],
)
def test_what_does_not_go_together_is_a_mistake(said: dict[str, Any], mistake: str) -> None:
    report = Report()
    Health(**said).check(report.place())
    assert mistake in str(report)
