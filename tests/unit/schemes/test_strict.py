"""One spelling for each value."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from castlegate.schemes.strict import decode_base64url, decode_object

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(st.binary())
def test_what_was_encoded_is_decoded(content: bytes) -> None:
    assert decode_base64url(base64.urlsafe_b64encode(content).rstrip(b"=")) == content


@given(st.binary() | st.text("ABYZabyz0189-_+/=. \n").map(str.encode))
def test_nothing_is_decoded_that_is_not_what_its_content_encodes_to(text: bytes) -> None:
    try:
        content = decode_base64url(text)
    except ValueError:
        return
    assert base64.urlsafe_b64encode(content).rstrip(b"=") == text


@given(st.dictionaries(st.text(), JSON, max_size=5))
def test_objects_are_read_as_everybody_reads_them_however_they_are_written(value: dict[str, object]) -> None:
    for text in (
        json.dumps(value),
        json.dumps(value, separators=(",", ":")),
        json.dumps(value, ensure_ascii=False, indent=1),
    ):
        found = decode_object(text.encode(), 100)
        assert found == value
        assert repr(found) == repr(json.loads(text)), "types too"


@given(st.dictionaries(st.text(), JSON, min_size=1, max_size=5), st.booleans(), st.data())
def test_a_name_that_stands_twice_is_found_however_it_is_written(
    value: dict[str, object], compact: bool, data: st.DataObject
) -> None:
    separators = (",", ":") if compact else (", ", ": ")
    name = data.draw(st.sampled_from(list(value)))
    text = json.dumps(value, separators=separators)
    again = json.dumps({name: value[name]}, separators=separators, ensure_ascii=data.draw(st.booleans()))
    with pytest.raises(ValueError):
        decode_object((text[:-1] + "," + again[1:]).encode(), 100)


@given(st.binary() | st.text('{}[]":,\\aeu0d8 ').map(str.encode))
def test_whatever_is_no_object_is_a_value_error(content: bytes) -> None:
    try:
        decode_object(content, 8)
    except ValueError:
        return
    assert isinstance(json.loads(content), dict)


@pytest.mark.parametrize(
    "text",
    [
        "[]", "1", "null", '"{}"', "", "{", "{}{}", '{"a":1,"a":1}', '{"a":{"b":[{"c":1,"c":2}]}}', '{"a":NaN}',
        '{"a":-Infinity}', '{"a":01}', "{'a':1}", '{"a":1,}', '{"a":"\\ud800"}', '{"\\udc00":1}', '{"a":"\n"}', "\ufeff{}",
        '{"a":' + "[" * 100_000, '{"a":' + '{"a":' * 100_000, '{"a":' + "9" * 5000 + "}",
    ],
)  # fmt: skip
def test_refused(text: str) -> None:
    with pytest.raises(ValueError):
        decode_object(text.encode(), 8)


@pytest.mark.parametrize("content", [b'{"a":"\xff"}', '{"a":1}'.encode("utf-16"), '{"a":1}'.encode("utf-32")])
def test_other_encodings_than_utf_8_are_refused(content: bytes) -> None:
    with pytest.raises(ValueError):
        decode_object(content, 8)


@pytest.mark.parametrize(
    ("text", "depth"), [('{"a":1}', 1), ('{"a":[]}', 2), ('{"a":[{"b":{}}]}', 4), ('{"[[[{{{":"]}"}', 1)]
)
def test_depth_is_that_of_what_is_nested(text: str, depth: int) -> None:
    assert decode_object(text.encode(), depth)
    if depth > 1:
        with pytest.raises(ValueError):
            decode_object(text.encode(), depth - 1)


def test_a_pair_of_surrogates_is_a_character() -> None:
    assert decode_object(b'{"a":"\\ud83d\\ude00"}', 1) == {"a": "\U0001f600"}
