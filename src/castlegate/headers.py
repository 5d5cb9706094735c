"""Header fields, of messages and of trailers: names are lower-case bytes, values bytes as received."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

Pairs = list[tuple[bytes, bytes]]


class Headers:
    """Fields in the order of arrival. Immutable: what changes them makes new ones."""

    __slots__ = ("lines", "wire")

    def __init__(self, lines: Sequence[bytes] = ()) -> None:
        self.lines = lines  # each as it stands on the wire, name in lower case: `name: value` and CRLF
        self.wire = b"".join(lines)

    @classmethod
    def of(cls, pairs: Iterable[tuple[bytes, bytes]]) -> Headers:
        """Of names in lower case and values."""
        return cls([b"%b: %b\r\n" % pair for pair in pairs])

    def pairs(self) -> Pairs:
        """Names and values."""
        return [(name, value[:-2]) for name, _, value in [line.partition(b": ") for line in self.lines]]

    def get(self, name: bytes) -> bytes | None:
        """The value; of a field that repeats, all of them joined by commas (RFC 9110 §5.3)."""
        start, wire = b"\n%b: " % name, b"\n" + self.wire
        begin = wire.find(start) + len(start)
        if begin < len(start):
            return None
        end = wire.index(b"\r", begin)
        return wire[begin:end] if wire.find(start, end) < 0 else b", ".join(self.get_all(name))

    def get_all(self, name: bytes) -> list[bytes]:
        """Every value of the field."""
        start = name + b": "
        return [line[len(start) : -2] for line in self.lines if line.startswith(start)]

    def cookie(self, name: bytes) -> bytes | None:
        """The value of a cookie, if it has one; of several of that name the first."""
        for field in self.get_all(b"cookie"):
            for pair in field.split(b";"):
                found, _, value = pair.strip(b" \t").partition(b"=")
                if found == name and value:
                    return value
        return None

    def adding(self, name: bytes, value: bytes) -> Headers:
        """With a field more."""
        return Headers([*self.lines, b"%b: %b\r\n" % (name, value)])

    def setting(self, name: bytes, value: bytes) -> Headers:
        """With one field in place of all of that name."""
        return self.without(name).adding(name, value)

    def without(self, *names: bytes) -> Headers:
        """Without the fields of these names."""
        starts = tuple([name + b": " for name in names])
        return Headers([line for line in self.lines if not line.startswith(starts)])

    def __contains__(self, name: bytes) -> bool:
        return b"\r\n%b: " % name in b"\r\n" + self.wire
