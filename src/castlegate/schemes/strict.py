"""What tokens and keys are written in, read without leniency: each value has one spelling, and no other is taken.

Libraries skip what they cannot read in base64, and take the last of two members of one name in JSON: two readers of the
same token then see different things. Every function here raises `ValueError`, which says what is wrong and repeats none
of it.
"""

from __future__ import annotations

import binascii
import json
from typing import Any

import msgspec

_TO_STANDARD = bytes.maketrans(b"-_+/=", b"+/-_-")  # what is not of its alphabet is of neither
_PADDING = (b"", b"", b"==", b"=")
# By the letters that are left at the end: the last of them, if the bits that belong to no byte are zero.
_LAST_LETTERS = (None, b"", b"AQgw", b"AEIMQUYcgkosw048")


def decode_base64url(text: bytes) -> bytes:
    """Of base64url without padding (RFC 7515 §2). Whatever is not what the result encodes to is refused: padding, line
    breaks, foreign letters, and bits behind the last byte that are not zero.
    """
    left = len(text) & 3
    last = _LAST_LETTERS[left]
    if last is not None and text[-1] not in last:
        raise ValueError("not base64url in its one spelling")
    try:
        return binascii.a2b_base64(text.translate(_TO_STANDARD) + _PADDING[left], strict_mode=True)
    except binascii.Error as error:
        raise ValueError("not base64url") from error


def decode_object(content: bytes, depth: int) -> dict[str, Any]:
    """The object that `content` is as JSON, nested at most `depth` deep. No name may stand twice in an object."""
    try:
        value = _decode_all(content)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    if content.count(b"{") + content.count(b"[") > depth and _is_deeper(value, depth):
        raise ValueError("nested too deeply")
    return value


def _decode_all(content: bytes) -> Any:
    """Most write JSON in the shortest form. What comes out the same when it is written anew has lost nothing: no name
    stood twice. That takes a quarter of the time that looking at every object does.
    """
    try:
        value = msgspec.json.decode(content)
        if msgspec.json.encode(value) == content:
            return value
    except (ValueError, OverflowError, RecursionError):
        pass  # whether anything is wrong is for the other way to say
    text = content.decode()
    value = _decode(text)
    if "\\u" in text:
        json.dumps(value, ensure_ascii=False).encode()  # half of a surrogate pair is no character
    return value


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member stands twice")
    return members


def _refuse_constant(_name: str) -> None:
    raise ValueError("not a number that JSON has")


_decode = json.JSONDecoder(object_pairs_hook=_members, parse_constant=_refuse_constant).decode


def _is_deeper(value: dict[str, Any] | list[Any], depth: int) -> bool:
    if not depth:
        return True
    inner = value.values() if isinstance(value, dict) else value
    return any(_is_deeper(each, depth - 1) for each in inner if isinstance(each, dict | list))
