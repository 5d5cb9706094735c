"""Observables of a real NestJS service as arrays and as streams, from the client's socket to the broker and back."""

import asyncio
import json
import signal
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import pytest
from confluent_kafka.admin import AdminClient
from tests.conftest import Broker
from tests.kafka.calls import make_call, running
from tests.kafka.echo import Echo, asked
from tests.testbeds.cancelling import cancelled_when_settled
from tests.testbeds.gateway import Gateway
from tests.testbeds.services import Service, start_nest
from tests.testbeds.topics import create_topics
from tests.testbeds.wire import Client

from castlegate.body import Body
from castlegate.errors import CallFailed, Kinds
from castlegate.message import Reply
from castlegate.upstreams.kafka.settings import KafkaService

ROUTES = """
services:
  nest: {kafka: {dialect: nest, operations: {stream: {timeout: 30s}}}}
defaults: {public: true, timeout: 30s}
routes:
  POST /last: {call: nest.stream}
  POST /all: {call: nest.stream, reply: all}
  POST /stream: {call: nest.stream, reply: stream}
  POST /created: {call: nest.stream, reply: stream, status: 201, headers: {response: {x-kind: stream}}}
  POST /soon: {call: nest.stream, reply: stream, timeout: 500ms}
  POST /fail: {call: nest.fail, reply: stream}
"""
SMALL = "streams: {idle: 1s, slow: 1s, queue: 64KiB, most: 3, collected: 64KiB}"


def start(broker: Broker, folder: Path, streams: str = "streams: {}", more: str = "") -> Gateway:
    config = f'{more}kafka:\n  bootstrap: "{broker.bootstrap}"\n  {streams}\n{ROUTES}'
    gateway = Gateway(folder, config)
    gateway.program.wait_until(lambda: gateway.readiness()[1] == {"status": "ready", "reason": ""}, "readiness")
    return gateway


@pytest.fixture(scope="module")
def gateway(broker: Broker, nest_service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """With the bounds that it has by default."""
    gateway = start(broker, tmp_path_factory.mktemp("streams"))
    yield gateway
    assert gateway.stop() == 0


@pytest.fixture(scope="module")
def narrow(broker: Broker, nest_service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """With small bounds, to be met."""
    gateway = start(broker, tmp_path_factory.mktemp("narrow"), SMALL)
    yield gateway
    assert gateway.stop() == 0


def post(path: str, payload: object, *, version: str = "1.1", method: str = "POST") -> bytes:
    body = json.dumps(payload).encode()
    return f"{method} {path} HTTP/{version}\r\nHost: h\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def ask(gateway: Gateway, path: str, payload: object) -> tuple[int, dict[str, str], bytes]:
    with Client(gateway.port, timeout_s=30) as client:
        return client.send(post(path, payload)).read_answer()


def lines(body: bytes) -> list[Any]:
    assert body == b"" or body.endswith(b"\n")
    return [json.loads(line) for line in body.splitlines()]


class Reading:
    """A client that takes a stream apart as it comes."""

    def __init__(self, client: Client) -> None:
        self._client = client
        head = client.read_until(b"\r\n\r\n").decode().lower()
        self.status = int(head.split(" ", 2)[1])
        assert "transfer-encoding: chunked" in head
        assert "content-type: application/x-ndjson" in head

    def chunk(self) -> bytes:
        """The next one; nothing at the end. Raises `EOFError` if it is cut."""
        size = int(self._client.read_until(b"\r\n"), 16)
        data = self._client._exactly(size)
        assert self._client._exactly(2) == b"\r\n"
        return data

    def cut(self) -> bytes:
        """What comes until it is cut."""
        data = b""
        try:
            while chunk := self.chunk():
                data += chunk
        except (EOFError, ConnectionResetError):
            return data
        raise AssertionError(f"it is complete: {data!r}")


def ended(gateway: Gateway, end: str) -> float:
    return gateway.metrics().get(f'castlegate_kafka_streams_total{{end="{end}"}}', 0)


def wait_ended(gateway: Gateway, end: str, before: float) -> None:
    gateway.program.wait_until(lambda: ended(gateway, end) == before + 1, f"a stream that ends by {end}")
    gateway.program.wait_until(lambda: gateway.metrics()["castlegate_kafka_pending"] == 0, "its entry to be freed")


def logged(gateway: Gateway, matches: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The last line of the access log that matches, when it is there."""
    found: list[dict[str, Any]] = []

    def there() -> bool:
        found[:] = [line for line in gateway.wait_logged(1) if matches(line)]
        return bool(found)

    gateway.program.wait_until(there, "a line of the access log")
    return found[-1]


SENT = [{"a": 1}, [1, 2.5], "words", "žluť\nin two lines", 42, None, {"deep": {"b": [None, "\u2028"]}}]
# Nest writes 42 as text, as everything that is neither object nor array.
SEEN = [{"a": 1}, [1, 2.5], "words", "žluť\nin two lines", "42", None, {"deep": {"b": [None, "\u2028"]}}]


def test_last_is_what_a_route_gets_that_says_nothing(gateway: Gateway) -> None:
    status, fields, body = ask(gateway, "/last", {"count": 3})
    assert (status, fields["content-type"], json.loads(body)) == (200, "application/json", {"n": 3})


def test_all_values_are_an_array(gateway: Gateway) -> None:
    status, fields, body = ask(gateway, "/all", {"values": SENT})
    assert (status, fields["content-type"]) == (200, "application/json")
    assert json.loads(body) == SEEN
    assert ask(gateway, "/all", {"count": 0})[2] == b"[]"
    assert ask(gateway, "/all", {"values": [{"a": 1}]})[2] == b'[{"a":1}]'


def test_an_error_among_all_values_is_the_answer(gateway: Gateway) -> None:
    status, _, body = ask(gateway, "/all", {"count": 5, "fail_after": 2})
    assert (status, json.loads(body)["detail"]) == (409, "no value 3")


def test_a_stream_is_one_line_of_json_for_each_value(gateway: Gateway) -> None:
    before = ended(gateway, "complete")
    status, fields, body = ask(gateway, "/stream", {"values": SENT})
    assert (status, fields["content-type"]) == (200, "application/x-ndjson")
    assert lines(body) == SEEN
    wait_ended(gateway, "complete", before)


def test_a_stream_without_values_is_empty(gateway: Gateway) -> None:
    status, fields, body = ask(gateway, "/stream", {"count": 0})
    assert (status, fields["content-type"], body) == (200, "application/x-ndjson", b"")


def test_status_and_fields_of_the_route_hold_for_its_stream(gateway: Gateway) -> None:
    status, fields, body = ask(gateway, "/created", {"count": 2})
    assert (status, fields["x-kind"], lines(body)) == (201, "stream", [{"n": 1}, {"n": 2}])


def test_each_value_leaves_as_it_comes_and_the_connection_goes_on(gateway: Gateway) -> None:
    with Client(gateway.port) as client:
        client.send(post("/stream", {"count": 3, "delay_ms": 300}))
        stream = Reading(client)
        times = []
        for number in (1, 2, 3):
            assert json.loads(stream.chunk()) == {"n": number}
            times.append(time.monotonic())
        assert stream.chunk() == b""
        assert times[2] - times[0] > 0.4, "they came one by one"
        assert client.send(post("/last", {"count": 1})).read_answer()[0] == 200


def test_ten_thousand_values_arrive_in_order(gateway: Gateway) -> None:
    status, _, body = ask(gateway, "/stream", {"count": 10_000})
    assert status == 200
    assert [line["n"] for line in lines(body)] == list(range(1, 10_001))


def test_ten_thousand_values_make_an_array(gateway: Gateway) -> None:
    status, _, body = ask(gateway, "/all", {"count": 10_000})
    assert status == 200
    assert [each["n"] for each in json.loads(body)] == list(range(1, 10_001))


def test_the_deadline_is_of_the_first_value_only(gateway: Gateway) -> None:
    status, _, body = ask(gateway, "/soon", {"count": 10, "delay_ms": 100})
    assert (status, len(lines(body))) == (200, 10)
    status, _, body = ask(gateway, "/soon", {"count": 1, "delay_ms": 700})
    assert (status, json.loads(body)["outcome"]) == (504, "unknown")


def test_an_error_before_the_first_value_is_a_problem_document(gateway: Gateway) -> None:
    for path, payload in (("/stream", {"count": 3, "fail_after": 0}), ("/fail", {"error": {"status": 409}})):
        status, fields, body = ask(gateway, path, payload)
        assert (status, fields["content-type"]) == (409, "application/problem+json")
        assert json.loads(body)["outcome"] == "answered"


def test_an_error_after_the_first_value_is_a_cut(gateway: Gateway) -> None:
    before = ended(gateway, "service_error")
    with Client(gateway.port) as client:
        client.send(post("/stream?error=after", {"count": 5, "fail_after": 2}))
        stream = Reading(client)
        assert stream.status == 200
        assert lines(stream.cut()) == [{"n": 1}, {"n": 2}], "what came before it was written"
    wait_ended(gateway, "service_error", before)
    line = logged(gateway, lambda line: line["query"] == "error=after")
    assert (line["status"], line["error"], line["outcome"]) == (200, "service_error", "answered")


def test_a_value_that_makes_no_sense_is_a_cut(gateway: Gateway) -> None:
    before = ended(gateway, "bad_answer")
    with Client(gateway.port) as client:
        stream = Reading(client.send(post("/stream", {"values": [{"a": 1}, "{", {"a": 2}]})))
        assert lines(stream.cut()) == [{"a": 1}]
    wait_ended(gateway, "bad_answer", before)


def test_a_client_of_http_1_0_sees_a_cut_as_a_reset(gateway: Gateway) -> None:
    with Client(gateway.port) as client:
        client.send(post("/stream", {"count": 2, "delay_ms": 10}, version="1.0"))
        head, _, body = client.read_to_end().partition(b"\r\n\r\n")
        assert b"transfer-encoding" not in head
        assert lines(body) == [{"n": 1}, {"n": 2}]
    with Client(gateway.port) as client:
        client.send(post("/stream", {"count": 3, "delay_ms": 100, "fail_after": 2}, version="1.0"))
        client.read_until(b'{"n":2}\n')
        with pytest.raises(ConnectionResetError):
            client.socket.recv(1)


def test_a_client_that_leaves_frees_its_entry_at_once(gateway: Gateway) -> None:
    before = ended(gateway, "client_gone")
    with Client(gateway.port) as client:
        stream = Reading(client.send(post("/stream", {"count": 20, "delay_ms": 100})))
        assert json.loads(stream.chunk()) == {"n": 1}
        assert gateway.metrics()["castlegate_kafka_pending"] == 1
    left = time.monotonic()
    wait_ended(gateway, "client_gone", before)
    assert time.monotonic() - left < 2
    late = 'castlegate_kafka_replies_total{kind="late"}'
    gateway.program.wait_until(lambda: gateway.metrics()[late] > 0, "values that nobody waits for to be counted")


def test_a_service_that_falls_silent_is_a_cut(narrow: Gateway) -> None:
    before = ended(narrow, "timeout")
    with Client(narrow.port) as client:
        stream = Reading(client.send(post("/stream?silent=1", {"count": 3, "delay_ms": 1500})))
        assert json.loads(stream.cut()) == {"n": 1}
    wait_ended(narrow, "timeout", before)
    assert logged(narrow, lambda line: line["query"] == "silent=1")["error"] == "timeout"


@pytest.mark.parametrize(
    "payload",
    [
        {"count": 200, "size": 200_000},  # more than may wait for it
        {"count": 40, "size": 200_000, "delay_ms": 20},
    ],
)
def test_a_client_that_does_not_read_is_cut_and_holds_up_nobody(narrow: Gateway, payload: object) -> None:
    before = ended(narrow, "slow_client")
    with Client(narrow.port) as client:
        stream = Reading(client.send(post("/stream?slow=1", payload)))
        answered = 0
        while ended(narrow, "slow_client") == before:
            status, _, body = ask(narrow, "/last", {"count": 1})
            assert (status, json.loads(body)) == (200, {"n": 1})
            answered += 1
            assert answered < 3000
        wait_ended(narrow, "slow_client", before)
        stream.cut()
    line = logged(narrow, lambda line: line["query"] == "slow=1")
    assert (line["status"], line["error"]) == (200, "slow_client")


def test_a_client_that_takes_its_time_gets_it_all(gateway: Gateway) -> None:
    """Slower than the service, with more than the sockets hold, and never for too long."""
    with Client(gateway.port) as client:
        stream = Reading(client.send(post("/stream", {"count": 100, "size": 100_000, "delay_ms": 5})))
        numbers = []
        rest = b""
        while chunk := stream.chunk():
            *whole, rest = (rest + chunk).split(b"\n")
            numbers += [json.loads(line)["n"] for line in whole]
            time.sleep(0.005)
        assert numbers == list(range(1, 101))


def test_so_many_streams_and_no_more(narrow: Gateway) -> None:
    clients = [Client(narrow.port) for _ in range(3)]
    try:
        streams = [Reading(client.send(post("/stream", {"count": 4, "delay_ms": 400}))) for client in clients]
        status, _, body = ask(narrow, "/stream", {"count": 1})
        assert (status, json.loads(body)["outcome"]) == (503, "not_sent")
        assert ask(narrow, "/last", {"count": 1})[0] == 200
        for stream in streams:
            while stream.chunk():
                pass
    finally:
        for client in clients:
            client.socket.close()
    assert ask(narrow, "/stream", {"count": 1})[0] == 200


def test_more_than_is_collected_is_a_bad_answer(narrow: Gateway) -> None:
    status, _, body = ask(narrow, "/all", {"count": 10, "size": 10_000})
    assert (status, json.loads(body)["outcome"]) == (502, "answered")


def test_a_service_that_dies_in_the_middle_is_a_cut(own_broker: Broker, tmp_path: Path) -> None:
    service = start_nest(own_broker.bootstrap, tmp_path)
    gateway = start(own_broker, tmp_path, SMALL)
    try:
        with Client(gateway.port) as client:
            stream = Reading(client.send(post("/stream", {"count": 100, "delay_ms": 50})))
            assert json.loads(stream.chunk()) == {"n": 1}
            service.program.kill()
            assert len(lines(stream.cut())) < 98
        wait_ended(gateway, "timeout", 0)
    finally:
        service.program.kill()
        assert gateway.stop() == 0


@pytest.mark.parametrize(("count", "complete"), [(10, True), (60, False)])
def test_a_gateway_that_stops_lets_streams_end_within_its_drain(
    broker: Broker, nest_service: Service, tmp_path: Path, count: int, complete: bool
) -> None:
    gateway = start(broker, tmp_path, "streams: {}", "drain: 3s\n")
    with Client(gateway.port, timeout_s=20) as client:
        stream = Reading(client.send(post("/stream", {"count": count, "delay_ms": 100})))
        assert json.loads(stream.chunk()) == {"n": 1}
        gateway.program.send_signal(signal.SIGTERM)
        if complete:
            numbers = [1]
            while chunk := stream.chunk():
                numbers += [line["n"] for line in lines(chunk)]
            assert numbers == list(range(1, 11))
        else:
            assert len(lines(stream.cut())) < 59
    assert gateway.program.wait(15) == 0
    gateway.program.kill()


async def test_a_stream_whose_inbox_is_made_anew_is_cut_since_values_may_be_missing(broker: Broker) -> None:
    name = f"s{uuid4().hex[:8]}"
    settings = KafkaService(dialect="nest")
    create_topics(broker.bootstrap, {f"{name}.do": 1})
    service = Echo(broker.bootstrap, f"{name}.do")
    try:
        async with running(
            broker.bootstrap, lambda rig: rig.caller(name, "do", dialect="nest"), inbox=f"{name}.replies"
        ) as rig:
            caller = rig.engine.service(name, settings).bind("do", "stream")
            call = make_call(b"{}", deadline=rig.timer.now() + 20, timeout=20.0)
            asking = asyncio.ensure_future(cast("Coroutine[Any, Any, Reply]", caller(call)))
            await rig.until(lambda: service.seen)
            request = asked(service.seen[0])
            headers = [("kafka_correlationId", request["kafka_correlationId"])]
            service.send(
                request["kafka_replyTopic"].decode(), int(request["kafka_replyPartition"]), headers, b'{"n":1}'
            )
            body = (await asking).body
            assert isinstance(body, Body)
            assert await body.read() == b'{"n":1}\n'
            admin = AdminClient({"bootstrap.servers": broker.bootstrap, "log_level": 0})
            await asyncio.to_thread(admin.delete_topics([f"{name}.replies"])[f"{name}.replies"].result)
            rig.look()
            with pytest.raises(CallFailed) as raised:
                async with asyncio.timeout(25):
                    await body.read()
            assert raised.value.kind is Kinds.BROKER_UNAVAILABLE
            assert len(rig.engine.pending) == 0
            await rig.until(lambda: rig.engine.state.ready)
    finally:
        await asyncio.to_thread(service.stop)


async def test_a_stream_that_nobody_took_since_its_caller_was_cancelled_is_over(broker: Broker) -> None:
    name = f"s{uuid4().hex[:8]}"
    create_topics(broker.bootstrap, {f"{name}.do": 1})
    service = Echo(broker.bootstrap, f"{name}.do")
    try:
        async with running(
            broker.bootstrap, lambda rig: rig.caller(name, "do", dialect="nest"), inbox=f"{name}.replies"
        ) as rig:
            caller = rig.engine.service(name, KafkaService(dialect="nest")).bind("do", "stream")
            await rig.until(lambda: rig.engine.state.ready)
            for asked_before in range(2):
                call = make_call(b"{}", deadline=rig.timer.now() + 20, timeout=20.0)
                task = cancelled_when_settled(cast("Coroutine[Any, Any, Reply]", caller(call)))
                await rig.until(lambda asked_before=asked_before: len(service.seen) > asked_before)
                request = asked(service.seen[-1])
                headers = [("kafka_correlationId", request["kafka_correlationId"])]
                service.send(
                    request["kafka_replyTopic"].decode(), int(request["kafka_replyPartition"]), headers, b'{"n":1}'
                )
                with pytest.raises(asyncio.CancelledError):
                    await task
                assert len(rig.engine.pending) == 0
                assert rig.engine.flows._open == 0
            assert rig.count("castlegate_kafka_streams_total", end="client_gone") == 2
    finally:
        await asyncio.to_thread(service.stop)
