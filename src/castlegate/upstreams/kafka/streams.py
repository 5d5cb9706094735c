"""Replies of several values (NestJS's observables): the sinks of callers that want all of them, or a stream.

Each value becomes one JSON text without line breaks: JSON as it is, text as a JSON string, nothing as `null`; what is
neither is a bad answer. A value with an error status (from the service's `status_header`) is the answer itself.

    waiting ──first value──▶ flowing ──last value──▶ draining ──all taken──▶ over
       └──▶ the call fails       └────────▶ cut ◀────────┘

A stream is cut by an error, an idle service, a client that is too slow or leaves.

Nothing here holds up the inbox: a record is fed, and if the client is slow it waits in the stream's body, which is
bounded in bytes and in time. Only the methods of a sink change its state; the entry in the pending table is closed by
whoever made it while the first value is awaited, by the sink from there on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import msgspec
from confluent_kafka import KafkaError, Message

from castlegate.body import Body
from castlegate.errors import CallFailed, GatewayError, Kinds, Outcome, RequestRefused
from castlegate.headers import Headers
from castlegate.message import Reply
from castlegate.telemetry.metrics import Counter, Family
from castlegate.upstreams.kafka.client import log
from castlegate.upstreams.kafka.dialects.dialect import Answer, Dialect, End, ReceivedHeaders, SentHeaders
from castlegate.upstreams.kafka.dialects.replies import bad_answer, is_json_type
from castlegate.upstreams.kafka.pending import MALFORMED, OK, Pending, Sink
from castlegate.upstreams.kafka.settings import Streams
from castlegate.waiting import Waiter
from castlegate.wire.timer import Timer

if TYPE_CHECKING:
    from castlegate.upstreams.kafka.engine import Engine

NDJSON = b"application/x-ndjson"
_JSON = b"application/json"
_BYTES = b"application/octet-stream"
_NO_HEADERS: SentHeaders = []


def json_line(reply: Reply) -> bytes:
    """A value as one JSON text without line breaks. Raises `CallFailed` (502) for one that cannot be that."""
    body = reply.body
    assert isinstance(body, bytes)
    kind = reply.headers.get(b"content-type")
    if kind is None:
        return b"null"
    try:
        if is_json_type(kind):
            return body if b"\n" not in body and b"\r" not in body else msgspec.json.format(body, indent=-1)
        if kind != _BYTES:
            return msgspec.json.encode(body.decode())
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise bad_answer("A value of the service's answer is neither JSON nor text.") from error
    raise bad_answer("A value of the service's answer is neither JSON nor text.")


def interrupt(sinks: Iterable[Sink]) -> None:
    """Records will be read a second time, or be missed: whoever collects values would get a wrong answer."""
    detail = "The place in the reply topic was lost."
    for sink in sinks:
        if isinstance(sink, ReplySink) and sink.several:
            sink.fail(CallFailed(Kinds.BROKER_UNAVAILABLE, Outcome.UNKNOWN, detail))


class Flows:
    """What the replies of several values share in one worker: how many there are, their bounds and counters."""

    __slots__ = ("_open", "ended", "pending", "settings", "timer")

    def __init__(self, settings: Streams, timer: Timer, pending: Pending, ended: Family[Counter]) -> None:
        self.settings = settings
        self.timer = timer
        self.pending = pending
        self.ended = ended
        self._open = 0

    def enter(self) -> None:
        """One more. Raises `CallFailed` (not sent) if there are as many as may be."""
        if self._open >= self.settings.most:
            raise CallFailed(Kinds.PENDING_FULL, Outcome.NOT_SENT, "Too many replies of several values are under way.")
        self._open += 1

    def leave(self) -> None:
        """One has ended."""
        self._open -= 1


class Alarm:
    """A time of one stream at which something is looked after."""

    __slots__ = ("_at", "_ring", "_timer")

    def __init__(self, timer: Timer, ring: Callable[[], None]) -> None:
        self._timer = timer
        self._ring = ring
        self._at: float | None = None

    @property
    def set(self) -> bool:
        """Whether it will ring."""
        return self._at is not None

    def ring_at(self, time: float) -> None:
        """Ring then, and not before."""
        self.off()
        self._at = time
        self._timer.add(self, time)

    def off(self) -> None:
        """Do not ring."""
        if self._at is not None:
            self._timer.remove(self, self._at)
            self._at = None

    def expire(self) -> None:
        """The timer's side."""
        self._at = None
        self._ring()


class ReplySink:
    """What all sinks have in common."""

    __slots__ = ("_decode", "_engine", "done", "headers", "waiter")

    flowing = False
    several = False
    """Whether it counts records, so that none may be read twice or missed."""

    def __init__(self, dialect: Dialect, engine: Engine) -> None:
        self._decode = dialect.decode
        self._engine = engine
        self.done = False
        self.headers: SentHeaders = _NO_HEADERS
        self.waiter: Waiter[Reply] = Waiter()

    def feed(self, headers: ReceivedHeaders, value: bytes | None) -> str:
        """One record of the reply."""
        try:
            self._take(self._decode(headers, value))
        except CallFailed as failure:
            self.done = True
            self._broken(failure)
            return MALFORMED if failure.kind is Kinds.BAD_ANSWER else OK
        except Exception:  # noqa: BLE001 - logged below
            # A mistake of ours about one reply is no reason to lose the others of its batch.
            log.exception("a reply could not be decoded")
            self.done = True
            self._broken(CallFailed(Kinds.BAD_ANSWER, Outcome.ANSWERED))
            return MALFORMED
        return OK

    def on_report(self, error: KafkaError | None, message: Message) -> None:
        """The record could not be delivered: from within a poll, so no more than noted here."""
        if error is not None and not self.flowing:  # a value proves that it was
            self._engine.producers.failed.append((self, error, message))

    def fail(self, error: CallFailed) -> None:
        """There will be no more."""
        self._broken(error)

    def expire(self) -> None:
        """The deadline has passed."""
        self._engine.look_soon()
        detail = "The service did not answer in time."
        self.waiter.fail(CallFailed(Kinds.TIMEOUT, Outcome.UNKNOWN, detail))

    def _take(self, answer: Answer) -> None:
        raise NotImplementedError

    def _broken(self, error: GatewayError) -> None:
        self.waiter.fail(error)


class AllValues(ReplySink):
    """The sink of a call that wants all values, as a JSON array. Status and fields are those of the first record."""

    __slots__ = ("_first", "_lines", "_size")

    several = True

    def __init__(self, dialect: Dialect, engine: Engine) -> None:
        super().__init__(dialect, engine)
        self._first: Reply | None = None
        self._lines: list[bytes] = []
        self._size = 2

    def _take(self, answer: Answer) -> None:
        if isinstance(answer, End):
            self._settle(self._first or answer.empty)
            return
        reply = answer.reply
        if reply.status >= 400:
            self.done = True
            self.waiter.settle(reply)
            return
        if self._first is None:
            self._first = reply
        line = json_line(reply)
        self._lines.append(line)
        self._size += len(line) + 1
        if self._size > self._engine.settings.streams.collected:
            raise bad_answer("The service's values are more than the gateway collects.")
        if answer.last:
            self._settle(self._first)

    def _settle(self, first: Reply) -> None:
        self.done = True
        self.waiter.settle(Reply(_status(first), _typed(first, _JSON), b"[%b]" % b",".join(self._lines)))


class StreamedValues(ReplySink):
    """The sink of a call that wants values as they come. Status and fields are those of the first record."""

    __slots__ = ("_body", "_flows", "_heard", "_idle", "_over", "_slow", "_taken", "correlation_id", "flowing")

    several = True

    def __init__(self, dialect: Dialect, engine: Engine) -> None:
        super().__init__(dialect, engine)
        self._flows = flows = engine.flows
        self.correlation_id = b""  # known when the request is sent
        self.flowing = False
        self._over = False
        self._body = Body(self)
        self._heard = 0.0  # loop time of the last value
        self._taken = 0  # bytes that the client had taken when `_slow` was set
        self._idle = Alarm(flows.timer, self._look_for_values)
        self._slow = Alarm(flows.timer, self._look_for_progress)

    def _take(self, answer: Answer) -> None:
        if isinstance(answer, End):
            self._end(answer.empty)
            return
        reply = answer.reply
        if reply.status >= 400:
            if self.flowing:
                raise CallFailed(Kinds.SERVICE_ERROR, Outcome.ANSWERED, status=reply.status)
            self.done = True
            self.waiter.settle(reply)
            return
        body = self._body
        body.feed(json_line(reply) + b"\n")
        self._heard = now = self._flows.timer.now()
        if not self.flowing:
            if self.waiter.done():
                return  # it failed in this very turn
            self.flowing = True
            self._idle.ring_at(now + self._flows.settings.idle)
            self.waiter.settle(Reply(_status(reply), _typed(reply, NDJSON), body))  # the client's side runs on in here
        if self._over:
            return
        if answer.last:
            self._end(reply)
        elif body.waiting:
            self._queued(now)

    def _queued(self, now: float) -> None:
        """The client has not taken all there is."""
        settings = self._flows.settings
        if self._body.waiting > settings.queue:
            self._broken(RequestRefused(Kinds.SLOW_CLIENT, "The client is too slow for the values that come."))
        elif not self._slow.set:
            self._taken = self._body.received - self._body.waiting
            self._slow.ring_at(now + settings.slow)

    def _end(self, first: Reply) -> None:
        """No more values come."""
        self.done = True
        if not self.flowing:  # nor did any
            self.waiter.settle(Reply(_status(first), _typed(first, NDJSON), b""))
            return
        self._idle.off()
        self._flows.pending.close(self.correlation_id)
        self._body.end()
        if self._over:
            return
        if self._body.waiting:
            self._queued(self._flows.timer.now())
        else:
            self._leave("complete")

    def _look_for_values(self) -> None:
        """Whether the service still sends."""
        due = self._heard + self._flows.settings.idle
        if due > self._flows.timer.now():
            self._idle.ring_at(due)
        else:
            detail = "The service sent nothing more in time."
            self._broken(CallFailed(Kinds.TIMEOUT, Outcome.UNKNOWN, detail))

    def _look_for_progress(self) -> None:
        """Whether the client still reads."""
        body = self._body
        taken = body.received - body.waiting
        if not body.waiting:
            if self.done:
                self._leave("complete")
        elif taken != self._taken:
            self._taken = taken
            self._slow.ring_at(self._flows.timer.now() + self._flows.settings.slow)
        else:
            self._broken(RequestRefused(Kinds.SLOW_CLIENT, "The client took none of the values that wait for it."))

    def _broken(self, error: GatewayError) -> None:
        """Before the first value the call fails; after it the stream is cut."""
        if not self.flowing:
            self.waiter.fail(error)
        elif not self._over:
            self._leave(error.kind.name)
            self._body.cut(error)

    def _leave(self, end: str) -> None:
        self._over = True
        self._idle.off()
        self._slow.off()
        self._flows.pending.close(self.correlation_id)
        self._flows.leave()
        self._flows.ended.child(end).value += 1

    # The body's source (body.BodySource).

    def pause_body(self) -> None:
        """Services cannot be held back; `_queued` sees to the rest."""

    def resume_body(self) -> None:
        """Nor need they be told to go on."""

    def drop_body(self) -> None:
        """The client has gone."""
        if not self._over:
            self._leave(Kinds.CLIENT_GONE.name)


def _status(first: Reply) -> int:
    """That of the answer: one that knows no body cannot carry the values."""
    return first.status if first.status < 300 and first.status not in (204, 205) else 200


def _typed(first: Reply, kind: bytes) -> Headers:
    return first.headers.setting(b"content-type", kind)
