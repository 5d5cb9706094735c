"""The cases of *Client input*, and floods. Each ends with the rules of `conftest`."""

import contextlib
import json
import select
import socket
import struct
import threading
import time

import pytest
from confluent_kafka import Consumer, TopicPartition
from tests.conftest import Broker
from tests.faults.conftest import CONFIG, Attack, Attacked
from tests.testbeds.topics import create_topics
from tests.testbeds.wire import OK, Client, Origin, answer

GET = b"GET /a/x HTTP/1.1\r\nHost: h\r\n\r\n"
HALF = b"POST /a/x HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nhello"
SHORT = ", timeouts: {header: 1500ms, body: 1s, idle: 30s}"
MIB = 1024 * 1024


def refused(gateway: Attacked, reason: str) -> float:
    return gateway.metrics().get(f'castlegate_refused_total{{reason="{reason}"}}', 0)


def test_c1_length_and_coding_together_are_refused(attack: Attack, origin: Origin) -> None:
    gateway = attack()
    both = [b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n"]
    for count, lines in enumerate((both, both[::-1]), start=1):
        with Client(gateway.port) as client:
            client.send(b"POST /a/x HTTP/1.1\r\nHost: h\r\n" + b"".join(lines) + b"\r\n0\r\n\r\n" + GET)
            assert client.read_answer()[0] == 400
            assert client.closed()
        assert refused(gateway, "framing") == count
    assert origin.connections == 0


def test_c3_two_hundred_slow_heads_end_in_408_and_hold_nobody_up(attack: Attack, origin: Origin) -> None:
    gateway = attack(listen=SHORT)
    head = b"GET /a/x HTTP/1.1\r\nHost: h\r\nX-Slow: " + b"y" * 10_000
    sockets = [socket.create_connection(("127.0.0.1", gateway.port)) for _ in range(200)]
    answers: dict[socket.socket, bytes] = dict.fromkeys(sockets, b"")
    begun, at, latencies = time.monotonic(), 0, []
    try:
        left = set(sockets)
        while left:
            assert time.monotonic() - begun < 15
            for each in select.select(list(left), [], [], 0.05)[0]:
                data = b""
                with contextlib.suppress(ConnectionResetError):
                    data = each.recv(65536)
                answers[each] += data
                if not data:
                    left.discard(each)
            for each in left:
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    each.send(head[at : at + 1])
            at += 1
            latencies.append(gateway.ask_plain())
    finally:
        for each in sockets:
            each.close()
    assert all(found.startswith(b"HTTP/1.1 408 ") for found in answers.values())
    assert refused(gateway, "request_timeout") == 200
    assert max(latencies) < 1
    assert origin.seen == []


def test_c4_a_body_that_stalls_ends_in_408_and_is_no_request(attack: Attack, origin: Origin) -> None:
    gateway = attack(listen=SHORT)
    chunks = HALF.replace(b"Content-Length: 10\r\n\r\nhello", b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
    for begun in (HALF, chunks):
        with Client(gateway.port) as client:
            assert client.send(begun).read_answer()[0] == 408
            assert client.closed()
    assert refused(gateway, "request_timeout") == 2
    assert origin.seen == []


def test_c4_and_c5_nothing_is_produced_of_a_body_that_stalls_or_is_too_large(attack: Attack, broker: Broker) -> None:
    topic = f"halves-{broker.kind}.asked"
    create_topics(broker.bootstrap, {topic: 1})
    config = CONFIG.replace("body: 1MB", "body: 10B").replace("  origin: {{http:", "  other: {{http:")
    gateway = attack(
        listen=SHORT,
        config=f'kafka: "{broker.bootstrap}"\n'
        + config.replace("call: origin", f"call: halves-{broker.kind}.asked").replace(
            "services:\n", f"services:\n  halves-{broker.kind}: {{{{kafka: plain}}}}\n"
        ),
    )
    large = b"POST /a/x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nhello \r\n"
    with Client(gateway.port) as stalled, Client(gateway.port) as long, Client(gateway.port) as crossing:
        stalled.send(HALF)
        assert long.send(HALF.replace(b"10", b"11")).read_answer()[0] == 413
        assert crossing.send(large + b"6\r\nworld!\r\n0\r\n\r\n").read_answer()[0] == 413
        assert stalled.read_answer()[0] == 408
    consumer = Consumer({"bootstrap.servers": broker.bootstrap, "group.id": "none"})
    assert consumer.get_watermark_offsets(TopicPartition(topic, 0), 10) == (0, 0)
    consumer.close()


def test_c5_a_body_over_the_limit_is_refused_before_it_is_read_or_when_it_crosses_it(
    attack: Attack, origin: Origin
) -> None:
    gateway = attack()
    with Client(gateway.port) as client:
        client.send(b"POST /a/x HTTP/1.1\r\nHost: h\r\nContent-Length: 1000001\r\n\r\n")
        assert client.read_answer()[0] == 413
    before = gateway.resident()
    for framed in (b"Content-Length: 500000000\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n"):
        with Client(gateway.port) as client:
            client.send(b"POST /a/x HTTP/1.1\r\nHost: h\r\n" + framed)
            piece = b"x" * 100_000 if b"Length" in framed else b"186a0\r\n" + b"x" * 100_000 + b"\r\n"
            try:
                for _ in range(200):
                    client.send(piece)
            except (BrokenPipeError, ConnectionResetError):
                pass
            assert gateway.resident() - before < 3 * MIB
            assert client.read_answer()[0] == 413
    assert origin.seen == []


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /a/x HTTP/1.1\r\n\r\n", 400),
        (b"GET /a/x HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n", 400),
        (b"GET /a/x HTTP/9.9\r\nHost: h\r\n\r\n", 505),
        (b"CONNECT h:443 HTTP/1.1\r\nHost: h\r\n\r\n", 501),
        (b"GET\t/a/x HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    ],
)
def test_c7_what_is_no_request_is_refused(attack: Attack, origin: Origin, head: bytes, status: int) -> None:
    gateway = attack()
    with Client(gateway.port) as client:
        assert client.send(head).read_answer()[0] == status
        assert client.closed()
    assert origin.connections == 0


GUARDED = (
    CONFIG
    + """
  GET /admin: {{call: plain, headers: {{request: {{x-guarded: "1"}}}}}}
  ANY /admin/{{rest...}}: {{call: plain, headers: {{request: {{x-guarded: "1"}}}}}}
  ANY /{{rest...}}: {{call: origin}}
"""
)
WAYS_ROUND = (
    b"/a/../admin", b"/a/%2e%2e/admin", b"//admin", b"/./admin", b"/admin%00", b"/admin;x", b"/admin;x/users",
    b"/%61dmin/users", b"/admin%2Fusers", b"/admin%2fusers", b"/x/..%2fadmin", b"/x/..;/admin", b"/x/%2e%2e;/admin",
    b"/%252e%252e/admin", b"/x/..%252fadmin", b"/admin%3Bx/users", b"/\\admin", b"/%5cadmin", b"/admin%20", b"/admin%09",
    b"/;/admin", b"/admin%23", b"/admin%3Fx", b"http://h/admin", b"http://h//admin", b"http://h/x/../admin/users",
    b"/admin//users", b"/admin/./users", b"/admin/x/../users", b"/.;/admin", b"/admin/..%2f..%2fadmin",
)  # fmt: skip


def test_c9_there_is_no_way_round_a_route(attack: Attack, origin: Origin) -> None:
    """What the service behind the open route sees is /admin under no reading that servers are known for."""
    gateway = attack(config=GUARDED)
    found = {}
    for path in WAYS_ROUND:
        with Client(gateway.port) as client:
            found[path] = client.send(b"GET %b HTTP/1.1\r\nHost: h\r\n\r\n" % path).read_answer()[0]
    assert set(found.values()) == {200, 400}
    # Names of their own, whichever way they are read.
    assert [request.split(b" ")[1] for request in origin.seen] == [b"/admin%20", b"/admin%23", b"/admin%3Fx"]


def test_c10_what_a_client_says_of_itself_is_replaced_and_what_the_gateway_says_stays(
    attack: Attack, origin: Origin
) -> None:
    gateway = attack()
    named = (
        b"Connection: X-User-Id, X-Request-Id, Traceparent, X-Forwarded-For, Forwarded, Via, Host, Content-Length\r\n"
    )
    with Client(gateway.port) as client:
        for identifier in (b"bad id", b"x" * 129, b"a\tb", b'"', b"a,b", b""):
            client.send(
                b"POST /a/x HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nX-User-Id: 1\r\nX-Forwarded-For: 6.6.6.6\r\n"
                b"Traceparent: 00-zz\r\nX-Request-Id: " + identifier + b"\r\n" + named + b"\r\nhi"
            )
            _, fields, _ = client.read_answer()
            seen = origin.seen.pop().lower()
            assert fields["x-request-id"].encode() in seen
            assert len(fields["x-request-id"]) == 32
            assert b"6.6.6.6" not in seen
            assert b"x-user-id" not in seen
            for line in (
                b"x-forwarded-for: 127.0.0.1",
                b"content-length: 2",
                b"traceparent: 00-",
                b"via: 1.1 castlegate",
            ):
                assert seen.count(line) == 1, line
        for identifier in (b"x" * 128, b"abc-1._~:/+=@"):
            client.send(b"GET /a/x HTTP/1.1\r\nHost: h\r\nX-Request-Id: " + identifier + b"\r\n\r\n")
            assert client.read_answer()[1]["x-request-id"].encode() == identifier


def test_c11_a_client_that_leaves_ends_its_call_and_is_logged_499(attack: Attack, origin: Origin) -> None:
    gateway = attack()
    ended = threading.Semaphore(0)

    def wait(connection: socket.socket, _request: bytes) -> bool:
        connection.settimeout(5)
        with contextlib.suppress(ConnectionResetError):
            assert connection.recv(1) == b""
        ended.release()
        return False

    origin.script = wait
    for _ in range(20):
        with Client(gateway.port) as client:
            client.send(GET)
            gateway.program.wait_until(lambda: len(origin.seen) > 0, "the call")
        assert ended.acquire(timeout=1.5)  # the route's timeout is 2 s
        origin.seen.clear()
    statuses = [line["status"] for line in gateway.wait_logged(21)]
    assert statuses.count(499) == 20
    assert [line for line in gateway.program.lines if "error" in line.lower() or "warn" in line.lower()] == []


def test_c11_a_client_that_leaves_within_its_upload_is_logged_499(attack: Attack, origin: Origin) -> None:
    gateway = attack()
    for _ in range(20):
        with Client(gateway.port) as client:
            client.send(HALF)
    assert [line["status"] for line in gateway.wait_logged(21)].count(499) == 20
    assert origin.seen == []
    assert [line for line in gateway.program.lines if "error" in line.lower() or "warn" in line.lower()] == []


# Floods.


def test_more_connections_than_may_be_are_told_so(attack: Attack) -> None:
    gateway = attack(listen=", limits: {connections: 50}")
    held = [socket.create_connection(("127.0.0.1", gateway.port)) for _ in range(50)]
    gateway.program.wait_until(lambda: gateway.metrics()["castlegate_connections"] == 50, "50 connections")
    for _ in range(200):
        with Client(gateway.port) as client:
            status, fields, _ = client.read_answer()
            assert (status, fields["retry-after"]) == (503, "1")
            assert client.closed()
    assert refused(gateway, "connections") == 200
    for each in held:
        each.close()


def test_a_flood_of_resets_leaves_nothing(attack: Attack, origin: Origin) -> None:
    gateway = attack()
    for number in range(600):
        with socket.create_connection(("127.0.0.1", gateway.port)) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.sendall((GET, GET * 40, HALF, GET[:20], b"")[number % 5])
    assert gateway.ask_plain() < 1


def test_large_heads_that_never_end_take_what_they_send_and_no_more(attack: Attack) -> None:
    gateway = attack()
    before = gateway.resident()
    held = [socket.create_connection(("127.0.0.1", gateway.port)) for _ in range(300)]
    for each in held:
        each.sendall(b"GET /a/x HTTP/1.1\r\nHost: h\r\nX: " + b"y" * 30_000)
    gateway.program.wait_until(
        lambda: gateway.metrics()["castlegate_received_bytes_total"] > 300 * 30_000, "all of it", 10
    )
    assert gateway.resident() - before < 300 * 64 * 1024
    assert gateway.ask_plain() < 1
    for each in held:
        each.close()


def test_fields_that_never_repeat_are_not_remembered(attack: Attack) -> None:
    """Neither names, nor values of the fields that are, nor hosts, nor what proxies say."""
    gateway = attack()

    def flood(start: int) -> None:
        with Client(gateway.port) as client:
            for number in range(start, start + 3000):
                fields = b"".join(b"X-%d-%d: %d\r\n" % (number, each, number) for each in range(10))
                client.send(
                    b"GET /nowhere HTTP/1.1\r\nHost: h%d\r\nAccept: a/%d%b\r\nVia: 1.1 v%d%b\r\n%b\r\n"
                    % (number, number, b"z" * 200, number, b"z" * 1000, fields)
                )
                assert client.read_answer()[0] == 404

    flood(0)
    before = gateway.resident()
    flood(10_000)
    flood(20_000)
    assert gateway.resident() - before < 3 * MIB


def test_long_fields_are_not_remembered(attack: Attack) -> None:
    gateway = attack()
    before = gateway.resident()
    with Client(gateway.port) as client:
        for number in range(1500):
            via = b"1.1 v%d" % number + b"z" * 28_000
            client.send(b"GET /nowhere HTTP/1.1\r\nHost: h\r\nVia: %b\r\n\r\n" % via)
            assert client.read_answer()[0] == 404
    for number in range(300):
        with Client(gateway.port) as client:
            client.send(b"GET /nowhere HTTP/1.1\r\nHost: h%d%b\r\n\r\n" % (number, b"z" * 28_000))
            assert client.read_answer()[0] == 400
    assert gateway.resident() - before < 16 * MIB


def test_one_byte_at_a_time_is_as_good_as_any(attack: Attack, origin: Origin) -> None:
    gateway = attack()
    message = GET.replace(b"\r\n\r\n", b"\r\nX: " + b"y" * 3000 + b"\r\n\r\n")
    with Client(gateway.port) as client:
        client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in message:
            client.send(bytes((byte,)))
        assert client.read_answer()[2] == b"ok"
    assert gateway.ask_plain() < 1


def test_a_client_that_pipelines_without_reading_is_not_read_on(attack: Attack, origin: Origin) -> None:
    gateway = attack(listen=", timeouts: {write: 2s}")
    origin.script = answer(b"HTTP/1.1 200 OK\r\ncontent-length: 10000\r\n\r\n" + b"x" * 10_000)
    before, grown = gateway.resident(), 0
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", gateway.port))
        client.settimeout(0.2)
        end = time.monotonic() + 20
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            while time.monotonic() < end:
                with contextlib.suppress(TimeoutError):
                    client.sendall(GET * 1000)
                grown = max(grown, gateway.resident() - before)
                assert gateway.ask_plain() < 1
        assert time.monotonic() < end  # it was cut
    assert grown < 8 * MIB


def test_slow_uploads_are_answered_in_their_time_and_hold_nobody_up(attack: Attack, origin: Origin) -> None:
    gateway = attack()
    latencies: list[float] = []

    def upload() -> None:
        with Client(gateway.port, timeout_s=10) as client:
            client.send(b"POST /a/x HTTP/1.1\r\nHost: h\r\nContent-Length: 20\r\n\r\n")
            for _ in range(20):
                time.sleep(0.05)  # the slowness itself
                client.send(b"x")
            assert client.read_answer()[0] == 200

    threads = [threading.Thread(target=upload) for _ in range(30)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        latencies.append(gateway.ask_plain())
    assert max(latencies) < 1
    assert sum(request.endswith(b"x" * 20) for request in origin.seen) == 30


def test_a_refusal_says_nothing_of_what_is_behind(attack: Attack, origin: Origin) -> None:
    gateway = attack()
    origin.script = lambda *_: False
    for message in (
        GET,
        b"GET /nowhere HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET /a/%00 HTTP/1.1\r\nHost: h\r\n\r\n",
        b"x\r\n\r\n",
    ):
        with Client(gateway.port) as client:
            _, fields, body = client.send(message).read_answer()
        assert {"type", "title", "status", "instance"} <= json.loads(body).keys()
        assert "x-request-id" in fields
        assert str(origin.port).encode() not in body
        assert b"Traceback" not in body
    origin.script = answer(OK)
