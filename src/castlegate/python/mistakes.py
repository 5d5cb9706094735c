"""All that is wrong with a request for a function, told at once: in the words of `castlegate.policies.validate`.

msgspec reads a body in one go and stops at the first mistake. Only a body that has one is looked at a second time, by
the JSON Schema of its type, for the others.
"""

from __future__ import annotations

import re
from itertools import islice
from typing import Any

import msgspec

from castlegate.errors import Kinds, RequestRefused

_MOST = 32  # mistakes told in one answer
_LONGEST = 200  # characters of a mistake's text
_TOLD = 8 * 1024  # bytes of a body in which more than the first is looked for
_AT = re.compile(r"(.*?)(?: - at `(?:key in )?\$(.*)`)?", re.DOTALL)
_STEP = re.compile(r"\.([^.\[\]]+)|\[([^\]]*)\]")

Mistake = dict[str, str]


def mistake(place: str, pointer: str, text: str) -> Mistake:
    """One; what msgspec says of where it is becomes part of the pointer."""
    found = _AT.fullmatch(text)
    assert found is not None, "it matches anything"
    steps = [name or index for name, index in _STEP.findall(found[2] or "")]
    pointer += "".join([f"/{step.replace('~', '~0').replace('/', '~1')}" for step in steps])
    return {"in": place, "pointer": pointer, "detail": found[1][:_LONGEST]}


def refusal(mistakes: list[Mistake]) -> RequestRefused:
    """400 with all of them."""
    places = " and ".join(dict.fromkeys(each["in"] for each in mistakes))
    count = f"is a mistake in the {places}" if len(mistakes) == 1 else f"are {len(mistakes)} mistakes in the {places}"
    return RequestRefused(Kinds.INVALID, f"There {count}.", members={"errors": mistakes[:_MOST]})


class BodyMistakes:
    """Reads bodies of one type."""

    __slots__ = ("_decode", "_type", "_validator")

    def __init__(self, kind: Any) -> None:
        self._type = kind
        self._decode = msgspec.json.Decoder(kind).decode
        self._validator: Any = None  # made when a body is wrong for the first time

    def read(self, body: bytes, mistakes: list[Mistake]) -> Any:
        """The value; mistakes are added to the list. Raises `RequestRefused` for what is no JSON."""
        try:
            return self._decode(body)
        except msgspec.ValidationError as error:
            mistakes += self._all(body) or [mistake("body", "", str(error))]
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise RequestRefused(Kinds.BAD_INPUT, f"The body is not valid JSON: {error}") from error
        return None

    def _all(self, body: bytes) -> list[Mistake]:
        """What the schema knows of; nothing where only msgspec knows better."""
        if len(body) > _TOLD:
            return []
        if self._validator is None:
            import jsonschema_rs  # not everybody sends wrong bodies

            self._validator = jsonschema_rs.validator_for(
                msgspec.json.schema(self._type),
                validate_formats=True,
                pattern_options=jsonschema_rs.RegexOptions(),
                offline=True,
            )
        errors = islice(self._validator.iter_errors(msgspec.json.decode(body)), _MOST)
        return [_told(error.instance_path, error.message) for error in errors]


def _told(path: list[str | int], text: str) -> Mistake:
    pointer = "".join([f"/{str(step).replace('~', '~0').replace('/', '~1')}" for step in path])
    return {"in": "body", "pointer": pointer, "detail": text[:_LONGEST]}
