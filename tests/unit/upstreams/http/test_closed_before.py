"""A call given to a connection that ends in the same turn of the loop was never sent, and is told so."""

import asyncio
import socket

import pytest
from tests.kafka.calls import make_request

from castlegate.errors import CallFailed, Outcome
from castlegate.headers import Headers
from castlegate.message import Call
from castlegate.rules.instances import Instance
from castlegate.upstreams.http.connection import ServerConnection
from castlegate.upstreams.http.framing import AnswerReader
from castlegate.upstreams.http.pool import Pool
from castlegate.upstreams.http.settings import HttpPool
from castlegate.wire.timer import Timer

STALE = b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


@pytest.mark.parametrize("last", [b"", STALE], ids=["closed", "bytes that nobody asked for"])
async def test_it_was_not_sent_and_nothing_of_it_leaves(last: bytes) -> None:
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    pool = Pool(Instance("service:80"), "service", 80, HttpPool(), AnswerReader(100), Timer(loop))
    connection = ServerConnection(pool)
    await loop.create_connection(lambda: connection, sock=ours)
    pool._open = 1
    connection.handed_over = True
    call = Call(make_request(), b"GET", b"/", Headers(), b"", None, 5.0, idempotent=True)
    waiter = connection.send(call, b"GET / HTTP/1.1\r\n\r\n", loop.time() + 5, None)
    # What has come in the meantime is read in the same turn, before anything is written.
    if last:
        connection.data_received(last)
    else:
        connection.connection_lost(None)
    with pytest.raises(CallFailed) as failed:
        await waiter
    with theirs:
        reader, writer = await asyncio.open_connection(sock=theirs)
        assert await reader.read() == b""
        writer.close()
    assert failed.value.outcome is Outcome.NOT_SENT
