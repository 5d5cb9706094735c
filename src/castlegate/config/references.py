"""References such as `{path.id}`, `{query.page?:int}` or `{body.items.0.id}`: their grammar and what they reach.

    { ROOT [. NAME] [ [] ] [ ? ] [ : TYPE ] }

`?` makes it optional: missing is not an error. `[]` takes every value of a repeated query parameter as a list; in a
path into JSON it goes through a list, `{orders[].lines[].sku}`, and all that is found is one list. TYPE is `string`,
`int`, `number`, `bool` or `json`; without it a parameter or header is text and a JSON value keeps its type. `{{` and
`}}` stand for plain braces. References are data paths, never code: no operators, no calls.

Which roots there are is said by the `Scope` of the place where the text stands; a feature that knows more of a request
(claims, parts of a composition) adds roots of its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol
from urllib.parse import unquote_to_bytes

import msgspec

from castlegate.config.fields import ends_at_gateway, spelling
from castlegate.config.report import Place, listed, near, suggest
from castlegate.errors import GatewayError, Kinds, PartUnfit, RequestRefused
from castlegate.message import Request

Parts = Mapping[str, Any]
Fetch = Callable[[Request, Parts], Any]

NO_PARTS: Parts = {}
MISSING: Any = object()

_TYPES = ("string", "int", "number", "bool", "json")
_INT = re.compile(r"-?(?:0|[1-9][0-9]{0,18})")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,18})(?:\.[0-9]{1,40})?(?:[eE][-+]?[0-9]{1,2})?")
_BRACES = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_INNER = re.compile(r"([^.?:\[\]]+)((?:\[\])?\.[^?:]*?)?(\[\])?(\?)?(?::(.*))?")
_STEP = re.compile(r"[^\s.{}\[\]?:]+")
_EVERY = "[]"
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_QUERY = re.compile(r"[^\s{}\[\]?:&=#]+(?:\[[^\s{}\[\]?:&=#]+\])*")


class Reference(NamedTuple):
    """A reference that was found to be reachable, ready to be looked up."""

    name: str  # as people write it, `path.id`
    fetch: Fetch  # the value with its type, or MISSING
    optional: bool
    needs_body: bool
    rest: Callable[[Request], bytes] | None = None  # of a wildcard: its part of the normalised path, still encoded
    of_part: bool = False  # into what a service answered, so that what is wrong with it is not the client's mistake

    def refusal(self, text: str) -> GatewayError:
        """What to raise where its value will not do."""
        return _refusal(text, of_part=self.of_part)

    def value(self, request: Request, parts: Parts) -> Any:
        """The value, with its type; MISSING only if it may be, else the request is refused."""
        value = self.fetch(request, parts)
        if value is MISSING and not self.optional:
            raise self.refusal(f"{self.name} is missing.")
        return value

    def text(self, request: Request, parts: Parts) -> str:
        """The value as text; nothing where it may be missing and is."""
        value = self.fetch(request, parts)
        if type(value) is str:  # most are
            return value
        value = self.value(request, parts)
        return "" if value is MISSING else self.single(value)

    def single(self, value: Any) -> str:
        """A value of it as text; an object, a list or null is refused."""
        try:
            return as_text(value)
        except ValueError as error:
            raise self.refusal(f"{self.name} must be {error}.") from error


def _refusal(text: str, *, of_part: bool) -> GatewayError:
    return PartUnfit(text) if of_part else RequestRefused(Kinds.BAD_INPUT, text)


NOTHING_DROPPED: Mapping[str, str] = MappingProxyType({})


class Root(Protocol):
    """Where a kind of reference looks."""

    @property
    def needs_body(self) -> bool:
        """Whether the body must have been read."""

    def bind(self, name: str, every: bool, at: Place) -> Fetch | None:
        """How to get what `name` says; after a mistake, None. `every` asks for a list of all values."""

    def rest(self, name: str) -> Callable[[Request], bytes] | None:
        """For a `name` that stands for several path segments: where they are in the request."""


class Scope(NamedTuple):
    """What the references of one place can reach, by the name of the root."""

    roots: Mapping[str, Root]

    def including(self, roots: Mapping[str, Root]) -> Scope:
        """This and more."""
        return Scope({**self.roots, **roots})


def request_scope(params: Iterable[str] = (), rest: tuple[str, int] | None = None) -> Scope:
    """What a client's request offers: the parameters of its route, of which `rest` (name, number of segments before it)
    is a wildcard; query, header and body.
    """
    return Scope({"path": PathRoot(params, rest), "query": QueryRoot(), "header": HeaderRoot(), "body": BodyRoot()})


def parse(text: str, scope: Scope, at: Place) -> list[str | Reference] | None:
    """Literal pieces and references in turn; after a mistake, None."""
    pieces: list[str | Reference] = []
    literal = ""
    end = 0
    sound = True
    for match in _BRACES.finditer(text):
        literal += text[end : match.start()]
        end = match.end()
        if match[0] in ("{{", "}}"):
            literal += match[0][0]
        elif match[1] is None:
            lone = f"a lone '{match[0]}' in {at.shown(text)}; write '{match[0] * 2}' for a plain one"
            at.inside(match.start()).mistake(lone)
            sound = False
        else:
            reference = _reference(match[1], scope, at.inside(match.start()))
            sound = sound and reference is not None
            if reference is not None:
                pieces += [literal, reference] if literal else [reference]
                literal = ""
    literal += text[end:]
    if literal:
        pieces.append(literal)
    return pieces if sound else None


def _reference(inner: str, scope: Scope, at: Place) -> Reference | None:
    match = _INNER.fullmatch(inner)
    if match is None or match[2] in (".", "[]."):
        at.mistake(f"'{{{inner}}}' is no reference; those look like {{path.id}} or {{query.page?:int}}")
        return None
    name = (match[2] or "").removeprefix(".")
    root_name, every, optional, kind = match[1], bool(match[3]), bool(match[4]), match[5]
    root = scope.roots.get(root_name)
    if root is None:
        at.mistake(f"nothing is called '{root_name}' in '{{{inner}}}'{_root_hint(inner, root_name, scope)}")
        return None
    if kind is not None and kind not in _TYPES:
        hint = suggest(kind, _TYPES, "types are")
        if kind[:-1] in _TYPES and kind.endswith("?"):
            hint = f"; write '{{{inner.removesuffix(f':{kind}')}?:{kind[:-1]}}}'"
        at.mistake(f"unknown type '{kind}' in '{{{inner}}}'{hint}")
        return None
    fetch = root.bind(name, every, at)
    if fetch is None:
        return None
    full, of_part = _join(root_name, name), isinstance(root, PartRoot)
    if kind is not None:
        fetch = _converted(fetch, kind, full, every=every, of_part=of_part)
    rest = root.rest(name) if kind is None else None
    return Reference(full, fetch, optional, root.needs_body, rest, of_part)


def roots_in(text: str) -> set[str]:
    """The names of the roots that the references of a text begin with, reachable or not."""
    inner = [match[1] for match in _BRACES.finditer(text) if match[1] is not None]
    return {match[1] for match in map(_INNER.fullmatch, inner) if match is not None}


def _root_hint(inner: str, name: str, scope: Scope) -> str:
    path = scope.roots.get("path")
    if isinstance(path, PathRoot) and inner in path.params:
        return f"; did you mean '{{path.{inner}}}'?"
    found = near(name, scope.roots)
    if found is not None:
        return f"; did you mean '{{{found}{inner[len(name) :]}}}'?"
    return f"; references begin with {listed(scope.roots, 'or')}"


def _join(root: str, name: str) -> str:
    return f"{root}{'' if name.startswith(_EVERY) else '.'}{name}" if name else root


class PathRoot:
    """`{path.id}`: parameters of the route's own template, percent-decoded."""

    needs_body = False

    def __init__(self, params: Iterable[str], rest: tuple[str, int] | None = None) -> None:
        self.params = list(params)
        self._rest = rest

    def bind(self, name: str, every: bool, at: Place) -> Fetch | None:
        """Always there, since the route matched."""
        if not name:
            at.mistake(f"'{{path}}' names no path parameter{suggest(name, self.params, 'the path of this route has')}")
            return None
        if name not in self.params:
            what = "its path has" if self.params else ""
            none = "" if self.params else "; the path of this route has no parameters"
            at.mistake(f"no path parameter '{name}'{suggest(name, self.params, what) or none}")
            return None
        if every:
            at.mistake(f"'{{path.{name}[]}}': a path parameter has one value; write '{{path.{name}}}'")
            return None
        return lambda request, _parts: request.params[name]

    def rest(self, name: str) -> Callable[[Request], bytes] | None:
        """Of a wildcard."""
        if self._rest is None or self._rest[0] != name:
            return None
        before = self._rest[1] + 1
        return lambda request: request.path.split(b"/", before)[before]


class QueryRoot:
    """`{query.page}`: a parameter of the query, decoded once (percent and plus). Of a repeated one the first."""

    needs_body = False

    def __init__(self, dropped: Mapping[str, str] = NOTHING_DROPPED) -> None:
        """`dropped`: why parameters are not there."""
        self._dropped = dropped

    def bind(self, name: str, every: bool, at: Place) -> Fetch | None:
        """Missing where the query does not have it."""
        if not _QUERY.fullmatch(name):
            at.mistake(f"'{{{_join('query', name)}}}' names no query parameter; write {{query.page}}")
            return None
        if name in self._dropped:
            at.mistake(f"'{{query.{name}}}' is never there: {self._dropped[name]}")
            return None
        if every:
            return lambda request, _parts: query_parameters(request.query).get(name, MISSING)

        def first(request: Request, _parts: Parts) -> Any:
            values = query_parameters(request.query).get(name)
            return MISSING if values is None else values[0]

        return first

    def rest(self, name: str) -> None:
        """Never."""


class HeaderRoot:
    """`{header.x-tenant}`: a field of the request, bytes read as ISO-8859-1; repeated ones joined by commas."""

    needs_body = False

    def __init__(self, dropped: Mapping[str, str] = NOTHING_DROPPED) -> None:
        """`dropped`: why fields are not there, by their `spelling`."""
        self._dropped = dropped

    def bind(self, name: str, every: bool, at: Place) -> Fetch | None:
        """Missing where the request does not have it."""
        if not _HEADER.fullmatch(name):
            at.mistake(f"'{{{_join('header', name)}}}' names no header field; write {{header.x-tenant}}")
            return None
        if every:
            at.mistake(f"'{{header.{name}[]}}': repeated fields are joined by commas; write '{{header.{name}}}'")
            return None
        if ends_at_gateway(name):
            at.mistake(f"'{{header.{name}}}' is never there: the gateway reads this field itself")
            return None
        why = self._dropped.get(spelling(name))
        if why is not None:
            at.mistake(f"'{{header.{name}}}' is never there: {why}")
            return None
        key = name.lower().encode()

        def field(request: Request, _parts: Parts) -> Any:
            value = request.headers.get(key)
            return MISSING if value is None else value.decode("latin-1")

        return field

    def rest(self, name: str) -> None:
        """Never."""


class BodyRoot:
    """`{body}` and `{body.user.id}`: the body as JSON, and what is in it."""

    needs_body = True

    def bind(self, name: str, every: bool, at: Place) -> Fetch | None:
        """Missing where there is no body or nothing in it on that path."""
        find = _finder("body", name, every, at)
        if find is None:
            return None

        def value(request: Request, _parts: Parts) -> Any:
            return find(request.json()) if request.body else MISSING

        return value

    def rest(self, name: str) -> None:
        """Never."""


class PartRoot:
    """`{user.name}`: what an earlier part answered, and what is in it."""

    needs_body = False

    def __init__(self, part: str) -> None:
        self._part = part

    def bind(self, name: str, every: bool, at: Place) -> Fetch | None:
        """Missing where the part has no answer or nothing in it on that path."""
        find = _finder(self._part, name, every, at)
        if find is None:
            return None
        part = self._part
        return lambda _request, parts: find(parts.get(part, MISSING))

    def rest(self, name: str) -> None:
        """Never."""


def steps_of(root: str, name: str, every: bool, at: Place) -> list[str] | None:
    """The names on the way into a JSON value; after a mistake, None."""
    steps = name.split(".") if name else []
    if every or not all(map(_STEP.fullmatch, steps)):
        at.mistake(
            f"'{{{_join(root, name)}{'[]' if every else ''}}}' is no path into JSON; write {{{root}.items.0.id}}"
        )
        return None
    return steps


def _finder(root: str, name: str, every: bool, at: Place) -> Callable[[Any], Any] | None:
    """What finds the end of a path that may go through lists; after a mistake, None."""
    text = f"{name}{_EVERY}" if every else name
    if _EVERY not in text:
        steps = steps_of(root, name, every, at)
        return None if steps is None else lambda value: dig(value, steps)
    # Each run of names that stands before, between and behind the brackets.
    runs = [[step for step in run.split(".") if step] for run in text.split(_EVERY)]
    if not all(map(_STEP.fullmatch, [step for run in runs for step in run])) or ".." in text or f".{_EVERY}" in text:
        steps_of(root, name, every, at)
        return None
    return lambda value: _dig_every(value, runs)


def _dig_every(value: Any, runs: list[list[str]]) -> Any:
    """All that lies at the end of `runs`, between which stands a list; what some of its items lack is left out."""
    found = dig(value, runs[0])
    for run in runs[1:]:
        if found is MISSING or not isinstance(found, list):
            return MISSING
        items = [dig(item, run) for item in found]
        found = [item for item in items if item is not MISSING]
        if run is not runs[-1]:  # what follows goes through the items of all of these
            found = [item for inner in found if isinstance(inner, list) for item in inner]
    return found


def dig(value: Any, steps: list[str]) -> Any:
    """What lies at the end of `steps`: members of objects by name, items of lists by number."""
    for step in steps:
        if isinstance(value, dict):
            value = value.get(step, MISSING)
        elif isinstance(value, list) and step.isascii() and step.isdigit() and len(step) < 10:
            index = int(step)
            value = value[index] if index < len(value) else MISSING
        else:
            return MISSING
    return value


@lru_cache(maxsize=16)  # the references of one request ask one after another
def query_parameters(query: bytes) -> dict[str, list[str]]:
    """Every parameter of a query and its values, decoded once. Shared: not to be changed."""
    return _parameters(query, "query")


def form_parameters(form: bytes) -> dict[str, list[str]]:
    """The same of a form. Nothing is remembered of it: forms bring credentials."""
    return _parameters(form, "form")


def _parameters(text: bytes, what: str) -> dict[str, list[str]]:
    parameters: dict[str, list[str]] = {}
    try:
        for pair in text.split(b"&"):
            if pair:
                name, _, value = pair.replace(b"+", b" ").partition(b"=")
                parameters.setdefault(_decode(name), []).append(_decode(value))
    except UnicodeDecodeError as error:
        raise RequestRefused(Kinds.BAD_INPUT, f"The {what} is not UTF-8.") from error
    return parameters


def _decode(text: bytes) -> str:
    return (unquote_to_bytes(text) if b"%" in text else text).decode()


def _converted(fetch: Fetch, kind: str, name: str, *, every: bool, of_part: bool) -> Fetch:
    """`fetch` with its value made, or shown to be, of a type."""
    convert = _CONVERSIONS[kind]

    def converted(request: Request, parts: Parts) -> Any:
        value = fetch(request, parts)
        if value is MISSING:
            return MISSING
        try:
            return [convert(each) for each in value] if every else convert(value)
        except ValueError as error:
            raise _refusal(f"{name} must be {error}.", of_part=of_part) from error

    return converted


def _string(value: Any) -> str:
    return value if isinstance(value, str) else as_text(value)


def _int(value: Any) -> int:
    if isinstance(value, str) and _INT.fullmatch(value):
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise ValueError("a whole number")


def _number(value: Any) -> float:
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        return int(value) if _INT.fullmatch(value) else float(value)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return value
    raise ValueError("a number")


def _bool(value: Any) -> bool:
    if value is True or value == "true":
        return True
    if value is False or value == "false":
        return False
    raise ValueError("true or false")


def _json(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return msgspec.json.decode(value)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError("valid JSON") from error


_CONVERSIONS: dict[str, Callable[[Any], Any]] = {
    "string": _string, "int": _int, "number": _number, "bool": _bool, "json": _json,
}  # fmt: skip


def as_text(value: Any) -> str:
    """A single value as text; raises `ValueError` for those that are none: null, objects and lists."""
    if isinstance(value, str):
        return value
    if isinstance(value, (bool, int, float)):
        return msgspec.json.encode(value).decode()
    raise ValueError("a single value")
