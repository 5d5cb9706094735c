"""One message, answered by several services or groups: the sink that gathers what they say.

    waiting ──as many answers as are wanted──▶ settled
       ├──so many errors that it cannot be──▶ failed (502)
       └──the time is over──▶ settled with what has come, if that will do; else failed (504)

Who answers is told by a header of the reply, and heard once; without one, answers are counted as they come. Of a
service that answers with several values (NestJS's observables) the last one counts, as everywhere. An answer that is an
error is one of its part alone.

What comes when the client has been answered is late, but a duplicate if everybody had answered.
"""

from __future__ import annotations

import re
from collections import Counter
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from castlegate.calls.gathering import MOST, PARTS, Gathering
from castlegate.errors import CallFailed, Kinds, Outcome
from castlegate.headers import Headers
from castlegate.message import Reply
from castlegate.upstreams.kafka.client import log
from castlegate.upstreams.kafka.dialects.dialect import Dialect, End, ReceivedHeaders
from castlegate.upstreams.kafka.dialects.replies import bad_answer
from castlegate.upstreams.kafka.pending import DUPLICATE, LATE, MALFORMED, OK
from castlegate.upstreams.kafka.streams import ReplySink, json_line

if TYPE_CHECKING:
    from castlegate.upstreams.kafka.engine import Engine

FIELD = b"castlegate-parts"
"""Tells what became of each part (RFC 9651): a list of names, or how many had which outcome."""
MOST_LISTED = 64
"""Names in that field. A last member counts those that are left out, for each outcome too."""

_JSON = (b"content-type", b"application/json")
_NAME = re.compile(rb"[\x21-\x7e]{1,100}")
_TOKEN = re.compile(r"[A-Za-z*][A-Za-z0-9!#$%&'*+.^_`|~:/-]*")  # RFC 9651 §3.3.4

_encode = msgspec.json.Encoder().encode


class Part(NamedTuple):
    """What one of them answered."""

    outcome: str  # ok or error
    milliseconds: int
    line: bytes = b""  # one JSON text
    status: int = 200

    def told(self) -> dict[str, Any]:
        """For the client."""
        told: dict[str, Any] = {"outcome": self.outcome, "ms": self.milliseconds}
        return told if self.outcome == "ok" else {**told, "status": self.status}


class GatherSink(ReplySink):
    """The sink of one such call."""

    __slots__ = ("_failed", "_good", "_parts", "_size", "_values", "begun", "gathering")

    several = True

    def __init__(self, gathering: Gathering, dialect: Dialect, engine: Engine) -> None:
        super().__init__(dialect, engine)
        self.gathering = gathering
        self.begun = 0.0  # loop time; known when the message is sent
        self._parts: dict[str, Part] = {}  # by name, or by number
        self._values: dict[str, Reply] = {}  # of those that have more to say
        self._good = 0
        self._failed = 0
        self._size = 2

    def feed(self, headers: ReceivedHeaders, value: bytes | None) -> str:
        """One record of one of them."""
        if self.waiter.done():
            return LATE
        name = self._name(headers)
        if name is None:
            return MALFORMED
        if name in self._parts:
            return DUPLICATE
        try:
            part = self._read(name, headers, value)
        except CallFailed as failure:
            part, kind = self._error(failure.status), MALFORMED if failure.kind is Kinds.BAD_ANSWER else OK
        except Exception:  # noqa: BLE001 - logged below
            log.exception("a reply could not be decoded")
            part, kind = self._error(Kinds.BAD_ANSWER.status), MALFORMED
        else:
            kind = OK
        if part is not None:
            self._values.pop(name, None)
            self._take_part(name, part)
        return kind

    def expire(self) -> None:
        """The time is over: what has come must do."""
        if not self._parts:
            self._engine.look_soon()
        if self.gathering.want is None and self._good:
            self._settle("timeout")
            return
        heard = f"{self._good} of {self._wanted()} answers came in time."
        self._give_up(Kinds.TIMEOUT, "timeout", heard if self._parts else "The services did not answer in time.")

    def _name(self, headers: ReceivedHeaders) -> str | None:
        """Whose record it is; None if it is of nobody who was asked."""
        gathering = self.gathering
        if gathering.by is None:
            return str(len(self._parts))
        said = headers.get(gathering.by)
        if said is None or _NAME.fullmatch(said) is None:
            return None
        name = said.decode("ascii")
        known = name in gathering.names if gathering.names else name != PARTS
        return name if known else None

    def _read(self, name: str, headers: ReceivedHeaders, value: bytes | None) -> Part | None:
        """The part, if it is complete with this record. Raises `CallFailed`."""
        answer = self._decode(headers, value)
        if isinstance(answer, End):
            reply = self._values.get(name, answer.empty)
        elif answer.last:
            reply = answer.reply
        elif self.gathering.by is None:
            raise bad_answer("Services that answer with several values must say who they are.")
        else:
            if len(self._values) < MOST:
                self._values[name] = answer.reply
            return None
        if reply.status >= 400:
            return self._error(reply.status)
        return Part("ok", self._elapsed(), json_line(reply))

    def _error(self, status: int) -> Part:
        return Part("error", self._elapsed(), status=status)

    def _elapsed(self) -> int:
        return round((self._engine.timer.now() - self.begun) * 1000)

    def _take_part(self, name: str, part: Part) -> None:
        self._parts[name] = part
        self._size += len(part.line) + len(name)
        gathering = self.gathering
        if part.outcome == "ok":
            self._good += 1
        else:
            self._failed += 1
        most = MOST if gathering.number is None else gathering.number
        self.done = len(self._parts) == gathering.number
        if self._size > self._engine.settings.streams.collected:
            self._give_up(Kinds.BAD_ANSWER, "skipped", "The answers are more than the gateway collects.")
        elif self._good == gathering.want or (gathering.want is None and len(self._parts) == most and self._good):
            self._settle("skipped")
        elif most - self._failed < (gathering.want or 1):
            heard = f"{self._failed} of the services answered with an error."
            self._give_up(Kinds.INCOMPLETE, "skipped", heard)

    def _settle(self, silent: str) -> None:
        """`silent`: what became of those that have not answered."""
        named = self.gathering.by is not None
        good = [(name, part.line) for name, part in self._in_order() if part.outcome == "ok"]
        if named:
            members = [b"%b:%b" % (_encode(name), line) for name, line in good]
            members.append(b"%b:%b" % (_encode(PARTS), _encode(self._told(silent))))
            body = b"{%b}" % b",".join(members)
        else:
            body = b"[%b]" % b",".join([line for _, line in good])
        self.waiter.settle(Reply(200, Headers.of([_JSON, (FIELD, self._field(silent))]), body))

    def _give_up(self, kind: Any, silent: str, detail: str) -> None:
        outcome = Outcome.ANSWERED if self.done else Outcome.UNKNOWN
        members = {"parts": self._told(silent)} if self._parts or self.gathering.names else {}
        headers = ((FIELD, self._field(silent)),)
        self._broken(CallFailed(kind, outcome, detail, headers=headers, members=members))

    def _in_order(self) -> list[tuple[str, Part]]:
        """As they were named, else as they came."""
        if not self.gathering.names:
            return list(self._parts.items())
        return [(name, self._parts[name]) for name in self.gathering.names if name in self._parts]

    def _told(self, silent: str) -> dict[str, Any]:
        """Of each one that is named, what became of it; of others, how many."""
        if self.gathering.by is None:
            return self._counts(silent)
        told = {name: part.told() for name, part in self._in_order()}
        return told | {name: {"outcome": silent} for name in self.gathering.names if name not in told}

    def _counts(self, silent: str) -> dict[str, int]:
        missing = (self.gathering.number or len(self._parts)) - len(self._parts)
        counts = {"ok": self._good, "error": self._failed, silent: missing}
        return {outcome: count for outcome, count in counts.items() if count}

    def _field(self, silent: str) -> bytes:
        if self.gathering.by is None:
            return ", ".join([f"{outcome}={count}" for outcome, count in self._counts(silent).items()]).encode()
        parts = []
        every = self._told(silent)
        for name, told in islice(every.items(), MOST_LISTED):
            if not _TOKEN.fullmatch(name):
                name = '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'
            parts.append(name + "".join([f";{key}={value}" for key, value in told.items()]))
        if len(every) > MOST_LISTED:
            rest = Counter([told["outcome"] for told in islice(every.values(), MOST_LISTED, None)])
            parts.append(f"{rest.total()}" + "".join([f";{outcome}={count}" for outcome, count in rest.items()]))
        return ", ".join(parts).encode()

    def _wanted(self) -> int:
        return 1 if self.gathering.want is None else self.gathering.want
