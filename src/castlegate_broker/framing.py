"""Cuts a byte stream into Kafka's frames: a 32-bit size, then so many bytes. Sans-IO."""

import struct

from castlegate_broker.errors import Malformed

_SIZE = struct.Struct(">i")


class Frames:
    """Frames of one connection; `feed` what came, take with `next_frame` until it gives None."""

    __slots__ = ("_buffer", "_max_bytes")

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._buffer = bytearray()

    @property
    def buffered(self) -> int:
        """Bytes that came and were not taken yet."""
        return len(self._buffer)

    def feed(self, data: bytes) -> None:
        """Add what came."""
        self._buffer += data

    def next_frame(self) -> bytes | None:
        """The next whole frame; raises `Malformed` as soon as its size is known to be out of bounds."""
        if len(self._buffer) < _SIZE.size:
            return None
        (size,) = _SIZE.unpack_from(self._buffer)
        if not 0 <= size <= self._max_bytes:
            raise Malformed(f"a frame of {size} bytes; at most {self._max_bytes} are taken. Is this a Kafka client?")
        end = _SIZE.size + size
        if len(self._buffer) < end:
            return None
        with memoryview(self._buffer) as view:
            frame = bytes(view[_SIZE.size : end])
        del self._buffer[:end]
        return frame
