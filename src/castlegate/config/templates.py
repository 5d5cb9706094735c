"""Text and JSON with references in them, compiled at load; rendering puts each value where it belongs and nowhere else.

Every sink has its own encoding, so that no value can leave its place: a path segment stays one segment, a query value
one value, a header one line, a JSON value one value. What cannot be encoded for its sink is refused with 400.
After a mistake, which is in the report, what is returned renders to nothing of meaning and is not to be used.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import Enum
from typing import Any

import msgspec

from castlegate.config.references import MISSING, NO_PARTS, Parts, Reference, Scope, parse
from castlegate.config.report import Place
from castlegate.config.targets import Pieces, Render, compile_target
from castlegate.message import Request

_NOT_IN_HEADERS = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]|[^\x00-\xff]")

Build = Callable[[Request, Parts], Any]


class Sink(Enum):
    """Where rendered text goes, which says how its values are encoded."""

    TARGET = "target"  # path and query of a request
    HEADER = "header"  # a field's value, ISO-8859-1
    KEY = "key"  # of a record, UTF-8


class TextTemplate:
    """Text with references. `render(request, parts)` is bytes for its sink; raises `RequestRefused`."""

    __slots__ = ("constant", "has_query", "needs_body", "render")

    def __init__(self, render: Render, *, needs_body: bool, constant: bytes | None, has_query: bool = False) -> None:
        self.render = render
        self.needs_body = needs_body  # whether the body must be buffered before
        self.constant = constant  # what it always renders to, where it has no references
        self.has_query = has_query  # of a target: whether it says a query of its own


class JsonTemplate:
    """A JSON value with references. `render(request, parts)` is its bytes; raises `RequestRefused`."""

    __slots__ = ("constant", "needs_body", "render")

    def __init__(self, render: Render, *, needs_body: bool, constant: bytes | None) -> None:
        self.render = render
        self.needs_body = needs_body
        self.constant = constant


def compile_text(text: str, sink: Sink, scope: Scope, at: Place) -> TextTemplate:
    """Compile `text`, which stands at `at`; an optional reference that is missing is nothing."""
    pieces = parse(text, scope, at)
    render = None if pieces is None else _SINKS[sink](pieces, at)
    if pieces is None or render is None:
        return TextTemplate(lambda _request, _parts: b"", needs_body=False, constant=b"")
    references = [piece for piece in pieces if isinstance(piece, Reference)]
    has_query = sink is Sink.TARGET and any(isinstance(piece, str) and "?" in piece for piece in pieces)
    if references:
        needs_body = any(reference.needs_body for reference in references)
        return TextTemplate(render, needs_body=needs_body, constant=None, has_query=has_query)
    constant = render(_NO_REQUEST, NO_PARTS)
    return TextTemplate(lambda _request, _parts: constant, needs_body=False, constant=constant, has_query=has_query)


def compile_json(value: Any, scope: Scope, at: Place) -> JsonTemplate:
    """Compile a JSON value whose texts may hold references.

    A text that is nothing but a reference becomes the referenced value with its type; inside of other text a reference
    becomes text. An optional one that is missing: its member is left out of an object, in a list it is null, in text it
    is nothing.
    """
    needs_body = _NeedsBody()
    build = _build(value, scope, at, needs_body)
    if isinstance(build, msgspec.Raw):
        constant = bytes(build)
        return JsonTemplate(lambda _request, _parts: constant, needs_body=False, constant=constant)
    encode = msgspec.json.Encoder().encode

    def render(request: Request, parts: Parts) -> bytes:
        found = build(request, parts)
        return encode(None if found is MISSING else found)

    return JsonTemplate(render, needs_body=needs_body.seen, constant=None)


_NO_REQUEST: Any = None  # what constant templates are rendered from


class _NeedsBody:
    """Whether a reference into the body was met."""

    seen = False


def _build(value: Any, scope: Scope, at: Place, needs_body: _NeedsBody) -> msgspec.Raw | Build:
    """What makes the value: constants are already encoded."""
    if isinstance(value, str):
        return _build_text(value, scope, at, needs_body)
    if isinstance(value, dict):
        return _build_object({k: _build(v, scope, at.field(k), needs_body) for k, v in value.items()})
    if isinstance(value, (list, tuple)):
        return _build_list([_build(v, scope, at.field(i), needs_body) for i, v in enumerate(value)])
    try:
        return msgspec.Raw(msgspec.json.encode(value))
    except TypeError:
        at.mistake(f"expected a JSON value, found a {type(value).__name__}")
        return msgspec.Raw(b"null")


def _build_object(members: dict[str, msgspec.Raw | Build]) -> msgspec.Raw | Build:
    constants = {name: member for name, member in members.items() if isinstance(member, msgspec.Raw)}
    if len(constants) == len(members):
        return msgspec.Raw(msgspec.json.encode(constants))
    builds = list(members.items())

    def build(request: Request, parts: Parts) -> dict[str, Any]:
        found = {}
        for name, member in builds:
            value = member if isinstance(member, msgspec.Raw) else member(request, parts)
            if value is not MISSING:
                found[name] = value
        return found

    return build


def _build_list(items: list[msgspec.Raw | Build]) -> msgspec.Raw | Build:
    if all(isinstance(item, msgspec.Raw) for item in items):
        return msgspec.Raw(msgspec.json.encode(items))

    def build(request: Request, parts: Parts) -> list[Any]:
        found = [item if isinstance(item, msgspec.Raw) else item(request, parts) for item in items]
        return [None if value is MISSING else value for value in found]

    return build


def _build_text(text: str, scope: Scope, at: Place, needs_body: _NeedsBody) -> msgspec.Raw | Build:
    pieces = parse(text, scope, at)
    if pieces is None:
        return msgspec.Raw(b"null")
    references = [piece for piece in pieces if isinstance(piece, Reference)]
    if not references:
        return msgspec.Raw(msgspec.json.encode("".join(map(str, pieces))))
    needs_body.seen = needs_body.seen or any(reference.needs_body for reference in references)
    if len(pieces) == 1:
        reference = references[0]
        return reference.value
    return _text_of(pieces)


def _text_of(pieces: Pieces) -> Callable[[Request, Parts], str]:
    """What makes the text, with references as text."""
    if len(pieces) == 1 and isinstance(pieces[0], Reference):
        return pieces[0].text
    return lambda request, parts: "".join(
        [piece if isinstance(piece, str) else piece.text(request, parts) for piece in pieces]
    )


def _header(pieces: Pieces, at: Place) -> Render | None:
    for piece in pieces:
        if isinstance(piece, str) and (wrong := _NOT_IN_HEADERS.search(piece)):
            at.mistake(f"the character U+{ord(wrong[0]):04X} cannot stand in a header field")
            return None

    text_of = _text_of(pieces)

    def render(request: Request, parts: Parts) -> bytes:
        text = text_of(request, parts)
        if _NOT_IN_HEADERS.search(text):
            references = sorted(
                [piece for piece in pieces if isinstance(piece, Reference)], key=lambda r: not r.of_part
            )
            names = ", ".join(reference.name for reference in references)
            raise references[0].refusal(f"{names} cannot stand in a header field.")
        return text.encode("latin-1")

    return render


def _key(pieces: Pieces, at: Place) -> Render:
    del at
    text_of = _text_of(pieces)
    return lambda request, parts: text_of(request, parts).encode()


_SINKS: dict[Sink, Callable[[Pieces, Place], Render | None]] = {
    Sink.TARGET: compile_target,
    Sink.HEADER: _header,
    Sink.KEY: _key,
}
