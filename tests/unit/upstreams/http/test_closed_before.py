"""A call given to a connection that ends in the same turn of the loop was never sent, and is told so."""

import asyncio
import socket
from collections.abc import Callable

import pytest
from tests.kafka.calls import make_request

from castlegate.errors import CallFailed, Outcome
from castlegate.headers import Headers
from castlegate.message import Call, Reply
from castlegate.rules.instances import Instance
from castlegate.upstreams.http.connection import ServerConnection
from castlegate.upstreams.http.framing import AnswerReader
from castlegate.upstreams.http.pool import Pool
from castlegate.upstreams.http.settings import HttpPool
from castlegate.waiting import Waiter
from castlegate.wire.timer import Timer

STALE = b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"

ENDS: dict[str, Callable[[ServerConnection], None]] = {
    "orderly": lambda connection: connection.eof_received(),
    "reset": lambda connection: connection.connection_lost(ConnectionResetError()),
    "with bytes that nobody asked for": lambda connection: connection.data_received(STALE),
}


async def connected() -> tuple[ServerConnection, Instance, socket.socket]:
    """A connection whose other end is the socket, given to a call."""
    ours, theirs = socket.socketpair()
    instance = Instance("service:80")
    pool = Pool(instance, "service", 80, HttpPool(), AnswerReader(100), Timer(asyncio.get_running_loop()))
    connection = ServerConnection(pool)
    await asyncio.get_running_loop().create_connection(lambda: connection, sock=ours)
    pool._open = 1
    connection.handed_over = True
    return connection, instance, theirs


def send(connection: ServerConnection, instance: Instance) -> Waiter[Reply]:
    instance.in_flight += 1
    call = Call(make_request(), b"GET", b"/", Headers(), b"", None, 5.0, idempotent=True)
    return connection.send(call, b"GET / HTTP/1.1\r\n\r\n", asyncio.get_running_loop().time() + 5, None)


async def received(theirs: socket.socket) -> bytes:
    with theirs:
        reader, writer = await asyncio.open_connection(sock=theirs)
        content = await reader.read()
        writer.close()
        return content


@pytest.mark.parametrize("end", ENDS)
async def test_it_was_not_sent_and_nothing_of_it_leaves(end: str) -> None:
    connection, instance, theirs = await connected()
    waiter = send(connection, instance)
    ENDS[end](connection)  # what has come in the meantime is read before anything is written
    with pytest.raises(CallFailed) as failed:
        await waiter
    assert failed.value.outcome is Outcome.NOT_SENT
    assert await received(theirs) == b""
    assert instance.in_flight == 0


async def test_one_that_has_ended_already_fails_at_once() -> None:
    connection, instance, theirs = await connected()
    connection.connection_lost(None)
    waiter = send(connection, instance)
    with pytest.raises(CallFailed) as failed:
        await asyncio.wait_for(asyncio.ensure_future(_result(waiter)), 1)
    assert failed.value.outcome is Outcome.NOT_SENT
    assert instance.in_flight == 0
    theirs.close()


async def _result(waiter: Waiter[Reply]) -> Reply:
    return await waiter
