"""The codec: what is written is read again in all versions, and no bytes do worse than be refused."""

import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from castlegate_broker import apis_admin, apis_data, apis_groups
from castlegate_broker.codec import Message, message_reader, message_writer, read_varint, write_varint
from castlegate_broker.errors import Malformed
from castlegate_broker.schema import REQUIRED, Api, Field, parse

APIS = [
    found
    for module in (apis_data, apis_groups, apis_admin)
    for found in vars(module).values()
    if isinstance(found, Api)
]
VERSIONS = [(one, version) for one in APIS for version in range(one.oldest, one.newest + 1)]
_REFUSALS = (Malformed, struct.error, UnicodeDecodeError)

_INTEGERS = {"int8": 8, "int16": 16, "int32": 32, "int64": 64}
_SCALARS: dict[str, st.SearchStrategy[Any]] = {
    "bool": st.booleans(),
    "uuid": st.binary(min_size=16, max_size=16),
    "string": st.text(max_size=20),
    "bytes": st.binary(max_size=200),
    "records": st.binary(max_size=200).map(lambda data: [data]),
    **{name: st.integers(-(1 << bits - 1), (1 << bits - 1) - 1) for name, bits in _INTEGERS.items()},
}


def _messages(fields: tuple[Field, ...], version: int) -> st.SearchStrategy[Message]:
    return st.fixed_dictionaries({one.name: _values(one, version) for one in fields if one.present(version)})


def _values(field: Field, version: int) -> st.SearchStrategy[Any]:
    values = _messages(field.fields, version) if field.fields else _SCALARS[field.type]
    if field.array:
        values = st.lists(values, max_size=3)
    return st.none() | values if field.nullable else values


def _as_read(fields: tuple[Field, ...], version: int, message: Message) -> Message:
    """The message with what a reader adds: defaults of fields that the version lacks, views of records."""
    found: Message = {}
    for field in fields:
        if not field.present(version):
            found[field.name] = field.absent
            continue
        value = message[field.name]
        if value is not None and field.fields:
            value = [_as_read(field.fields, version, one) for one in value]
        if value is not None and field.type == "records":
            value = b"".join(value)
        found[field.name] = value
    return found


@pytest.mark.parametrize(("api", "version"), VERSIONS, ids=lambda value: getattr(value, "name", value))
@settings(max_examples=4, deadline=None)
@given(data=st.data())
def test_what_is_written_is_read_again(api: Api, version: int, data: st.DataObject) -> None:
    flexible = api.is_flexible(version)
    for fields in (api.request, api.response):
        message = data.draw(_messages(fields, version))
        out = bytearray()
        message_writer(fields, version, flexible=flexible)(out, message)
        found, end = message_reader(fields, version, flexible=flexible)(bytes(out), 0)
        assert end == len(out)
        assert found == _as_read(fields, version, message)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(VERSIONS), st.binary(max_size=400))
def test_arbitrary_bytes_are_read_or_refused(which: tuple[Api, int], data: bytes) -> None:
    api, version = which
    try:
        _, end = message_reader(api.request, version, flexible=api.is_flexible(version))(data, 0)
    except _REFUSALS:
        return
    assert end <= len(data)


@settings(max_examples=200, deadline=None)
@given(st.data(), st.sampled_from(VERSIONS))
def test_a_cut_message_is_refused(data: st.DataObject, which: tuple[Api, int]) -> None:
    api, version = which
    flexible = api.is_flexible(version)
    out = bytearray()
    message_writer(api.request, version, flexible=flexible)(out, data.draw(_messages(api.request, version)))
    if not out:
        return
    cut = bytes(out[: data.draw(st.integers(0, len(out) - 1))])
    with pytest.raises(_REFUSALS):
        message_reader(api.request, version, flexible=flexible)(cut, 0)


@given(st.integers(0, (1 << 32) - 1))
def test_varints_of_32_bits_are_read_again(value: int) -> None:
    out = bytearray()
    write_varint(out, value)
    assert read_varint(bytes(out), 0) == (value, len(out))


def test_a_count_that_the_message_cannot_hold_is_refused_before_anything_is_made() -> None:
    read = message_reader(parse("numbers []int64"), 0, flexible=False)
    with pytest.raises(Malformed, match="more than the message can hold"):
        read(struct.pack(">i", 1 << 30) + bytes(64), 0)


def test_a_required_field_cannot_be_left_out_and_a_default_can() -> None:
    fields = parse(
        """
        required  int32
        optional  int32  =-1
        later     int32  2+
        """
    )
    assert fields[0].default is REQUIRED
    write = message_writer(fields, 1, flexible=False)
    out = bytearray()
    write(out, {"required": 7})
    assert out == struct.pack(">ii", 7, -1)
    with pytest.raises(KeyError):
        write(bytearray(), {"optional": 7})


def test_unknown_tagged_fields_are_read_over() -> None:
    read = message_reader(parse("number int8"), 0, flexible=True)
    assert read(b"\x05" + b"\x02" + b"\x00\x01x" + b"\x07\x03abc", 0) == ({"number": 5}, 10)
