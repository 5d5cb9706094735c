"""Slow uploads have a share of a service's connections, and everybody else the rest."""

import contextlib
from collections.abc import Iterator

import pytest
from tests.testbeds.gateway import Gateway
from tests.testbeds.wire import Client, Origin
from tests.wire.conftest import Start

GET = b"GET /a/x HTTP/1.1\r\nHost: h\r\n\r\n"
FRAMINGS = {
    "announced": (b"Content-Length: 5000\r\n\r\n" + b"x" * 4999, b"x"),
    "chunked": (b"Transfer-Encoding: chunked\r\n\r\n1387\r\n" + b"x" * 4999 + b"\r\n", b"0\r\n\r\n"),
}


@pytest.fixture(params=FRAMINGS)
def framing(request: pytest.FixtureRequest) -> tuple[bytes, bytes]:
    """Of an upload: all but its end, and its end."""
    return FRAMINGS[request.param]


def gateway_with(
    start: Start, origin: Origin, pool: str, timeout: str = "5s, limits: {buffer: 1000B}", listen: str = ""
) -> Gateway:
    return start(f"""
listen: {{address: "127.0.0.1:0", {listen}}}
services: {{origin: {{http: {{instances: ["http://127.0.0.1:{origin.port}"], pool: {{{pool}}}}}}}}}
defaults: {{public: true, timeout: {timeout}}}
routes: {{"ANY /a/x": {{call: origin}}}}
""")


@contextlib.contextmanager
def uploading(gateway: Gateway, count: int, begun: bytes) -> Iterator[list[Client]]:
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Client(gateway.port)) for _ in range(count)]
        for client in clients:
            client.send(b"POST /a/x HTTP/1.1\r\nHost: h\r\n" + begun)
        yield clients


def counted(gateway: Gateway, state: str) -> float:
    return gateway.metrics()[f'castlegate_upstream_connections{{service="origin",state="{state}"}}']


def waiting(gateway: Gateway) -> float:
    return gateway.metrics()['castlegate_upstream_waiting{service="origin"}']


def test_slow_uploads_leave_room_for_others(start: Start, origin: Origin, framing: tuple[bytes, bytes]) -> None:
    begun, end = framing
    gateway = gateway_with(start, origin, "connections: 4")
    with uploading(gateway, 8, begun) as clients:
        gateway.program.wait_until(lambda: waiting(gateway) == 6, "six that wait for their turn")
        assert counted(gateway, "busy") == 2
        with Client(gateway.port) as other:
            for _ in range(20):
                assert other.send(GET).read_answer()[0] == 200
        for client in clients:  # all of them get their turn
            client.send(end)
        for client in clients:
            assert client.read_answer()[0] == 200
    assert len(origin.seen) == 28
    assert origin.unfinished == []


def test_uploads_beyond_those_that_may_wait_are_refused_unsent(
    start: Start, origin: Origin, framing: tuple[bytes, bytes]
) -> None:
    begun, _ = framing
    gateway = gateway_with(start, origin, "connections: 4, uploads: 1, waiting: 2")
    with uploading(gateway, 3, begun):
        gateway.program.wait_until(lambda: waiting(gateway) == 2, "two that wait for their turn")
        with Client(gateway.port) as one_more:
            one_more.send(b"POST /a/x HTTP/1.1\r\nHost: h\r\n" + begun)
            status, fields, body = one_more.read_answer()
        assert (status, fields["retry-after"]) == (503, "1")
        assert b'"not_sent"' in body
        with Client(gateway.port) as other:
            assert other.send(GET).read_answer()[0] == 200


def test_who_waits_too_long_for_its_turn_is_refused_unsent(start: Start, origin: Origin) -> None:
    gateway = gateway_with(start, origin, "connections: 4, uploads: 1", timeout="300ms, limits: {buffer: 1000B}")
    with uploading(gateway, 3, FRAMINGS["announced"][0]) as clients:
        answers = sorted(client.read_answer()[0] for client in clients[1:])
        assert answers == [503, 503]
        assert waiting(gateway) == 0
        assert clients[0].send(b"x").read_answer()[0] == 200


def test_who_waits_for_its_turn_is_told_what_is_wrong_with_its_body(start: Start, origin: Origin) -> None:
    gateway = gateway_with(start, origin, "connections: 4, uploads: 1", "5s, limits: {buffer: 1000B, body: 20KB}")
    with uploading(gateway, 1, FRAMINGS["announced"][0]), Client(gateway.port) as client:
        gateway.program.wait_until(lambda: counted(gateway, "busy") == 1, "the one that is being sent")
        client.send(b"POST /a/x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2000\r\n" + b"x" * 0x2000)
        gateway.program.wait_until(lambda: waiting(gateway) == 1, "the one that waits for its turn")
        client.send(b"\r\n4000\r\n" + b"x" * 0x4000)
        assert client.read_answer()[0] == 413
        assert waiting(gateway) == 0


def test_who_waits_for_its_turn_and_sends_no_more_is_told_so(start: Start, origin: Origin) -> None:
    gateway = gateway_with(
        start, origin, "connections: 4, uploads: 1", "5s, limits: {buffer: 1000B}", "timeouts: {body: 1s}"
    )
    with uploading(gateway, 1, FRAMINGS["announced"][0]) as clients, Client(gateway.port) as client:
        gateway.program.wait_until(lambda: counted(gateway, "busy") == 1, "the one that is being sent")
        client.send(b"POST /a/x HTTP/1.1\r\nHost: h\r\n" + FRAMINGS["announced"][0])
        assert client.read_answer()[0] == 408
        assert clients[0].read_answer()[0] == 408


def test_those_that_leave_give_their_turn_to_others(start: Start, origin: Origin, framing: tuple[bytes, bytes]) -> None:
    begun, end = framing
    gateway = gateway_with(start, origin, "connections: 2")
    with uploading(gateway, 1, begun), uploading(gateway, 2, begun):
        gateway.program.wait_until(lambda: waiting(gateway) == 2, "two that wait for their turn")
    with uploading(gateway, 3, begun) as clients:
        for client in clients:
            client.send(end)
        for client in clients:
            assert client.read_answer()[0] == 200


def test_a_service_that_answers_before_the_upload_has_ended_gives_its_turn_to_others(
    start: Start, origin: Origin, framing: tuple[bytes, bytes]
) -> None:
    gateway = gateway_with(start, origin, "connections: 2")
    origin.early = b"HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno"
    with uploading(gateway, 6, framing[0]) as clients:
        for client in clients:
            assert client.read_answer()[0] == 403


def test_a_service_that_is_not_there_takes_nobodys_turn(start: Start, origin: Origin) -> None:
    gateway = gateway_with(start, origin, "connections: 2")
    origin.stop_listening()
    with uploading(gateway, 6, FRAMINGS["announced"][0]) as clients:
        for client in clients:
            assert client.read_answer()[0] == 502
