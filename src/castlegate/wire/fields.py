"""Header fields on the wire: heads as lines, which fields belong to one connection only, how bodies are chunked.

llhttp accepts or refuses a head; what its lines say is read here, and lines that say the same each time are read once.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from http import HTTPStatus
from typing import NamedTuple

from castlegate.config import fields as config_fields
from castlegate.errors import Kind, Kinds

HOP_BY_HOP = frozenset(name.encode() for name in config_fields.HOP_BY_HOP)

STATUS_LINES = {
    status: b"HTTP/1.1 %d %s" % (status, HTTPStatus(status).phrase.encode() if status in set(HTTPStatus) else b"")
    for status in range(100, 1000)
}

# What a peer says in every head, in few variants, and never a secret: only such lines are remembered.
_STEADY = re.compile(
    rb"accept(-.*)?|access-control-.*|cache-control|connection|content-(encoding|language|length|type)|date|dnt|host"
    rb"|keep-alive|origin|pragma|priority|sec-.*|server|te|transfer-encoding|upgrade-insecure-requests|user-agent|vary|x-powered-by"
)
_MOST_REMEMBERED = 1024  # lines, and names
_LONGEST_REMEMBERED = 256  # bytes of a line
_LONGEST_NAME = 64  # bytes of one that is remembered
_NAME = re.compile(rb"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


class Malformed(Exception):
    """What a peer sent is no HTTP, or ambiguous; `kind` is of the client's side."""

    def __init__(self, detail: str, kind: Kind = Kinds.FRAMING) -> None:
        super().__init__(detail)
        self.detail = detail
        self.kind = kind


class FieldReader:
    """Takes the lines of heads apart: those to be passed on, and those that the connection reads itself.

    `role` says of a name under which name the connection reads it; None: it is passed on.
    """

    __slots__ = ("_names", "_once", "_remembered", "_role")

    def __init__(self, role: Callable[[bytes], bytes | None], once: frozenset[bytes]) -> None:
        self._role = role
        self._once = once  # fields that may stand in a head once only
        self._names: dict[bytes, _Name] = {}  # as peers write them
        self._remembered: dict[bytes, tuple[bytes | None, bytes]] = {}  # line → as `_learn` returns it

    def read(self, lines: list[bytes], passed: list[bytes], read: dict[bytes, bytes]) -> None:
        """Append to `passed` what is passed on, as `Headers.lines`; put the rest into `read`. Raises `Malformed`."""
        remembered = self._remembered
        for line in lines:
            name, text = remembered.get(line) or self._learn(line)
            if name is None:
                passed.append(text)
            elif name not in read:
                read[name] = text
            elif name in self._once:
                raise Malformed(f"The field {name.decode()} is there more than once.")
            else:
                read[name] += b", " + text

    def _learn(self, line: bytes) -> tuple[bytes | None, bytes]:
        """Name and value of a field to be read; None and the line of one to be passed on."""
        written, _, value = line.partition(b":")
        name = self._names.get(written) or self._learn_name(written)
        value = value.strip(b" \t")
        found = (None, b"%b: %b\r\n" % (name.lower, value)) if name.role is None else (name.role, value)
        if name.steady and len(line) <= _LONGEST_REMEMBERED:
            if len(self._remembered) >= _MOST_REMEMBERED:
                self._remembered.clear()
            self._remembered[line] = found
        return found

    def _learn_name(self, written: bytes) -> _Name:
        if not _NAME.fullmatch(written):
            raise Malformed("A header line is malformed.")
        lower = written.lower()
        name = _Name(lower, self._role(lower), _STEADY.fullmatch(lower) is not None)
        if len(written) <= _LONGEST_NAME:
            if len(self._names) >= _MOST_REMEMBERED:
                self._names.clear()
            self._names[written] = name
        return name


class _Name(NamedTuple):
    """What is known of a field's name."""

    lower: bytes
    role: bytes | None
    steady: bool


def without_named(lines: list[bytes], connection: bytes) -> list[bytes]:
    """`lines` without the fields that the `Connection` field names as being of this hop only."""
    named = {name.strip().lower() for name in connection.split(b",")} - {b"close", b"keep-alive", b""}
    return [line for line in lines if line.partition(b":")[0] not in named] if named else lines


def encode_chunk(chunk: bytes) -> bytes:
    """One chunk of the chunked coding (RFC 9112 §7.1)."""
    return b"%x\r\n%b\r\n" % (len(chunk), chunk)


LAST_CHUNK = b"0\r\n\r\n"
