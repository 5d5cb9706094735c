"""The chunked transfer coding, decoded strictly (RFC 9112 §7.1).

Stricter than llhttp, which bounds neither chunk extensions nor trailers. Sans-IO: bytes in, (data, rest) out.
"""

from __future__ import annotations

import re

from castlegate.errors import Kinds
from castlegate.headers import Pairs
from castlegate.wire.fields import Malformed

_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[\t -~]*)?")
# White space around the value is not the pattern's business: told apart by it, it is tried in every way.
_TRAILER = re.compile(rb"([A-Za-z0-9!#$%&'*+.^_`|~-]++):([\t -~\x80-\xff]*+)")

LINES_A_TURN = 1024  # size lines decoded by one `feed`, whatever it is given: about a millisecond's work
LONGEST_LINE = 1024  # bytes of a chunk's size line with its extensions


class ChunkedDecoder:
    """One body: `feed` what arrives until `done`."""

    __slots__ = ("_left", "_line", "_max_trailer_size", "_max_trailers", "_trailer_size", "_want", "done", "trailers")

    def __init__(self, max_trailers: int, max_trailer_size: int) -> None:
        self._want = "size"  # size → data → data-end → size ... size 0 → trailers → done
        self._left = 0
        self._line = bytearray()
        self._max_trailers = max_trailers
        self._max_trailer_size = max_trailer_size
        self._trailer_size = 0
        self.trailers: Pairs = []
        self.done = False

    def feed(self, data: bytes) -> tuple[list[bytes], bytes]:
        """The chunks' data, and what stands behind the body's end or this turn's. Raises `Malformed`."""
        chunks: list[bytes] = []
        at = 0
        while at < len(data) and not self.done and len(chunks) < LINES_A_TURN:
            if self._want == "data":
                chunk = data[at : at + self._left]
                chunks.append(chunk)
                at += len(chunk)
                self._left -= len(chunk)
                if not self._left:
                    self._want = "data-end"
                continue
            end = data.find(b"\n", at)
            piece = data[at:] if end < 0 else data[at : end + 1]
            at += len(piece)
            self._line += piece
            if len(self._line) > (self._max_trailer_size if self._want == "trailers" else LONGEST_LINE):
                kind = Kinds.HEADERS_TOO_LARGE if self._want == "trailers" else Kinds.FRAMING
                raise Malformed("A line of the chunked body is too long.", kind)
            if self._want == "data-end" and not b"\r\n".startswith(self._line):
                raise Malformed("A chunk is longer than it says.")
            if end >= 0:
                self._take_line()
        return chunks, data[at:]

    def _take_line(self) -> None:
        line = bytes(self._line)
        self._line.clear()
        if not line.endswith(b"\r\n"):
            raise Malformed("A line of the chunked body does not end in CRLF.")
        line = line[:-2]
        if self._want == "data-end":
            self._want = "size"
        elif self._want == "size":
            match = _SIZE_LINE.fullmatch(line)
            if match is None:
                raise Malformed("A chunk's size is malformed.")
            self._left = int(match[1], 16)
            self._want = "data" if self._left else "trailers"
        elif line:
            self._take_trailer(line)
        else:
            self.done = True

    def _take_trailer(self, line: bytes) -> None:
        self._trailer_size += len(line) + 2
        if len(self.trailers) >= self._max_trailers or self._trailer_size > self._max_trailer_size:
            raise Malformed("The trailers are too large.", Kinds.HEADERS_TOO_LARGE)
        match = _TRAILER.fullmatch(line)
        if match is None:
            raise Malformed("A trailer is malformed.")
        self.trailers.append((match[1].lower(), match[2].strip(b" \t")))
