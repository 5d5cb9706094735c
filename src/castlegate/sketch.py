"""What compiled things say of themselves: each has one small method `describe`, for `castlegate explain`.

A sketch is a request of which only method, host and target are known. The rest has stand-ins: texts of letters and
digits, which keep their form wherever they are put, so that the very code that serves requests can make calls and
records of them. In the end `show` puts the names of what they stand for in their place.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import msgspec

from castlegate.errors import RequestRefused
from castlegate.headers import Headers
from castlegate.message import Guard, Request
from castlegate.principal import Principal

_STAND_IN = re.compile(r"zQ([0-9]+)Qz")


class Description(msgspec.Struct, kw_only=True, frozen=True):
    """What one link of a route's chain is and does."""

    role: str
    """`policy`, `endpoint`, `guard` or `upstream`."""
    name: str
    says: dict[str, Any]
    """By key, in order: text, or a list of texts."""


class Record(NamedTuple):
    """An event as its endpoint hands it over."""

    key: bytes | None
    value: bytes
    headers: list[tuple[str, bytes]]


class Sketch:
    """See the module."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self.request: Request = _UNKNOWN  # set before anything describes itself
        self.caller: Principal | None = None  # who is taken to call, where that is said
        self.refusal: RequestRefused | None = None  # what the request is answered with; set by what refuses it
        self.sent: Any = None  # what the endpoint hands on: a Call or a Record; set by the endpoint's `describe`

    def stand_in(self, name: str) -> str:
        """Text that `show` turns into `name`."""
        if name not in self._names:
            self._names.append(name)
        return f"zQ{self._names.index(name)}Qz"

    def someone(self, scheme: str) -> Principal:
        """A caller of whom nothing is known."""
        scopes = frozenset((self.stand_in("{principal.scopes}"),))
        return Principal(subject=self.stand_in("{principal.subject}"), scheme=scheme, scopes=scopes)

    def knows(self, text: str | bytes | None) -> bool:
        """Whether no part of it is a stand-in."""
        return text is None or _STAND_IN.search(text if isinstance(text, str) else text.decode("latin-1")) is None

    def show(self, text: str | bytes) -> str:
        """As people are to read it."""
        plain = text.decode("utf-8", "backslashreplace") if isinstance(text, bytes) else text
        return _STAND_IN.sub(lambda found: self._names[int(found[1])], plain)

    def show_fields(self, fields: Mapping[str, str | None]) -> list[str]:
        """Rules for fields: set or removed."""
        return [f"{name}: removed" if text is None else f"{name}: {self.show(text)}" for name, text in fields.items()]


class Described(Protocol):
    """A link of the chain."""

    def describe(self, sketch: Sketch) -> Description:
        """What it does with this request. Raises `RequestRefused` where it refuses it."""


class DescribedGuard(Guard, Described, Protocol):
    """What the guards of a service are."""


class UnknownFields(Headers):
    """The client's fields, of which only some are known: each of the others has a stand-in."""

    __slots__ = ("_absent", "_sketch")

    def __init__(self, sketch: Sketch, known: Headers, *absent: bytes) -> None:
        """`absent`: fields that are not there unless they are among those known."""
        every = sketch.stand_in("(the client's own fields)"), sketch.stand_in("but those of one hop and of proxies")
        super().__init__([*known.lines, f"{every[0]}: {every[1]}\r\n".encode()])
        self._sketch = sketch
        self._absent = absent

    def get(self, name: bytes) -> bytes | None:
        """Its value, or its stand-in."""
        known = super().get(name)
        if known is not None or name in self._absent:
            return known
        return self._sketch.stand_in(f"{{header.{name.decode('latin-1')}}}").encode()

    def adding(self, name: bytes, value: bytes) -> Headers:
        """With a field more."""
        return self._changed(super().adding(name, value), self._absent)

    def without(self, *names: bytes) -> Headers:
        """Without the fields of these names, known or not."""
        return self._changed(super().without(*names), (*self._absent, *names))

    def _changed(self, headers: Headers, absent: tuple[bytes, ...]) -> UnknownFields:
        changed = UnknownFields.__new__(UnknownFields)
        Headers.__init__(changed, headers.lines)
        changed._sketch, changed._absent = self._sketch, absent
        return changed


_UNKNOWN: Any = None
