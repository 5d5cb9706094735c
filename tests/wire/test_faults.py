"""Faults at both ends that would mix answers up, wait forever or grow without bound."""

import json
import socket
import threading

import pytest
from tests.testbeds.gateway import Gateway
from tests.testbeds.wire import OK, Client, Origin, answer
from tests.wire.conftest import Start

GET = b"GET /a/x HTTP/1.1\r\nHost: h\r\n\r\n"

SURPLUS = {
    "a whole second answer": OK.replace(b"ok", b"hi") + OK,
    "a bodiless answer and another": b"HTTP/1.1 204 No Content\r\n\r\n" + OK,
    "a chunked answer and another": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n" + OK,
    "half of a second head": OK.replace(b"ok", b"hi") + b"HTTP/1.1 200 O",
    "bytes that are no answer": OK.replace(b"ok", b"hi") + b"surplus",
}


@pytest.mark.parametrize("name", SURPLUS)
def test_what_follows_an_answer_unasked_is_nobodys(gateway: Gateway, origin: Origin, name: str) -> None:
    origin.script = answer(SURPLUS[name])
    with Client(gateway.port) as client:
        status, _, body = client.send(GET).read_answer()
        assert (status, body) in ((200, b"hi"), (204, b""))
        origin.script = answer(OK)
        assert client.send(GET).read_answer()[2] == b"ok"
    assert origin.connections == 2


def test_a_service_that_stops_reading_an_upload_is_given_up(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        gateway = start(f"""
services: {{deaf: {{http: {{instances: ["http://127.0.0.1:{deaf.getsockname()[1]}"], pool: {{read_timeout: 500ms}}}}}}}}
defaults: {{public: true, limits: {{body: 1GiB}}}}
routes: {{"POST /a/x": {{call: deaf, timeout: 500ms}}}}
""")
        with Client(gateway.port, timeout_s=10) as client:
            client.send(b"POST /a/x HTTP/1.1\r\nHost: h\r\nContent-Length: 500000000\r\n\r\n")
            sender = threading.Thread(target=_send_much, args=(client,))
            sender.start()
            assert client.read_answer()[0] == 504
            client.socket.shutdown(socket.SHUT_RDWR)
            sender.join(5)


def _send_much(client: Client) -> None:
    try:
        for _ in range(500):
            client.socket.sendall(b"x" * 1_000_000)
    except OSError:
        return


def test_a_client_that_never_reads_its_answer_is_cut(start: Start, origin: Origin) -> None:
    gateway = start(f"""
listen: {{address: "127.0.0.1:0", timeouts: {{write: 500ms}}}}
services: {{origin: {{http: ["http://127.0.0.1:{origin.port}"]}}}}
defaults: {{public: true}}
routes: {{"GET /a/x": {{call: origin}}}}
""")
    size = 60_000  # below the high-water mark of the gateway's buffer, above what the client's window takes
    origin.script = answer(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size + b"x" * size)
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        client.settimeout(10)
        client.connect(("127.0.0.1", gateway.port))
        for _ in range(60):
            client.sendall(GET)
        client.sendall(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        gateway.program.wait_until(lambda: gateway.metrics()["castlegate_connections"] == 0, "the cut", 10)


def test_a_slow_client_that_goes_on_reading_is_not_cut(start: Start, origin: Origin) -> None:
    """It reads for several times the write timeout, always less than the buffers between hold."""
    gateway = start(f"""
listen: {{address: "127.0.0.1:0", timeouts: {{write: 500ms}}}}
services: {{origin: {{http: ["http://127.0.0.1:{origin.port}"]}}}}
defaults: {{public: true}}
routes: {{"GET /a/x": {{call: origin}}}}
""")
    size = 8_000_000
    origin.script = answer(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size + b"x" * size)
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        client.settimeout(10)
        client.connect(("127.0.0.1", gateway.port))
        client.sendall(GET)
        pace, taken = threading.Event(), 0
        for _ in range(40):
            taken += len(client.recv(65536))
            pace.wait(0.05)  # the slowness itself
        while data := client.recv(1_000_000):
            taken += len(data)
            if taken > size:
                break
    assert taken > size


def test_empty_lines_before_a_request_are_not_endless(gateway: Gateway, origin: Origin) -> None:
    with Client(gateway.port) as client:
        assert client.send(b"\r\n" + GET).read_answer()[0] == 200
        assert client.send(b"\r\n" * 1000 + GET).read_answer()[0] == 400
    assert len(origin.seen) == 1


def _echo_path(connection: socket.socket, request: bytes) -> bool:
    path = request.split(b" ")[1]
    connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(path), path))
    return True


@pytest.mark.parametrize("pipelined", [1, 2, 32])
def test_requests_that_arrive_while_others_are_answered_keep_their_order(
    start: Start, origin: Origin, pipelined: int
) -> None:
    gateway = start(f"""
listen: {{address: "127.0.0.1:0", limits: {{pipelined: {pipelined}}}}}
services: {{origin: {{http: ["http://127.0.0.1:{origin.port}"]}}}}
defaults: {{public: true}}
routes: {{"GET /a/{{n}}": {{call: origin}}}}
""")
    origin.script = _echo_path
    for _ in range(10):
        with Client(gateway.port) as client:
            client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for index in range(40):
                client.send(b"GET /a/%d HTTP/1.1\r\nHost: h\r\n\r\n" % index)
            assert [client.read_answer()[2] for _ in range(40)] == [b"/a/%d" % index for index in range(40)]


def test_a_pipelined_upload_that_stalls_is_answered_408(gateway: Gateway) -> None:
    with Client(gateway.port) as client:
        client.send(GET + b"POST /a/2 HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n")
        assert [client.read_answer()[0], client.read_answer()[0]] == [200, 408]


def test_tiny_chunks_do_not_hold_up_others(gateway: Gateway, origin: Origin) -> None:
    """A body of one-byte chunks is decoded in turns, between which others are served."""
    with Client(gateway.port) as busy, Client(gateway.port) as other:
        busy.send(b"POST /a/x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 900)
        assert other.send(GET).read_answer()[0] == 200
        assert busy.send(b"0\r\n\r\n").read_answer()[0] == 200
    assert any(request.startswith(b"POST") for request in origin.seen)


def test_a_call_that_was_sent_twice_is_never_said_to_be_not_sent(gateway: Gateway, origin: Origin) -> None:
    put = b"PUT /a/x HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi"
    with Client(gateway.port) as client:
        assert client.send(put).read_answer()[0] == 200

        def vanish(_connection: socket.socket, _request: bytes) -> bool:
            origin.stop_listening()
            return False

        origin.script = vanish
        status, _, body = client.send(put).read_answer()
    assert (status, json.loads(body)["outcome"]) == (502, "unknown")
    assert len(origin.seen) == 2


def test_a_service_s_own_request_id_is_not_doubled(gateway: Gateway, origin: Origin) -> None:
    origin.script = answer(OK.replace(b"\r\n\r\n", b"\r\nx-request-id: theirs\r\n\r\n"))
    with Client(gateway.port) as client:
        assert client.send(GET).read_until(b"ok").lower().count(b"x-request-id:") == 1


def test_a_status_that_is_none_is_a_bad_answer(gateway: Gateway, origin: Origin) -> None:
    origin.script = answer(OK.replace(b"200", b"099"))
    with Client(gateway.port) as client:
        assert client.send(GET).read_answer()[0] == 502


def test_more_pipelined_requests_than_may_wait_are_answered_all_the_same(gateway: Gateway) -> None:
    count = 2000
    with Client(gateway.port, timeout_s=20) as client:
        sender = threading.Thread(target=client.socket.sendall, args=(GET * count,))
        sender.start()
        assert {client.read_answer()[0] for _ in range(count)} == {200}
        sender.join(5)


def test_a_refusal_reaches_a_client_that_is_still_sending(gateway: Gateway) -> None:
    for _ in range(20):
        with Client(gateway.port) as client:
            try:
                client.send(b"POST /a/x HTTP/1.1\r\nHost: h\r\nContent-Length: 900000\r\n\r\n" + b"x" * 900_000)
            except (BrokenPipeError, ConnectionResetError):
                pytest.fail("the connection was reset while the client was sending")
            assert client.read_answer()[0] == 413


def test_an_answer_that_broke_off_is_not_asked_for_again(gateway: Gateway, origin: Origin) -> None:
    """Only silence on a connection that was used before is taken for the race with its closing."""
    with Client(gateway.port) as client:
        assert client.send(GET).read_answer()[0] == 200

        def half(connection: socket.socket, _request: bytes) -> bool:
            connection.sendall(b"HTTP/1.1 200 O")
            return False

        origin.script = half
        assert client.send(GET).read_answer()[0] == 502
    assert len(origin.seen) == 2


def test_a_service_that_closes_each_new_connection_is_a_502_that_was_not_sent(start: Start) -> None:
    with Origin() as closing:
        closing.accepts = False
        gateway = start(f"""
services: {{closing: {{http: ["http://127.0.0.1:{closing.port}"]}}}}
defaults: {{public: true, timeout: 5s}}
routes: {{"GET /a/x": {{call: closing}}}}
""")
        with Client(gateway.port) as client:
            assert [client.send(GET).read_answer()[0] for _ in range(10)] == [502] * 10


UNTRUSTED = (b"X-Forwarded-Prefix", b"X_Forwarded_For", b"X-Real-IP", b"x-forwarded-user", b"X-Forwarded_Host")


def test_no_field_of_a_proxy_is_believed_in_any_spelling(gateway: Gateway, origin: Origin) -> None:
    lines = b"".join(b"%b: evil\r\n" % name for name in UNTRUSTED)
    with Client(gateway.port) as client:
        client.send(b"GET /a/x HTTP/1.1\r\nHost: h\r\n" + lines + b"\r\n").read_answer()
    assert b"evil" not in origin.seen[0]


def test_a_trusted_proxy_is_believed_and_continued(start: Start, origin: Origin) -> None:
    gateway = start(f"""
listen: {{address: "127.0.0.1:0", trusted_proxies: [127.0.0.0/8]}}
services: {{origin: {{http: ["http://127.0.0.1:{origin.port}"]}}}}
defaults: {{public: true}}
routes: {{"GET /a/x": {{call: origin}}}}
""")
    with Client(gateway.port) as client:
        fields = b"X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Prefix: /shop\r\n"
        client.send(b"GET /a/x HTTP/1.1\r\nHost: h\r\n" + fields + b"\r\n").read_answer()
    assert b"x-forwarded-for: 192.0.2.7, 127.0.0.1\r\n" in origin.seen[0]
    assert b"x-forwarded-proto: https\r\n" in origin.seen[0]
    assert b"x-forwarded-prefix: /shop\r\n" in origin.seen[0]
    assert gateway.wait_logged(1)[0]["client"] == "192.0.2.7"


def test_a_secret_is_redacted_in_any_spelling_of_its_name(gateway: Gateway) -> None:
    with Client(gateway.port) as client:
        client.send(
            b"GET /a/x?tok%65n=hunter2&TOKEN=hunter2&user[token]=hunter2&q=1 HTTP/1.1\r\nHost: h\r\n\r\n"
        ).read_answer()
    assert "hunter2" not in gateway.wait_logged(1)[0]["query"]
    assert gateway.access_log.stat().st_mode & 0o007 == 0
