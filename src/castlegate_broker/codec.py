"""Messages to bytes and back: compiles the tables of `apis_*.py` to a reader and a writer per version.

A message is a dict with one key per field, whatever its version: fields that a version lacks are read as their
default and not written. Every length is checked against what is there before anything of that size is made.
Primitive types: https://kafka.apache.org/protocol#protocol_types
"""

import struct
from collections.abc import Callable, Iterable
from typing import Any

from castlegate_broker.errors import Malformed
from castlegate_broker.schema import REQUIRED, Field

Message = dict[str, Any]
Reader = Callable[[bytes, int], tuple[Any, int]]
Writer = Callable[[bytearray, Any], None]

_FIXED = {"bool": "?", "int8": "b", "int16": ">h", "int32": ">i", "int64": ">q", "uuid": "16s"}
_INT16 = struct.Struct(">h")
_INT32 = struct.Struct(">i")
_MAX_VARINT_BYTES = 5
_MAX_TAGS = 64


def message_reader(fields: Iterable[Field], version: int, *, flexible: bool) -> Reader:
    """Compile a function that reads a structure at a position: `(data, at) -> (message, after)`."""
    fields = tuple(fields)
    absent = {field.name: field.absent for field in fields if not field.present(version)}
    present = [(field.name, _field_reader(field, version, flexible)) for field in fields if field.present(version)]

    def read(data: bytes, at: int) -> tuple[Message, int]:
        message = absent.copy()
        for name, read_field in present:
            message[name], at = read_field(data, at)
        return message, (skip_tags(data, at) if flexible else at)

    return read


def message_writer(fields: Iterable[Field], version: int, *, flexible: bool) -> Writer:
    """Compile a function that appends a structure to a buffer: `(out, message)`."""
    present = [
        (field.name, field.default, _field_writer(field, version, flexible))
        for field in fields
        if field.present(version)
    ]

    def write(out: bytearray, message: Message) -> None:
        for name, default, write_field in present:
            write_field(out, message[name] if default is REQUIRED else message.get(name, default))
        if flexible:
            out.append(0)

    return write


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """Read an unsigned varint of at most 32 bits."""
    value = shift = 0
    for _ in range(_MAX_VARINT_BYTES):
        if at >= len(data):
            raise Malformed("a message ends within a varint")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise Malformed("a varint is longer than 32 bits")


def write_varint(out: bytearray, value: int) -> None:
    """Append an unsigned varint."""
    while value > 0x7F:
        out.append((value & 0x7F) | 0x80)
        value >>= 7
    out.append(value)


def skip_tags(data: bytes, at: int) -> int:
    """Step over tagged fields: all that exist are optional (KIP-482)."""
    count, at = read_varint(data, at)
    if count > _MAX_TAGS:
        raise Malformed(f"{count} tagged fields")
    for _ in range(count):
        _, at = read_varint(data, at)
        size, at = read_varint(data, at)
        at += size
        if at > len(data):
            raise Malformed("a message ends within a tagged field")
    return at


def read_string(data: bytes, at: int) -> tuple[str | None, int]:
    """Read a nullable string with a 16-bit length."""
    size, at = _INT16.unpack_from(data, at)[0], at + 2
    return _text(data, at, size)


def _text(data: bytes, at: int, size: int) -> tuple[str | None, int]:
    if size < 0:
        return None, at
    end = at + size
    if end > len(data):
        raise Malformed("a message ends within a string")
    return data[at:end].decode(), end


# Lengths: a compact one is an unsigned varint, one more than the length, 0 for null; the older ones are signed,
# negative for null. Reading gives -1 for null in both.


def _read_compact(data: bytes, at: int) -> tuple[int, int]:
    size, at = read_varint(data, at)
    return size - 1, at


def _write_compact(out: bytearray, size: int) -> None:
    write_varint(out, size + 1)


def _read_int32(data: bytes, at: int) -> tuple[int, int]:
    return _INT32.unpack_from(data, at)[0], at + 4


def _write_int32(out: bytearray, size: int) -> None:
    out += _INT32.pack(size)


def _read_int16(data: bytes, at: int) -> tuple[int, int]:
    return _INT16.unpack_from(data, at)[0], at + 2


def _write_int16(out: bytearray, size: int) -> None:
    out += _INT16.pack(size)


def _field_reader(field: Field, version: int, flexible: bool) -> Reader:
    if not field.array:
        return _scalar_reader(field, flexible)
    if field.fields:
        element = message_reader(field.fields, version, flexible=flexible)
    else:
        element = _scalar_reader(field, flexible)
    smallest = _smallest(field, version, flexible)
    read_count = _read_compact if flexible else _read_int32
    nullable = field.nullable

    def read(data: bytes, at: int) -> tuple[list[Any] | None, int]:
        count, at = read_count(data, at)
        if count < 0:
            if not nullable:
                raise Malformed(f"{field.name} is null")
            return None, at
        if count * smallest > len(data) - at:
            raise Malformed(f"{field.name} claims {count} elements, more than the message can hold")
        elements = []
        for _ in range(count):
            value, at = element(data, at)
            elements.append(value)
        return elements, at

    return read


def _scalar_reader(field: Field, flexible: bool) -> Reader:
    if field.type in _FIXED:
        layout = struct.Struct(_FIXED[field.type])
        unpack, size = layout.unpack_from, layout.size
        return lambda data, at: (unpack(data, at)[0], at + size)
    if field.type == "string":
        read_size = _read_compact if flexible else _read_int16
    else:
        read_size = _read_compact if flexible else _read_int32
    # A view: record batches are copied once, when the log writes their offset.
    cut: Callable[[bytes, int, int], Any] = _view if field.type == "records" else _bytes
    nullable, is_text = field.nullable, field.type == "string"

    def read(data: bytes, at: int) -> tuple[Any, int]:
        size, at = read_size(data, at)
        if size < 0 and not nullable:
            raise Malformed(f"{field.name} is null")
        if is_text:
            return _text(data, at, size)
        if size < 0:
            return None, at
        end = at + size
        if end > len(data):
            raise Malformed(f"a message ends within {field.name}")
        return cut(data, at, end), end

    return read


def _view(data: bytes, start: int, end: int) -> memoryview:
    return memoryview(data)[start:end]


def _bytes(data: bytes, start: int, end: int) -> bytes:
    return data[start:end]


def _smallest(field: Field, version: int, flexible: bool) -> int:
    """Fewest bytes that one element of an array can take: what a claimed count is checked against."""
    if not field.fields:
        return _smallest_scalar(field, flexible)
    sizes = (
        (1 if flexible else 4) if child.array else _smallest_scalar(child, flexible)
        for child in field.fields
        if child.present(version)
    )
    return sum(sizes) + flexible


def _smallest_scalar(field: Field, flexible: bool) -> int:
    if field.type in _FIXED:
        return struct.calcsize(_FIXED[field.type])
    if flexible:
        return 1
    return 2 if field.type == "string" else 4


def _field_writer(field: Field, version: int, flexible: bool) -> Writer:
    if not field.array:
        return _scalar_writer(field, flexible)
    if field.fields:
        element = message_writer(field.fields, version, flexible=flexible)
    else:
        element = _scalar_writer(field, flexible)
    write_count = _write_compact if flexible else _write_int32

    def write(out: bytearray, values: list[Any] | None) -> None:
        if values is None:
            write_count(out, -1)
            return
        write_count(out, len(values))
        for value in values:
            element(out, value)

    return write


def _scalar_writer(field: Field, flexible: bool) -> Writer:
    if field.type in _FIXED:
        pack = struct.Struct(_FIXED[field.type]).pack
        return lambda out, value: out.extend(pack(value))
    if field.type == "string":
        return _string_writer(flexible)
    write_size = _write_compact if flexible else _write_int32
    return _records_writer(write_size) if field.type == "records" else _bytes_writer(write_size)


def _string_writer(flexible: bool) -> Writer:
    write_size = _write_compact if flexible else _write_int16

    def write(out: bytearray, value: str | None) -> None:
        if value is None:
            write_size(out, -1)
            return
        text = value.encode()
        write_size(out, len(text))
        out += text

    return write


def _bytes_writer(write_size: Callable[[bytearray, int], None]) -> Writer:
    def write(out: bytearray, value: bytes | None) -> None:
        if value is None:
            write_size(out, -1)
            return
        write_size(out, len(value))
        out += value

    return write


def _records_writer(write_size: Callable[[bytearray, int], None]) -> Writer:
    """Records are written from a list of batches, so that a fetch joins nothing first."""

    def write(out: bytearray, batches: list[bytes] | None) -> None:
        if batches is None:
            write_size(out, -1)
            return
        write_size(out, sum(map(len, batches)))
        for batch in batches:
            out += batch

    return write
