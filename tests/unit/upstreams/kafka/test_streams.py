"""Sinks of several values, fed by hand on a clock of the test's own: when they are cut, and that they end once."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from castlegate.body import Body
from castlegate.errors import CallFailed, GatewayError, Kinds, Outcome
from castlegate.headers import Headers
from castlegate.message import Reply
from castlegate.rules.deadlines import Deadlines
from castlegate.telemetry.metrics import Registry
from castlegate.upstreams.kafka.dialects.dialect import ReceivedHeaders
from castlegate.upstreams.kafka.dialects.nest import Nest
from castlegate.upstreams.kafka.pending import DUPLICATE, LATE, MALFORMED, OK, Pending
from castlegate.upstreams.kafka.settings import Kafka, KafkaService, Streams
from castlegate.upstreams.kafka.streams import AllValues, Flows, StreamedValues, interrupt, json_line

LAST: ReceivedHeaders = {"kafka_nest-is-disposed": b"\0"}
BOUNDS = Streams(most=2, queue=100, slow=5.0, idle=10.0, collected=50)


class Clock:
    """A timer whose time is set."""

    def __init__(self) -> None:
        self.time = 100.0
        self.deadlines: Deadlines[Any] = Deadlines(lambda: None)
        self.add, self.remove = self.deadlines.add, self.deadlines.remove

    def now(self) -> float:
        return self.time

    def passes(self, seconds: float) -> None:
        for _ in range(round(seconds * 10)):
            self.time += 0.1
            for entry in self.deadlines.due(self.time):
                entry.expire()


class Engine:
    """As much of one as a sink sees."""

    def __init__(self) -> None:
        self.settings = Kafka(bootstrap="127.0.0.1:1", streams=BOUNDS)
        self.clock = Clock()
        self.pending = Pending(limit=10, tag=b"0123456789ab", first=1)
        self.registry = Registry()
        self.ended = self.registry.counter("ended", "Of the test.", "end")
        timer: Any = self.clock
        self.flows = Flows(BOUNDS, timer, self.pending, self.ended)
        self.looks = 0

    def look_soon(self) -> None:
        self.looks += 1

    def ends(self) -> dict[str, float]:
        ends = [
            "complete",
            "timeout",
            "slow_client",
            "client_gone",
            "service_error",
            "bad_answer",
            "broker_unavailable",
        ]
        return {end: count for end in ends if (count := self.ended.child(end).value)}


class Stream:
    """A request for a stream, and its client."""

    def __init__(self, engine: Engine, **settings: Any) -> None:
        self.engine = engine
        anything: Any = engine
        engine.flows.enter()
        self.sink = StreamedValues(Nest(KafkaService(dialect="nest", **settings)), anything)
        self.id = self.sink.correlation_id = engine.pending.open(self.sink)

    def feed(self, value: bytes | None, *, last: bool = False, headers: ReceivedHeaders | None = None) -> str:
        return self.engine.pending.feed(self.id, {**(headers or {}), **(LAST if last else {})}, value)

    @property
    def reply(self) -> Reply:
        assert self.sink.waiter.done()
        return self.sink.waiter.result()

    @property
    def body(self) -> Body:
        body = self.reply.body
        assert isinstance(body, Body)
        return body

    def takes(self) -> bytes:
        """The next chunk, which is there."""
        reading = self.body.read()
        try:
            reading.send(None)
        except StopIteration as stop:
            chunk: bytes = stop.value
            return chunk
        raise AssertionError("there is none")

    def raises(self) -> GatewayError:
        """What the client's side is told."""
        with pytest.raises(GatewayError) as raised:
            self.takes()
        return raised.value

    def over(self, end: str) -> None:
        """It has ended so, and nothing is left of it."""
        assert self.engine.ends() == {end: 1}
        assert len(self.engine.pending) == 0
        assert len(self.engine.clock.deadlines) == 0
        for _ in range(BOUNDS.most):
            self.engine.flows.enter()


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.fixture
def stream(engine: Engine) -> Stream:
    return Stream(engine)


def test_values_are_lines_and_the_last_one_ends_them(stream: Stream) -> None:
    assert stream.feed(b'{"n":1}') == OK
    assert (stream.reply.status, stream.reply.headers.pairs()) == (200, [(b"content-type", b"application/x-ndjson")])
    assert stream.takes() == b'{"n":1}\n'
    assert stream.feed(b"words", last=True) == OK
    assert stream.takes() == b'"words"\n'
    assert stream.takes() == b""
    assert stream.feed(b"more") == DUPLICATE
    stream.engine.clock.passes(BOUNDS.slow + 1)  # its client had yet to take the last one when it ended
    stream.over("complete")


def test_an_end_without_values_is_an_empty_stream(stream: Stream) -> None:
    assert stream.feed(None, last=True) == OK
    assert (stream.reply.status, stream.reply.body) == (200, b"")
    assert not stream.sink.flowing
    assert len(stream.engine.clock.deadlines) == 0


def test_an_end_after_values_ends_them(stream: Stream) -> None:
    stream.feed(b"[1]")
    assert stream.takes() == b"[1]\n"
    stream.feed(None, last=True)
    assert stream.takes() == b""
    stream.over("complete")


def test_an_idle_service_is_a_cut_but_not_one_that_sends_now_and_then(stream: Stream) -> None:
    for _ in range(5):
        stream.feed(b"[1]")
        stream.takes()
        stream.engine.clock.passes(BOUNDS.idle - 1)
    assert stream.engine.ends() == {}
    stream.engine.clock.passes(1.5)
    failed = stream.raises()
    assert (failed.kind, failed.outcome) == (Kinds.TIMEOUT, Outcome.UNKNOWN)
    stream.over("timeout")
    assert stream.feed(b"[1]") == LATE


def test_more_than_may_wait_is_a_cut_at_once(stream: Stream) -> None:
    stream.feed(b'"' + b"x" * 50 + b'"')
    assert stream.engine.ends() == {}
    stream.feed(b'"' + b"x" * 50 + b'"')
    assert stream.raises().kind is Kinds.SLOW_CLIENT
    assert stream.body.waiting == 0, "what waited is let go"
    stream.over("slow_client")


def test_a_client_that_takes_nothing_in_time_is_cut(stream: Stream) -> None:
    for _ in range(20):
        stream.feed(b"[1]")
        stream.engine.clock.passes(0.2)
    assert stream.engine.ends() == {}
    stream.engine.clock.passes(BOUNDS.slow)
    assert stream.raises().kind is Kinds.SLOW_CLIENT
    stream.over("slow_client")


def test_a_client_that_takes_a_value_now_and_then_is_not(stream: Stream) -> None:
    for _ in range(6):
        stream.feed(b"[1]")
    for _ in range(6):
        stream.engine.clock.passes(BOUNDS.slow - 1)
        stream.takes()
        stream.feed(b"[1]")
    assert stream.engine.ends() == {}


def test_a_client_that_does_not_take_the_rest_of_a_complete_stream_is_cut(stream: Stream) -> None:
    stream.feed(b"[1]")
    stream.feed(b"[2]", last=True)
    assert len(stream.engine.pending) == 0, "no value is waited for"
    assert stream.engine.ends() == {}
    stream.engine.clock.passes(BOUNDS.slow + 1)
    assert stream.raises().kind is Kinds.SLOW_CLIENT
    stream.over("slow_client")


def test_a_reader_that_waits_for_something_else_is_woken_by_a_cut(stream: Stream) -> None:
    woken: list[bool] = []
    stream.feed(b"[1]")
    stream.body.on_cut = lambda: woken.append(True)
    stream.engine.clock.passes(BOUNDS.slow + 1)
    assert woken == [True]


@pytest.mark.parametrize("taken", [0, 1])
def test_a_client_that_leaves_ends_it(stream: Stream, taken: int) -> None:
    stream.feed(b"[1]")
    for _ in range(taken):
        stream.takes()
    stream.body.close()
    stream.body.close()
    stream.over("client_gone")
    assert stream.feed(b"[2]") == LATE


def test_an_error_before_the_first_value_fails_the_call(stream: Stream) -> None:
    assert stream.feed(None, last=True, headers={"kafka_nest-err": b'{"status":404,"message":"no"}'}) == OK
    with pytest.raises(CallFailed, match="no"):
        _ = stream.reply
    assert stream.engine.ends() == {}


def test_an_error_after_the_first_value_is_a_cut(stream: Stream) -> None:
    stream.feed(b"[1]")
    stream.takes()
    assert stream.feed(None, last=True, headers={"kafka_nest-err": b"no"}) == OK
    assert stream.raises().kind is Kinds.SERVICE_ERROR
    stream.over("service_error")


@pytest.mark.parametrize("value", [b"{", b"\xff", b"\0\0\0\0\1"])
def test_a_value_that_is_neither_json_nor_text_is_a_cut(stream: Stream, value: bytes) -> None:
    stream.feed(b"[1]")
    stream.takes()
    assert stream.feed(value) == MALFORMED
    assert stream.raises().kind is Kinds.BAD_ANSWER
    stream.over("bad_answer")


def test_a_lost_place_in_the_reply_topic_is_a_cut(stream: Stream) -> None:
    stream.feed(b"[1]")
    stream.takes()
    interrupt(stream.engine.pending.sinks())
    assert stream.raises().kind is Kinds.BROKER_UNAVAILABLE
    stream.over("broker_unavailable")


def test_a_value_with_an_error_status_is_the_answer(engine: Engine) -> None:
    stream = Stream(engine, status_header="status")
    stream.feed(b'{"no":1}', last=True, headers={"status": b"404"})
    assert (stream.reply.status, stream.reply.body) == (404, b'{"no":1}')
    assert stream.reply.headers.get(b"content-type") == b"application/json"


def test_a_later_value_with_an_error_status_is_a_cut(engine: Engine) -> None:
    stream = Stream(engine, status_header="status")
    stream.feed(b"[1]", headers={"status": b"201"})
    assert stream.reply.status == 201
    stream.feed(b"[1]", headers={"status": b"500"})
    assert (stream.raises().kind, stream.raises().status) == (Kinds.SERVICE_ERROR, 500)


def test_a_failed_delivery_report_is_no_matter_once_a_value_has_come(stream: Stream) -> None:
    error: Any = object()
    message: Any = None
    stream.feed(b"[1]")
    stream.sink.on_report(error, message)
    assert stream.takes() == b"[1]\n"


# --- all values


def all_values(engine: Engine, *values: bytes | None, **settings: Any) -> Reply:
    anything: Any = engine
    sink = AllValues(Nest(KafkaService(dialect="nest", **settings)), anything)
    for value in values:
        sink.feed({}, value)
    if not sink.done:
        sink.feed(LAST, None)
    assert sink.done
    return sink.waiter.result()


def test_all_values_are_an_array(engine: Engine) -> None:
    reply = all_values(engine, b"{}", b"42", None, b"[\n1]")
    assert (reply.status, reply.body) == (200, b'[{},"42",null,[1]]')
    assert reply.headers.pairs() == [(b"content-type", b"application/json")]
    assert all_values(engine).body == b"[]"


def test_more_than_may_be_collected_is_a_bad_answer(engine: Engine) -> None:
    assert len(bytes(all_values(engine, *[b"[1]"] * 12).body)) == 49  # type: ignore[arg-type]
    with pytest.raises(CallFailed, match="more than the gateway collects"):
        all_values(engine, *[b"[1]"] * 13)


# --- lines


@given(document=st.recursive(st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(), st.lists))
def test_any_json_is_one_line_of_the_same_json(document: object) -> None:
    for body in (msgspec.json.encode(document), msgspec.json.format(msgspec.json.encode(document), indent=2)):
        line = json_line(Reply(200, Headers.of([(b"content-type", b"application/json")]), body))
        assert b"\n" not in line
        assert b"\r" not in line
        assert msgspec.json.decode(line) == document


@given(text=st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_is_one_line_with_a_json_string(text: str) -> None:
    line = json_line(Reply(200, Headers.of([(b"content-type", b"text/plain; charset=utf-8")]), text.encode()))
    assert b"\n" not in line
    assert msgspec.json.decode(line) == text


def test_numbers_keep_their_digits() -> None:
    body = b'[\n1.10, 12345678901234567890123, 1e400, "a  b"]'
    reply = Reply(200, Headers.of([(b"content-type", b"application/json")]), body)
    assert json_line(reply) == b'[1.10,12345678901234567890123,1e400,"a  b"]'
