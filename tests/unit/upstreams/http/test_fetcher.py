"""What the gateway asks for itself arrives as it should."""

import asyncio
from pathlib import Path

from tests.testbeds.wire import Origin

from castlegate.headers import Headers
from castlegate.telemetry.metrics import Registry
from castlegate.upstreams.http.fetcher import HttpFetcher
from castlegate.wire.service_tls import ServiceTls
from castlegate.wire.timer import Timer


async def test_a_request_is_one_message_and_its_connection_serves_the_next_one() -> None:
    with Origin() as origin:
        timer = Timer(asyncio.get_running_loop())
        url = f"http://127.0.0.1:{origin.port}"
        fetcher = HttpFetcher("keys", url, ServiceTls(), ("tls",), timer, Registry(), Path())
        fields = Headers.of([(b"accept", b"application/json")])
        for _ in range(2):
            answer = await fetcher.fetch(b"GET", b"/keys?v=1", fields, b"", within=5.0, limit=100)
            assert (answer.status, answer.body) == (200, b"ok")
        await fetcher.stop()
    assert [request.split(b"\r\n")[0] for request in origin.seen] == [b"GET /keys?v=1 HTTP/1.1"] * 2
    assert origin.connections == 1
    for request in origin.seen:
        assert b"\r\nuser-agent: castlegate\r\nx-request-id: " in request
        assert b"\r\nhost: 127.0.0.1:%d\r\n" % origin.port in request
