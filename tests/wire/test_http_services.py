"""What services may answer, and what their faults become for the client."""

import json
import socket
import struct
import threading

import pytest
from tests.testbeds.gateway import Gateway
from tests.testbeds.processes import free_port
from tests.testbeds.wire import OK, Client, Origin, answer
from tests.wire.conftest import Start

GET = b"GET /a/x HTTP/1.1\r\nHost: h\r\n\r\n"
POST = b"POST /a/x HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi"


def test_connections_are_kept_and_used_again(gateway: Gateway, origin: Origin) -> None:
    with Client(gateway.port) as client:
        for _ in range(5):
            assert client.send(GET).read_answer()[2] == b"ok"
    assert origin.connections == 1


def test_a_refused_instance_is_passed_over_for_any_method(start: Start, origin: Origin) -> None:
    """U1."""
    gateway = start(f"""
services:
  two:
    http:
      instances: ["http://127.0.0.1:{free_port()}", "http://127.0.0.1:{origin.port}"]
      balance: round_robin
defaults: {{public: true}}
routes: {{"ANY /a/{{rest...}}": {{call: two}}}}
""")
    with Client(gateway.port) as client:
        assert [client.send(message).read_answer()[0] for message in (GET, POST) * 2] == [200] * 4
    assert gateway.metrics()['castlegate_upstream_retries_total{service="two",reason="connect"}'] >= 1


def test_a_service_that_is_not_there_is_a_502_that_was_not_sent(start: Start) -> None:
    gateway = start(f"""
services: {{none: {{http: ["http://127.0.0.1:{free_port()}"]}}}}
defaults: {{public: true}}
routes: {{"GET /a/x": {{call: none}}}}
""")
    with Client(gateway.port) as client:
        status, _, body = client.send(GET).read_answer()
    assert (status, json.loads(body)["outcome"]) == (502, "not_sent")


def test_a_service_that_hangs_is_a_504_and_its_connection_is_closed(gateway: Gateway, origin: Origin) -> None:
    """U4."""
    hung_up = threading.Event()

    def hang(connection: socket.socket, _request: bytes) -> bool:
        connection.settimeout(5)
        try:
            connection.recv(1)
        except ConnectionResetError:
            pass
        hung_up.set()
        return False

    origin.script = hang
    with Client(gateway.port) as client:
        status, _, body = client.send(GET).read_answer()
        assert (status, json.loads(body)["outcome"]) == (504, "unknown")
        assert hung_up.wait(5)
        origin.script = answer(OK)
        assert client.send(GET).read_answer()[0] == 200
    assert origin.connections == 2


BAD_ANSWERS = {
    "two lengths": b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nokk",
    "length and coding": b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "a NUL in a field": b"HTTP/1.1 200 OK\r\nx: a\x00b\r\ncontent-length: 2\r\n\r\nok",
    "no HTTP": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "a head of 200 KB": b"HTTP/1.1 200 OK\r\nx: " + b"y" * 200_000 + b"\r\ncontent-length: 2\r\n\r\nok",
    "500 fields": b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 500 + b"content-length: 2\r\n\r\nok",
    "endless interim answers": b"HTTP/1.1 103 Early Hints\r\n\r\n" * 1000 + OK,
    "switching protocols unasked": b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
}


@pytest.mark.parametrize("name", BAD_ANSWERS)
def test_a_bad_answer_is_a_502_and_the_connection_is_not_used_again(
    gateway: Gateway, origin: Origin, name: str
) -> None:
    origin.script = answer(BAD_ANSWERS[name])
    with Client(gateway.port) as client:
        status, _, body = client.send(GET).read_answer()
        assert (status, json.loads(body)["type"]) == (502, "urn:castlegate:bad_answer")
        origin.script = answer(OK)
        assert client.send(GET).read_answer()[2] == b"ok"
    assert origin.connections == 2


def test_a_cut_body_is_never_delivered_as_complete(gateway: Gateway, origin: Origin) -> None:
    def cut(connection: socket.socket, _request: bytes) -> bool:
        connection.sendall(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n")
        return False

    origin.script = cut
    with Client(gateway.port) as client, pytest.raises((EOFError, ConnectionResetError)):
        client.send(GET).read_answer()


def test_an_answer_that_ends_with_the_connection_is_whole(gateway: Gateway, origin: Origin) -> None:
    def until_close(connection: socket.socket, _request: bytes) -> bool:
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\nall of it")
        return False

    origin.script = until_close
    with Client(gateway.port) as client:
        assert client.send(GET).read_answer()[2] == b"all of it"


def test_an_answer_that_ends_with_a_reset_is_cut(gateway: Gateway, origin: Origin) -> None:
    delivered = threading.Event()

    def reset(connection: socket.socket, _request: bytes) -> bool:
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\npart")
        assert delivered.wait(5)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return False

    origin.script = reset
    with Client(gateway.port) as client:
        client.send(GET).read_until(b"part\r\n")
        delivered.set()
        assert b"0\r\n\r\n" not in client.read_to_end()


def test_http_1_0_gets_a_body_of_unknown_length_until_the_end_of_the_connection(
    gateway: Gateway, origin: Origin
) -> None:
    delivered = threading.Event()

    def stream(connection: socket.socket, _request: bytes) -> bool:
        connection.sendall(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n")
        assert delivered.wait(5)
        connection.sendall(b"4\r\n you\r\n0\r\n\r\n")
        return True

    origin.script = stream
    with Client(gateway.port) as client:
        client.send(b"GET /a/x HTTP/1.0\r\nHost: h\r\nConnection: keep-alive\r\n\r\n")
        seen = client.read_until(b"hello")
        delivered.set()
        seen += client.read_to_end()
    assert b"transfer-encoding" not in seen
    assert b"connection: close\r\n" in seen
    assert seen.endswith(b"\r\n\r\nhello you")


def test_interim_answers_are_passed_over(gateway: Gateway, origin: Origin) -> None:
    origin.script = answer(b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + OK)
    with Client(gateway.port) as client:
        status, fields, body = client.send(GET).read_answer()
    assert (status, body) == (200, b"ok")
    assert "link" not in fields


def test_an_idle_connection_that_was_closed_costs_no_request(gateway: Gateway, origin: Origin) -> None:
    """U9: the instance closes each connection as the next request reaches it."""

    def once(connection: socket.socket, request: bytes) -> bool:
        if getattr(once, "last", None) is connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return False
        once.last = connection  # type: ignore[attr-defined]
        connection.sendall(OK)
        return True

    origin.script = once
    with Client(gateway.port) as client:
        assert [client.send(GET).read_answer()[0] for _ in range(20)] == [200] * 20


def test_a_post_that_may_have_arrived_is_not_sent_again(gateway: Gateway, origin: Origin) -> None:
    origin.script = lambda connection, request: False
    with Client(gateway.port) as client:
        status, _, body = client.send(POST).read_answer()
    assert (status, json.loads(body)["outcome"]) == (502, "unknown")
    assert len(origin.seen) == 1


def test_an_upload_waits_for_a_connection_no_longer_than_its_route_allows(start: Start, origin: Origin) -> None:
    gateway = start(f"""
services: {{origin: {{http: {{instances: ["http://127.0.0.1:{origin.port}"], pool: {{connections: 1}}}}}}}}
defaults: {{public: true}}
routes: {{"GET /a/x": {{call: origin, timeout: 20s}}, "POST /a/x": {{call: origin, timeout: 300ms}}}}
""")
    asked, answered = threading.Event(), threading.Event()

    def hold(connection: socket.socket, _request: bytes) -> bool:
        asked.set()
        assert answered.wait(10)
        connection.sendall(OK)
        return True

    origin.script = hold
    with Client(gateway.port) as first, Client(gateway.port) as second:
        first.send(GET)
        assert asked.wait(5)
        second.send(b"POST /a/x HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\nh")
        status, _, body = second.read_answer()
        answered.set()
        assert (status, json.loads(body)["outcome"]) == (504, "not_sent")
        assert first.read_answer()[0] == 200
    assert len(origin.seen) == 1


def test_a_large_body_streams_both_ways(start: Start, origin: Origin) -> None:
    gateway = start(f"""
services: {{origin: {{http: ["http://127.0.0.1:{origin.port}"]}}}}
defaults: {{public: true}}
routes: {{"POST /a/x": {{call: origin}}}}
""")
    size = 4_000_000

    def echo(connection: socket.socket, request: bytes) -> bool:
        body = request.partition(b"\r\n\r\n")[2]
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        return True

    origin.script = echo
    data = bytes(range(256)) * (size // 256)
    with Client(gateway.port, timeout_s=20) as client:
        client.send(b"POST /a/x HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % len(data) + data)
        assert client.read_answer()[2] == data


def test_a_client_that_leaves_ends_the_call(gateway: Gateway, origin: Origin) -> None:
    """C11 over HTTP: nothing waits for nobody."""
    left, ended = threading.Event(), threading.Event()

    def wait(connection: socket.socket, _request: bytes) -> bool:
        left.set()
        connection.settimeout(0.9)
        try:
            connection.recv(1)
        except ConnectionResetError:
            pass
        except TimeoutError:
            return False
        ended.set()
        return False

    origin.script = wait
    with Client(gateway.port) as client:
        client.send(GET)
        assert left.wait(5)
    assert ended.wait(5)
    assert gateway.wait_logged(1)[0]["status"] == 499


def test_a_small_body_is_collected_before_the_service_is_asked(gateway: Gateway, origin: Origin) -> None:
    with Client(gateway.port) as slow, Client(gateway.port) as other:
        slow.send(b"POST /a/x HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nha")
        assert other.send(b"GET /a/y HTTP/1.1\r\nHost: h\r\n\r\n").read_answer()[0] == 200
        assert origin.connections == 1
        slow.send(b"lf")
        assert slow.read_answer()[0] == 200
    assert origin.connections == 1, "the connection was free for it"
    assert origin.seen[-1].endswith(b"\r\n\r\nhalf")
