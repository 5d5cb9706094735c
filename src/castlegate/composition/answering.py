"""The answer of a composition: the parts' bytes under their names, and what became of each part."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from castlegate.composition.caching import NOT_AT_ALL, strictest, united
from castlegate.composition.contents import NULL
from castlegate.composition.parts import OK, SKIPPED, Part
from castlegate.composition.reshaping import Shape, is_object, members_of
from castlegate.composition.running import PartRun, Run
from castlegate.errors import CallFailed, GatewayError
from castlegate.headers import Headers
from castlegate.message import Reply, Response

REPORT = b"castlegate-parts"
ASKED = b"parts"  # of `Prefer` (RFC 7240): the same in the body

_JSON = b"content-type: application/json\r\n"
_NOT_KEPT = b"cache-control: %b\r\n" % NOT_AT_ALL
# Of an answer that is the whole's: what tells of its body, and what a client does next. How long it may be kept comes
# on top.
_PASSED_ON = (
    b"content-type: ", b"content-encoding: ", b"content-language: ",
    b"www-authenticate: ", b"retry-after: ", b"allow: ",
)  # fmt: skip
_WHOLE = (OK, SKIPPED)

_encode = msgspec.json.Encoder().encode


class Answer:
    """How the answer of one route is put together."""

    __slots__ = ("_form", "_hidden", "_merges", "_shapes", "_status", "_timing")

    def __init__(self, parts: Sequence[Part], shapes: Sequence[Shape], *, status: int, timing: bool) -> None:
        self._shapes = shapes
        self._status = status
        self._timing = timing
        self._merges = any(part.merge for part in parts)
        self._hidden = any(part.hidden for part in parts)
        # Into which the contents are put; no name has a character that would have to be escaped.
        self._form = "{{{}}}".format(",".join(f'"{part.name}":%b' for part in parts if not part.hidden)).encode()

    def response(self, run: Run, *, told: bool) -> Response:
        """Of a run that has come to its end. `told`: with a report in the body. Raises `GatewayError`."""
        content = self._content(run.states)
        for shape in self._shapes:
            content = shape(content)
        lines = [_JSON]
        if told:
            lines += [b"preference-applied: parts\r\n", b"vary: prefer\r\n"]
            content = _with_report(content, run)
        lines.append(report_line(run))
        if self._timing:
            lines.append(_timing_line(run))
        for state in run.states:
            for digest in state.digests:
                lines += digest.passed
        _add_caching(run, run.states, lines)
        return Response(self._status, Headers(lines), content)

    def _content(self, states: Sequence[PartRun]) -> bytes:
        shown = [state for state in states if not state.part.hidden] if self._hidden else states
        if self._merges:
            return _merged(shown)
        return self._form % tuple([state.content for state in shown])


def _add_caching(run: Run, states: Iterable[PartRun], lines: list[bytes]) -> None:
    """How long what was made of these may be kept, and what it varies by."""
    controls: list[bytes | None] = []
    varies = []
    partial = False
    for state in states:
        partial = partial or ((state.outcome not in _WHOLE or state.failures > 0) and state is not run.ended_by)
        for digest in state.digests:
            controls.append(digest.control)
            if digest.vary is not None:
                varies.append(digest.vary)
    if partial:
        lines.append(_NOT_KEPT)
        return
    if any(control is not None for control in controls):
        control = strictest(tuple(controls), authorized=b"authorization" in run.request.headers)
        lines.append(b"cache-control: %b\r\n" % control)
    if varies:
        vary = united(tuple(varies))
        if vary:
            lines.append(b"vary: %b\r\n" % vary)


def passed_on(run: Run, reply: Reply, part: PartRun) -> Response:
    """The answer to a part that is the whole's."""
    lines = [line for line in reply.headers.lines if line.startswith(_PASSED_ON)]
    lines += [line for digest in part.digests for line in digest.passed if line not in lines]
    lines.append(report_line(run))
    _add_caching(run, _grounds(run, part), lines)
    return Response(reply.status, Headers(lines), reply.body)


def _grounds(run: Run, state: PartRun) -> list[PartRun]:
    """A part and all that it was asked because of."""
    grounds = {state.part.index: state}
    waiting = [state]
    while waiting:
        for index in waiting.pop().part.inputs:
            if index not in grounds:
                grounds[index] = run.states[index]
                waiting.append(run.states[index])
    return list(grounds.values())


def failure(run: Run, error: GatewayError) -> GatewayError:
    """What the whole failed with, with what became of each part."""
    by, detail = run.ended_by, error.detail or error.kind.title
    if by is not None:
        what = "was not asked, since what it needs failed" if by.outcome is SKIPPED else "failed"
        detail = f"The part '{by.part.name}' {what}: {detail}"
    return CallFailed(
        error.kind,
        run.outcome,
        detail,
        status=run.status or error.status,
        headers=(*error.headers, (REPORT, report_line(run)[len(REPORT) + 2 : -2])),
        members={"parts": report(run)},
    )


def report_line(run: Run) -> bytes:
    """The field that tells of each part, a list of structured fields (RFC 9651)."""
    pieces = []
    for state in run.states:
        piece = b"%b%d" % (state.part.words[state.outcome], (state.ended - state.began) * 1000)
        pieces.append(piece if not state.failures else b"%b;failed=%d" % (piece, state.failures))
    return b"castlegate-parts: %b\r\n" % b", ".join(pieces)


def report(run: Run) -> dict[str, dict[str, Any]]:
    """The same as JSON."""
    return {state.part.name: _told(state) for state in run.states}


def _told(state: PartRun) -> dict[str, Any]:
    told: dict[str, Any] = {"outcome": state.outcome, "ms": round((state.ended - state.began) * 1000)}
    if state.failures:
        told["failed"] = state.failures
    if state.error is not None and state.outcome is not SKIPPED:  # then it is another's
        told["reason"] = state.error.kind.name
        told["detail"] = state.error.detail or state.error.kind.title
    return told


def _timing_line(run: Run) -> bytes:
    entries = [f"{s.part.name};dur={(s.ended - s.began) * 1000:.1f}" for s in run.states if s.began]
    return f"server-timing: {', '.join(entries)}\r\n".encode()


def _merged(states: Sequence[PartRun]) -> bytes:
    members: dict[str, msgspec.Raw] = {}
    for state in states:
        content = state.content
        found = members_of(content) if state.part.merge and content != NULL else {}
        if not state.part.merge:
            found = {state.part.name: msgspec.Raw(content)}
        for name, member in found.items():
            members.pop(name, None)  # the place of the last one counts too
            members[name] = member
    return _encode(members)


def _with_report(content: bytes, run: Run) -> bytes:
    """An object gets one member more; what is none is left as it is."""
    if not is_object(content):
        return content
    return _encode({**members_of(content), "_parts": msgspec.Raw(_encode(report(run)))})
