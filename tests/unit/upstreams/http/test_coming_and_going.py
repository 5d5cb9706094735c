"""Instances that come and go while calls run, and what is in flight at each."""

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator

import pytest
from tests.kafka.calls import make_request
from tests.testbeds.processes import free_port
from tests.testbeds.wire import Origin, answer

from castlegate.body import Body
from castlegate.errors import CallFailed, Kinds
from castlegate.headers import Headers
from castlegate.message import Call
from castlegate.telemetry.metrics import Registry
from castlegate.upstreams.http.balance import Balance
from castlegate.upstreams.http.settings import HttpPool, HttpService
from castlegate.upstreams.http.upstream import HttpUpstream
from castlegate.wire.timer import Timer

_BEGUN = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n"


def call() -> Call:
    return Call(make_request(), b"GET", b"/", Headers(), b"", None, 5.0, idempotent=True)


class Held:
    """An origin whose answers end when they are let go."""

    def __init__(self) -> None:
        self.go = threading.Event()

    def script(self, connection: socket.socket, _request: bytes) -> bool:
        connection.sendall(_BEGUN)
        self.go.wait(10)
        connection.sendall(b"0\r\n\r\n")
        return True


@pytest.fixture
def held() -> Iterator[Held]:
    held = Held()
    yield held
    held.go.set()


def upstream_of(*ports: int, connections: int = 8) -> HttpUpstream:
    settings = HttpService(
        instances=[f"http://127.0.0.1:{port}" for port in ports],
        balance=Balance(by="round_robin"),
        pool=HttpPool(connections=connections),
    )
    return HttpUpstream("service", settings, Timer(asyncio.get_running_loop()), Registry())


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not holds():  # noqa: ASYNC110 - what an origin's thread does
            await asyncio.sleep(0.005)


async def test_a_call_is_in_flight_until_the_last_byte_of_its_answer(held: Held) -> None:
    with Origin(held.script) as origin:
        upstream = upstream_of(origin.port)
        (instance,) = upstream.instances.members
        reply = await upstream.bind("")(call())
        assert isinstance(reply.body, Body)
        assert await reply.body.read() == b"first"
        assert instance.in_flight == 1
        held.go.set()
        assert await reply.body.read() == b""
        assert instance.in_flight == 0
        upstream.close()


async def test_a_call_whose_answer_nobody_wants_any_more_is_not_in_flight(held: Held) -> None:
    with Origin(held.script) as origin:
        upstream = upstream_of(origin.port)
        (instance,) = upstream.instances.members
        reply = await upstream.bind("")(call())
        reply.close()
        assert instance.in_flight == 0
        held.go.set()
        upstream.close()


async def test_a_call_that_failed_or_was_given_up_is_not_in_flight(held: Held) -> None:
    with Origin(lambda _connection, _request: held.go.wait(10)) as origin:
        upstream = upstream_of(free_port(), origin.port)
        missing, silent = upstream.instances.members
        with pytest.raises(CallFailed) as failed:
            await upstream.bind("")(call())
        assert failed.value.kind is Kinds.CONNECT
        asked = asyncio.ensure_future(upstream.bind("")(call()))
        await until(lambda: bool(origin.seen))
        assert (missing.in_flight, silent.in_flight) == (0, 1)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        assert (silent.in_flight, silent.pool.open) == (0, 0)
        held.go.set()
        upstream.close()


async def test_a_removed_instance_ends_what_is_there_also_what_still_waits_for_a_connection(held: Held) -> None:
    with Origin(held.script) as going, Origin(answer(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nnew")) as coming:
        upstream = upstream_of(going.port, connections=1)
        (old,) = upstream.instances.members
        first = await upstream.bind("")(call())
        second = asyncio.ensure_future(upstream.bind("")(call()))
        await until(lambda: old.in_flight == 2)
        upstream.add(f"http://127.0.0.1:{coming.port}")
        upstream.remove(old)
        assert {(await upstream.bind("")(call())).body for _ in range(3)} == {b"new"}
        held.go.set()
        for reply in (first, await second):
            assert isinstance(reply.body, Body)
            while await reply.body.read():
                pass
        assert (old.in_flight, old.pool.open) == (0, 0)
        upstream.close()


async def test_without_an_instance_nothing_is_sent() -> None:
    upstream = upstream_of(free_port())
    upstream.remove(upstream.instances.members[0])
    with pytest.raises(CallFailed) as failed:
        await upstream.bind("")(call())
    assert (failed.value.kind, failed.value.outcome) == (Kinds.NO_INSTANCE, "not_sent")


async def test_a_plain_instance_is_not_added_over_tls_without_what_that_needs() -> None:
    upstream = upstream_of(free_port())
    with pytest.raises(ValueError, match="http://"):
        upstream.add("https://users-9:443")
    assert len(upstream.instances.members) == 1
