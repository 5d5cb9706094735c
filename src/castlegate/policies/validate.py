"""Requests that do not have the shape that the route says are answered 400, with every mistake in one answer.

Schemas are JSON Schema (draft 2020-12 where they name none), compiled at load; references may point into the schema
itself and nowhere else: nothing is ever fetched. Patterns run on an engine without backtracking. What comes as text
(path, query) is read as the type that the schema asks for, where it is written as one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from castlegate.body import Budget
from castlegate.config.references import query_parameters
from castlegate.config.report import Place, show
from castlegate.config.units import Count
from castlegate.errors import GatewayError, Kinds, RequestRefused
from castlegate.message import Handler, Request, Response
from castlegate.policies.policy import Site, refuse
from castlegate.problem import problem
from castlegate.sketch import Description, Sketch

if TYPE_CHECKING:
    from jsonschema_rs import ValidationError, Validator

_MOST = 32  # mistakes told in one answer
_LONGEST = 200  # characters of a mistake's text
_TOLD = 8 * 1024  # bytes of a body whose mistakes are told: a megabyte may have half a million, found in 15 s and 1 GB
# A text that does not end is taken to the end of the body: looked for anew at each of its quotes, it would take the
# square of the body's length.
_DEPTH = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)|([\[{])|[\]}]', re.DOTALL)
_JSON = re.compile(rb"application/(?:[a-z0-9.+-]*\+)?json(?:\s*;.*)?", re.IGNORECASE)
_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,17})")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,17})(?:\.[0-9]{1,40})?(?:[eE][-+]?[0-9]{1,2})?")

Mistake = dict[str, str]


class Validation(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """What requests must look like. A schema is a mapping, or the path of a JSON file of one."""

    body: Any = None
    """Of the body as JSON. Without a body it is null."""
    query: Any = None
    """Of the query as an object: a text for each parameter, or what the schema's `type` asks for; an array where the
    schema asks for one."""
    path: Any = None
    """The same of the path's placeholders."""
    depth: Count = 32
    """Objects and arrays of the body that may stand within one another."""

    def check(self, at: Place) -> None:
        """The schemas."""
        for name in ("body", "query", "path"):
            said = getattr(self, name)
            if said is None:
                continue
            schema = _schema(said, at.field(name), at.report.folder)
            if schema is not None:
                _compile(schema, at.field(name))


class ValidationSettings(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """What a route says of it."""

    validate: Validation | None = None
    """JSON Schemas of body, query and path: what does not fit is answered 400 and not passed on."""


def validate(settings: ValidationSettings, site: Site) -> ValidatePolicy | None:
    """The policy, where a schema or a depth is said."""
    return None if settings.validate is None else ValidatePolicy(settings.validate, site)


class ValidatePolicy:
    """Of one route."""

    def __init__(self, settings: Validation, site: Site) -> None:
        self._depth = settings.depth
        self._limit = site.body
        self._budget: Budget = site.means.budget
        self._checks: list[tuple[str, Check]] = []
        at = site.at.field("validate")
        for name, values in (("path", _of_path), ("query", _of_query)):
            schema = _schema(getattr(settings, name), at.field(name), site.means.folder)
            if schema is not None:
                self._checks.append((name, Check(schema, at.field(name), values)))
        schema = _schema(settings.body, at.field("body"), site.means.folder)
        self._body = None if schema is None else _compile(schema, at.field("body"))

    def describe(self, sketch: Sketch) -> Description:
        """What is looked at."""
        del sketch
        names = [*(name for name, _ in self._checks), *(["body"] if self._body is not None else [])]
        says = {"schemas of": ", ".join(names) or "nothing", "JSON": f"at most {self._depth} levels deep"}
        return Description(role="policy", name="validate", says=says)

    def wrap(self, inner: Handler) -> Handler:
        """400 with all mistakes; 415 for a body that is no JSON where a schema is said."""

        def handle(request: Request) -> Awaitable[Response]:
            body = request.body
            try:
                mistakes = [mistake for name, check in self._checks for mistake in check.mistakes(name, request)]
            except GatewayError as error:
                return refuse(error, request)
            if body == b"" and self._body is None:
                return inner(request) if not mistakes else refuse(_refusal(mistakes), request)
            return self._with_body(inner, request, mistakes)

        return handle

    async def _with_body(self, inner: Handler, request: Request, mistakes: list[Mistake]) -> Response:
        try:
            await request.collect(self._limit, self._budget)
            mistakes += self._of_body(request)
            if mistakes:
                raise _refusal(mistakes)
        except GatewayError as error:
            return problem(error, request)
        return await inner(request)

    def _of_body(self, request: Request) -> list[Mistake]:
        body = request.body
        assert isinstance(body, bytes)
        kind = request.headers.get(b"content-type")
        is_json = kind is not None and _JSON.fullmatch(kind) is not None
        if body and not is_json and self._body is not None:
            raise RequestRefused(Kinds.UNSUPPORTED_MEDIA, "The body must be JSON: application/json.")
        if not is_json and self._body is None:
            return []
        if _deeper(body, self._depth):
            raise RequestRefused(Kinds.BAD_INPUT, f"The body is nested more than {self._depth} levels deep.")
        if self._body is None:
            return []
        value = request.json()
        if body and _repeats(body, value):
            raise RequestRefused(Kinds.BAD_INPUT, "A member stands twice in an object of the body.")
        if len(body) <= _TOLD:
            return _mistakes("body", self._body, value)
        detail = f"does not fit; of bodies of more than {_TOLD} bytes it is not told where"
        return [] if self._body.is_valid(value) else [{"in": "body", "pointer": "", "detail": detail}]


class Check:
    """Of values that come as text: each is read as the type that its schema asks for."""

    def __init__(self, schema: Any, at: Place, values: Callable[[Request], dict[str, list[str]]]) -> None:
        self._values = values
        self._validator = _compile(schema, at)
        properties = schema.get("properties") if isinstance(schema, dict) else None
        self._types = {
            name: _types(of) for name, of in (properties.items() if isinstance(properties, dict) else ())
        }  # fmt: skip

    def mistakes(self, name: str, request: Request) -> list[Mistake]:
        """What does not fit."""
        if self._validator is None:
            return []
        values = {name: self._read(name, texts) for name, texts in self._values(request).items()}
        return _mistakes(name, self._validator, values)

    def _read(self, name: str, texts: list[str]) -> Any:
        types, of_items = self._types.get(name, ((), ()))
        if "array" in types:
            return [_read(text, of_items) for text in texts]
        return _read(texts[0], types) if len(texts) == 1 else texts


def _types(schema: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What a property may be, and its items."""
    if not isinstance(schema, dict):
        return (), ()
    items = schema.get("items")
    return _listed(schema.get("type")), _listed(items.get("type")) if isinstance(items, dict) else ()


def _listed(said: Any) -> tuple[str, ...]:
    return (said,) if isinstance(said, str) else tuple(said) if isinstance(said, list) else ()


def _read(text: str, types: tuple[str, ...]) -> Any:
    """As one of the types, if it is written as one; else the text, which the schema then refuses."""
    if "integer" in types and _INTEGER.fullmatch(text):
        return int(text)
    if "number" in types and _NUMBER.fullmatch(text):
        return float(text)
    if "boolean" in types and text in ("true", "false"):
        return text == "true"
    return text


def _of_path(request: Request) -> dict[str, list[str]]:
    return {name: [value] for name, value in request.params.items()}


def _of_query(request: Request) -> dict[str, list[str]]:
    return query_parameters(request.query)


def _schema(said: Any, at: Place, folder: Path) -> Any:
    """The schema; after a mistake, None."""
    if not isinstance(said, str):
        return said
    try:
        content = (folder / said).read_bytes()
    except (OSError, ValueError) as error:  # ValueError: no system has files of such a name
        at.mistake(f"the file {show(said)} cannot be read: {getattr(error, 'strerror', None) or error}")
        return None
    try:
        return msgspec.json.decode(content)
    except RecursionError:
        at.mistake(f"the file {show(said)} is nested too deeply")
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        at.mistake(f"the file {show(said)} is not JSON: {error}")
    return None


def _compile(schema: Any, at: Place) -> Validator | None:
    """After a mistake, None."""
    import jsonschema_rs  # not everybody validates

    try:
        return jsonschema_rs.validator_for(
            schema,
            validate_formats=True,
            pattern_options=jsonschema_rs.RegexOptions(),
            offline=True,
        )
    except (ValueError, jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError) as error:
        at.mistake(f"not a JSON Schema that can be used: {str(error).splitlines()[0]}")
        return None


def _mistakes(where: str, validator: Validator, value: Any) -> list[Mistake]:
    # The iterator is handed out when it has found all of them, however few are taken.
    return [_told(where, error) for error in islice(validator.iter_errors(value), _MOST)]


def _told(where: str, error: ValidationError) -> Mistake:
    pointer = "".join([f"/{str(step).replace('~', '~0').replace('/', '~1')}" for step in error.instance_path])
    return {"in": where, "pointer": pointer, "detail": error.message[:_LONGEST]}


def _refusal(mistakes: list[Mistake]) -> RequestRefused:
    places = " and ".join(dict.fromkeys(mistake["in"] for mistake in mistakes))
    count = f"is a mistake in the {places}" if len(mistakes) == 1 else f"are {len(mistakes)} mistakes in the {places}"
    return RequestRefused(Kinds.INVALID, f"There {count}.", members={"errors": mistakes[:_MOST]})


def _distinct(pairs: list[tuple[str, Any]]) -> None:
    if len({name for name, _ in pairs}) != len(pairs):
        raise ValueError("a member stands twice")


_read_distinct = json.JSONDecoder(object_pairs_hook=_distinct, parse_int=str, parse_float=str).decode


def _repeats(body: bytes, value: Any) -> bool:
    """Whether a name stands twice in an object: which of the two counts, readers do not agree on, and it goes on as it
    came. What comes out the same when it is written anew has lost nothing; that is found out sooner.
    """
    if msgspec.json.encode(value) == body:
        return False
    try:
        _read_distinct(body.decode())
    except ValueError:
        return True
    return False


def _deeper(body: bytes, depth: int) -> bool:
    """Whether objects and arrays stand in more than so many others. Stops as soon as that is known."""
    level = 0
    for found in _DEPTH.finditer(body):
        if found[1] is not None:
            level += 1
            if level > depth:
                return True
        elif found[0] in b"]}":
            level -= 1
    return False
