"""A client that is still sending when it is refused reads why, and no reset in its place (RFC 9112 §9.6)."""

import select

import pytest
from tests.testbeds.gateway import Gateway
from tests.testbeds.wire import Client, Origin
from tests.wire.conftest import Start

HEAD = b"POST /a/x HTTP/1.1\r\nHost: h\r\n"
GET = b"GET /a/x HTTP/1.1\r\nHost: h\r\n\r\n"
CHUNK = b"4000\r\n" + b"x" * 0x4000 + b"\r\n"  # the gateway takes 1000 bytes
LAST = GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")

# What is sent before the answer is to be had, what is sent on and on afterwards, and the answer.
STILL_SENDING = {
    "a chunked body that crosses the limit": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNK, CHUNK, 413),
    "a chunked body that crosses it in its second chunk": (
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n3e8\r\n" + b"x" * 1000 + b"\r\n", CHUNK, 413
    ),
    "a body announced as too long": (HEAD + b"Content-Length: 999999999\r\n\r\n", CHUNK, 413),
    "a chunk that is malformed": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\nabc", CHUNK, 400),
    "a head that is malformed": (b"GET  /a/x HTTP/1.1\r\nHost: h\r\n\r\n", CHUNK, 400),
    "a head that is too large": (b"GET /a/x HTTP/1.1\r\nHost: h\r\nX: " + b"x" * 40_000, b"x" * 16_000, 431),
    "a body for which there is no route": (b"POST /no HTTP/1.1\r\nHost: h\r\nContent-Length: 900\r\n\r\n", b"x", 404),
    "requests behind the last one": (LAST + GET * 3, GET, 200),
    "half a request behind the last one": (LAST + GET[:20], b"x", 200),
}  # fmt: skip


@pytest.mark.parametrize("name", STILL_SENDING)
def test_who_is_still_sending_reads_the_answer_and_the_end(gateway: Gateway, origin: Origin, name: str) -> None:
    first, more, status = STILL_SENDING[name]
    with Client(gateway.port) as client:
        client.send(first)
        ended = select.poll()
        ended.register(client.socket, select.POLLRDHUP)
        while not ended.poll(0):  # a client that looks at nothing before it has sent all
            client.send(more)
        for _ in range(20):
            client.send(more)
        assert client.read_answer()[0] == status
        assert client.socket.recv(1) == b""


def test_one_connection_too_many_reads_so(start: Start, origin: Origin) -> None:
    gateway = start(f"""
listen: {{address: "127.0.0.1:0", limits: {{connections: 2}}}}
services: {{origin: {{http: ["http://127.0.0.1:{origin.port}"]}}}}
routes: {{"ANY /a/x": {{call: origin, public: true}}}}
""")
    with Client(gateway.port) as first, Client(gateway.port) as second:
        assert [each.send(GET).read_answer()[0] for each in (first, second)] == [200, 200]
        for _ in range(5):  # one after the other, so each has room to linger
            with Client(gateway.port) as client:
                client.send(HEAD + b"Content-Length: 40000\r\n\r\n")
                ended = select.poll()
                ended.register(client.socket, select.POLLRDHUP)
                while not ended.poll(0):
                    client.send(b"x" * 100)
                for _ in range(20):
                    client.send(b"x" * 1000)
                status, fields, _ = client.read_answer()
                assert (status, fields["retry-after"], client.socket.recv(1)) == (503, "1", b"")
        assert first.send(GET).read_answer()[0] == 200
    gateway.program.wait_until(lambda: gateway.metrics()["castlegate_connections"] == 0, "the end of all")
    with Client(gateway.port) as client:
        assert client.send(GET).read_answer()[0] == 200


def test_who_never_stops_sending_is_cut(gateway: Gateway) -> None:
    with Client(gateway.port) as client:
        client.send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        with pytest.raises(OSError, match=r"Broken pipe|reset"):
            _send_for_good(client)


def _send_for_good(client: Client) -> None:
    while True:
        client.send(CHUNK)
