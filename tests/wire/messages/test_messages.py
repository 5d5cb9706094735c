"""Every message of the tables through the real gateway, between a raw client and a service that records what it sees."""

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, TopicPartition
from tests.conftest import Broker
from tests.testbeds.edge import split
from tests.testbeds.gateway import Gateway
from tests.testbeds.topics import create_topics
from tests.testbeds.wire import Client, Origin, answer
from tests.wire.conftest import Start
from tests.wire.messages.passed import PASSED, Expected
from tests.wire.messages.refused import REFUSED

FRAMES = (b"content-length: ", b"transfer-encoding: ")
OF_ONE_HOP = (b"connection:", b"keep-alive:", b"proxy-connection:", b"te:", b"trailer:", b"upgrade:", b"expect:")
ONCE = (b"host: ", b"x-request-id: ", b"traceparent: ", b"via: ", b"forwarded: ", b"x-forwarded-for: ")
GET = b"GET /a/marker HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"

CONFIG = """
services:
  origin: {{http: {{instances: ["http://127.0.0.1:{port}"], pool: {{idle: 60s}}}}}}
defaults: {{public: true, timeout: 5s, limits: {{body: 100B}}}}
routes:
  ANY /a/{{rest...}}: {{call: origin}}
  GET /item/{{id}}: {{call: origin}}
  GET /admin: {{call: origin}}
"""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gateway, Origin]]:
    with Origin(answer(b"HTTP/1.1 204 No Content\r\n\r\n")) as origin:
        gateway = Gateway(tmp_path_factory.mktemp("messages"), CONFIG.format(port=origin.port))
        yield gateway, origin
        gateway.stop()


@pytest.fixture
def gateway(running: tuple[Gateway, Origin]) -> Gateway:
    return running[0]


@pytest.fixture
def origin(running: tuple[Gateway, Origin]) -> Iterator[Origin]:
    origin = running[1]
    origin.seen.clear()
    origin.unfinished.clear()
    yield origin
    origin.hang_up()


def see_all(gateway: Gateway, origin: Origin) -> list[bytes]:
    """What the service has seen once everything sent before has come to it, byte for byte."""
    with Client(gateway.port) as client:
        assert client.send(GET).read_answer()[0] == 204
    origin.hang_up()
    assert origin.seen[-1].startswith(b"GET /a/marker HTTP/1.1\r\n")
    return origin.seen[:-1]


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_malformed_or_ambiguous_is_refused_closed_and_never_seen_behind(
    gateway: Gateway, origin: Origin, name: str
) -> None:
    message, status = REFUSED[name]
    with Client(gateway.port) as client:
        found, fields, body = client.send(message).read_answer()
        assert (found, fields["content-type"], fields["connection"]) == (status, "application/problem+json", "close")
        assert json.loads(body)["status"] == status
        assert client.closed()
    assert see_all(gateway, origin) == []
    # What begins well may have been passed on as it came: it is cut off then, and never a request.
    assert not origin.unfinished or name.startswith("chunks")


def check(request: bytes, expected: Expected) -> None:
    head, _, body = request.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    names = [line.lower() for line in lines]
    assert lines[0] == expected.line
    for each in ONCE:
        assert sum(name.startswith(each) for name in names) == 1, each
    assert not [name for name in names if name.startswith(OF_ONE_HOP)]
    framing = [name for name in names if name.startswith(FRAMES)]
    if framing == [b"transfer-encoding: chunked"]:
        body = dechunked(body)
    else:
        assert framing == ([b"content-length: %d" % len(body)] if framing or body else [])
    assert body == expected.body
    for line in expected.present:
        assert line in names, head
    for part in expected.absent:
        assert part not in head.lower(), head


def dechunked(data: bytes) -> bytes:
    found = b""
    while size := int(data.partition(b"\r\n")[0], 16):
        data = data.partition(b"\r\n")[2]
        found, data = found + data[:size], data[size + 2 :]
    return found


@pytest.mark.parametrize("name", PASSED)
def test_what_is_unusual_and_right_is_passed_on_as_exactly_what_it_means(
    gateway: Gateway, origin: Origin, name: str
) -> None:
    message, expected = PASSED[name]
    with Client(gateway.port) as client:
        client.send(message)
        assert [client.read_answer()[0] for _ in expected] == [204] * len(expected)
    seen = see_all(gateway, origin)
    assert len(seen) == len(expected)
    for request, each in zip(seen, expected, strict=True):
        check(request, each)
    assert origin.unfinished == []


def final_status(client: Client) -> int:
    """Past a 100 to whom expects one and sends its body late."""
    status = client.read_answer()[0]
    return client.read_answer()[0] if status == 100 else status


SAMPLE = [
    "trailers", "extensions", "a body and a request", "an empty line between", "an empty line before it",
    "chunks and a request", "the same head three times", "an expectation with its body",
]  # fmt: skip


@pytest.mark.parametrize("name", SAMPLE)
def test_a_message_in_pieces_is_the_same_message(gateway: Gateway, origin: Origin, name: str) -> None:
    """Each piece in a packet of its own."""
    message, expected = PASSED[name]
    for cuts in (range(len(message)), range(3, len(message), 17), *([place] for place in range(1, len(message), 9))):
        with Client(gateway.port) as client:
            client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for piece in split(message, cuts):
                client.send(piece)
            statuses = [final_status(client) for _ in expected]
        assert statuses == [204] * len(expected)
        seen = see_all(gateway, origin)
        assert len(seen) == len(expected)
        for request, each in zip(seen, expected, strict=True):
            check(request, each)
        origin.seen.clear()


REFUSED_SAMPLE = [name for index, name in enumerate(REFUSED) if index % 8 == 0 and len(REFUSED[name][0]) < 500]


@pytest.mark.parametrize("name", REFUSED_SAMPLE)
def test_a_refused_message_in_pieces_is_refused_alike(gateway: Gateway, origin: Origin, name: str) -> None:
    message, status = REFUSED[name]
    with Client(gateway.port) as client:
        client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            for piece in split(message, range(len(message))):
                client.send(piece)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it was refused before its end
        assert client.read_answer()[0] == status
    assert see_all(gateway, origin) == []


def test_options_of_the_whole_server_is_answered_by_the_gateway(gateway: Gateway, origin: Origin) -> None:
    with Client(gateway.port) as client:
        for target in (b"*", b"http://h"):
            assert client.send(b"OPTIONS %b HTTP/1.1\r\nHost: h\r\n\r\n" % target).read_answer()[0] == 204
    assert see_all(gateway, origin) == []


def test_an_encoded_slash_is_no_way_past_a_route(start: Start, origin: Origin) -> None:
    """Services of WSGI and ASGI take it for a slash; an id that holds one still passes."""
    gateway = start(f"""
services: {{origin: {{http: ["http://127.0.0.1:{origin.port}"]}}}}
defaults: {{public: true}}
routes:
  ANY /{{rest...}}: {{call: origin}}
  GET /admin/{{rest...}}: {{call: origin, headers: {{request: {{x-protected: "1"}}}}}}
  GET /item/{{id}}: {{call: origin}}
""")
    for path in (
        b"/admin%2Fusers",
        b"/admin%2fusers",
        b"/x/..%2fadmin/users",
        b"/admin%2F%2Fusers",
        b"/admin;x%2Fusers",
    ):
        with Client(gateway.port) as client:
            assert client.send(b"GET %b HTTP/1.1\r\nHost: h\r\n\r\n" % path).read_answer()[0] == 400
            assert client.closed()
    for path in (b"/admin;x/users", b"/%61dmin/users", b"//admin//users", b"/item/a%2Fb", b"/other%2Fx"):
        with Client(gateway.port) as client:
            assert client.send(b"GET %b HTTP/1.1\r\nHost: h\r\n\r\n" % path).read_answer()[0] == 204
    origin.hang_up()
    assert [b"x-protected: 1" in request for request in origin.seen] == [True] * 3 + [False] * 2


def test_an_upload_that_goes_wrong_before_its_turn_is_not_begun(gateway: Gateway, origin: Origin) -> None:
    asked, broken = threading.Event(), threading.Event()

    def wait(connection: socket.socket, _request: bytes) -> bool:
        asked.set()
        assert broken.wait(5)
        connection.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
        return True

    origin.script, script = wait, origin.script
    try:
        with Client(gateway.port) as client:
            client.send(b"GET /a/x HTTP/1.1\r\nHost: h\r\n\r\n")
            assert asked.wait(5)
            before = gateway.metrics()["castlegate_received_bytes_total"]
            upload = b"POST /a/x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
            client.send(upload)
            gateway.program.wait_until(
                lambda: gateway.metrics()["castlegate_received_bytes_total"] == before + len(upload), "the upload"
            )
            client.send(b"zz\r\n")
            gateway.program.wait_until(
                lambda: gateway.metrics()["castlegate_received_bytes_total"] == before + len(upload) + 4, "its fault"
            )
            broken.set()
            assert [client.read_answer()[0], client.read_answer()[0]] == [204, 400]
            assert client.closed()
    finally:
        origin.script = script
    assert len(see_all(gateway, origin)) == 1
    assert origin.unfinished == []


def test_nothing_of_a_refused_message_is_produced(broker: Broker, tmp_path: Path) -> None:
    topic = f"refused-{broker.kind}.asked"
    create_topics(broker.bootstrap, {topic: 1})
    gateway = Gateway(
        tmp_path,
        f"""
kafka: "{broker.bootstrap}"
services: {{refused-{broker.kind}: {{kafka: plain}}}}
defaults: {{public: true, timeout: 5s, limits: {{body: 100B}}}}
routes: {{"ANY /a/{{rest...}}": {{call: refused-{broker.kind}.asked}}}}
""",
    )
    try:
        gateway.program.wait_until(lambda: gateway.readiness()[1]["status"] == "ready", "readiness")
        for message, status in REFUSED.values():
            with Client(gateway.port) as client:
                assert client.send(message).read_answer()[0] == status
        found = {name: value for name, value in gateway.metrics().items() if "kafka_requests_total" in name}
        assert found in ({}, {f'castlegate_kafka_requests_total{{topic="{topic}"}}': 0})
        consumer = Consumer({"bootstrap.servers": broker.bootstrap, "group.id": "none"})
        assert consumer.get_watermark_offsets(TopicPartition(topic, 0), 10) == (0, 0)
        consumer.close()
    finally:
        assert gateway.stop() == 0
