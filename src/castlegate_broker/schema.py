"""The notation in which `apis_*.py` write down Kafka's messages, and its parser.

One field a line: name, type, versions that have it (all, if left out), default after `=`. Indented lines under
a `[]` are the fields of its elements. Types are `bool int8 int16 int32 int64 uuid string bytes records`;
`[]int32` is an array, `?` at the end allows null. A response's field without a default must be given.
Tagged fields (KIP-482) are all optional: read over, never sent, hence not written down.
"""

from dataclasses import dataclass
from typing import Any

REQUIRED: Any = object()
LATEST = 1_000
_Lines = list[tuple[int, list[str]]]
_ZERO: dict[str, Any] = {"bool": False, "uuid": bytes(16), "string": "", "bytes": b"", "records": b"", "": {}}


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a message; `type` is empty for a structure."""

    name: str
    type: str
    array: bool
    nullable: bool
    since: int
    until: int
    default: Any
    fields: tuple["Field", ...] = ()

    def present(self, version: int) -> bool:
        """Whether messages of this version have the field."""
        return self.since <= version <= self.until

    @property
    def absent(self) -> Any:
        """What a reader sees where the message's version lacks the field."""
        if self.default is not REQUIRED:
            return self.default
        if self.nullable:
            return None
        return () if self.array else _ZERO.get(self.type, 0)


@dataclass(frozen=True, slots=True)
class Api:
    """A request, its response, and the versions of both that are served."""

    key: int
    name: str
    oldest: int
    newest: int
    flexible: int
    request: tuple[Field, ...]
    response: tuple[Field, ...]
    advertised_oldest: int

    def serves(self, version: int) -> bool:
        """Whether requests of this version are understood."""
        return self.oldest <= version <= self.newest

    def is_flexible(self, version: int) -> bool:
        """Whether this version uses compact lengths and tagged fields (KIP-482)."""
        return version >= self.flexible


def api(
    key: int,
    name: str,
    versions: str,
    *,
    flexible: int,
    request: str,
    response: str,
    advertised_oldest: int | None = None,
) -> Api:
    """Build an `Api` of its two messages in the notation above."""
    oldest, newest = (int(part) for part in versions.split("-"))
    return Api(
        key,
        name,
        oldest,
        newest,
        flexible,
        parse(request),
        parse(response),
        oldest if advertised_oldest is None else advertised_oldest,
    )


def parse(text: str) -> tuple[Field, ...]:
    """Parse fields in the notation above."""
    lines = [line for line in text.splitlines() if line.strip()]
    fields, rest = _block([(len(line) - len(line.lstrip()), line.split()) for line in lines])
    if rest:
        raise ValueError(f"indentation of {' '.join(rest[0][1])!r} fits nothing")
    return fields


def _block(lines: _Lines) -> tuple[tuple[Field, ...], _Lines]:
    """Read the fields of one indentation; return them and the lines after."""
    fields: list[Field] = []
    indent = lines[0][0] if lines else 0
    rest = lines
    while rest and rest[0][0] == indent:
        words, rest = rest[0][1], rest[1:]
        children: tuple[Field, ...] = ()
        if rest and rest[0][0] > indent:
            children, rest = _block(rest)
        fields.append(_field(words, children))
    return tuple(fields), rest


def _field(words: list[str], children: tuple[Field, ...]) -> Field:
    name, kind, *options = words
    since, until, default = 0, LATEST, REQUIRED
    nullable = kind.endswith("?")
    array = kind.startswith("[]")
    scalar = kind.removeprefix("[]").removesuffix("?")
    for option in options:
        if option.startswith("="):
            default = _default(option[1:], scalar)
        elif option.endswith("+"):
            since = int(option[:-1])
        else:
            first, _, last = option.partition("-")
            since, until = int(first), int(last or first)
    return Field(name, scalar, array, nullable, since, until, default, children)


def _default(text: str, scalar: str) -> Any:
    if text == "null":
        return None
    if text == "[]":
        return ()
    if scalar == "string":
        return text
    return text == "true" if scalar == "bool" else int(text)
