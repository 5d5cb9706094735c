"""A caller that is cancelled when its answer is there, but before it could take it, leaves nothing behind."""

import asyncio

import pytest
from tests.kafka.calls import make_request
from tests.testbeds.cancelling import cancelled_when_settled
from tests.testbeds.wire import Origin, answer

from castlegate.headers import Headers
from castlegate.message import Call
from castlegate.telemetry.metrics import Registry
from castlegate.upstreams.http.settings import HttpService
from castlegate.upstreams.http.upstream import HttpUpstream
from castlegate.wire.timer import Timer

BEGUN = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n"


@pytest.mark.parametrize("given", [BEGUN, BEGUN + b"0\r\n\r\n"])
async def test_the_connection_of_an_answer_that_nobody_took_is_free_again(given: bytes) -> None:
    with Origin(answer(given)) as origin:
        settings = HttpService(instances=[f"http://127.0.0.1:{origin.port}"])
        timer = Timer(asyncio.get_running_loop())
        upstream = HttpUpstream("origin", settings, timer, Registry())
        caller = upstream.bind("")
        for _ in range(4):  # every other time it is the connection that was just made
            request = make_request()
            request.forwarded = b"via: 1.1 test"
            call = Call(request, b"GET", b"/", Headers(), b"", None, 5.0, idempotent=True)
            task = cancelled_when_settled(caller(call))  # type: ignore[arg-type]
            with pytest.raises(asyncio.CancelledError):
                await task
            (instance,) = upstream.instances.members
            assert instance.pool.open == instance.pool.idle
            assert instance.in_flight == 0
        assert len(origin.seen) >= 2
        upstream.close()
        for _ in range(3):
            await asyncio.sleep(0)
