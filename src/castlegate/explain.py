"""`castlegate explain`: what becomes of a request, told by the objects that a configuration compiles to. No network.

References to what is not known of the request (its fields, its body) are replaced by stand-ins before anything is
compiled, so what is shown was made by the code that serves requests. Each link of the chain describes itself; nothing
here knows what kinds of links there are.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from castlegate.build import Generation
from castlegate.config.report import DocumentPath, Place, Report, show, show_path, suggest
from castlegate.config.shapes import Shape, fields_of, is_struct, shape_of
from castlegate.document import Document, Loaded, RouteDefaults, load, merged
from castlegate.edge.forwarded import Forwarding
from castlegate.edge.framing import HeadReader, locate
from castlegate.endpoints.settings import DEFAULT_BODY, DEFAULT_BUFFER, DEFAULT_TIMEOUT, RouteLimits
from castlegate.errors import RequestRefused
from castlegate.message import Request, Response
from castlegate.principal import Principal
from castlegate.routing.decision import PREFLIGHT, decide
from castlegate.routing.nearest import Near, nearest
from castlegate.routing.route import Route
from castlegate.routing.template import parse_key
from castlegate.sketch import Description, Sketch, UnknownFields
from castlegate.telemetry.metrics import Registry
from castlegate.telemetry.trace import Trace
from castlegate.wire.timer import Timer

BUILT_IN = "built in"

_KNOWN = ("path", "query")  # roots of references whose values the request's target says
_REFERENCE = re.compile(r"\{\{|\}\}|\{([^.{}?:\[\]]+)[^{}]*\}")
_FIELD = re.compile(r"\{header\.([^?:}]+)")
_OWN_ANSWER = {
    False: "OPTIONS is answered by the gateway itself",
    True: "a preflight for this route is answered by the gateway itself, whose service does not see it",
}
_BODILESS = ("GET", "HEAD", "OPTIONS", "DELETE")
_DEFAULTS: Mapping[str, Any] = {
    "timeout": DEFAULT_TIMEOUT,
    "limits": RouteLimits(body=DEFAULT_BODY, buffer=DEFAULT_BUFFER),
}


class Setting(msgspec.Struct, frozen=True):
    """One that holds for the request."""

    name: str
    value: str
    source: str
    """Whose it is: the route's, its operation's, its service's, of the defaults; or built in."""
    position: str = ""
    """File, line and column."""


class Refusal(msgspec.Struct, frozen=True):
    """The answer of the gateway itself."""

    status: int
    reason: str
    allow: str = ""
    """The field of that name."""


class Explanation(msgspec.Struct, kw_only=True):
    """What becomes of a request."""

    method: str
    host: str
    target: str
    """As it was asked for."""
    path: str = ""
    """In normal form: as it is matched and forwarded."""
    route: str | None = None
    position: str = ""
    """File and line of the route."""
    placeholders: dict[str, str] = {}
    settings: list[Setting] = []
    chain: list[Description] = []
    refusal: Refusal | None = None
    near: list[Near] = []
    """Where there is no route: the nearest ones, and why they are not for the request."""

    @property
    def goes_through(self) -> bool:
        """Whether the request reaches its endpoint."""
        return self.refusal is None


def explain(
    path: Path, method: str, target: str, host: str, fields: Sequence[str] = (), caller: Principal | None = None
) -> Explanation:
    """What becomes of `METHOD TARGET` with these fields (`name: value`), from `caller` if it is said. Raises
    `ConfigError`.
    """
    told = Explanation(method=method, host=host, target=target)
    return asyncio.run(_explain(load(path), told, fields, caller))


async def _explain(loaded: Loaded, told: Explanation, fields: Sequence[str], caller: Principal | None) -> Explanation:
    if caller is not None and caller.scheme and caller.scheme not in loaded.document.auth:
        hint = suggest(caller.scheme, loaded.document.auth, "known are")
        loaded.report.add(None, (), f"the caller is to be known by {show(caller.scheme)}, which is not in 'auth'{hint}")
        loaded.report.raise_if_any()
    sketch = Sketch()
    sketch.caller = caller
    said = frozenset(field.partition(":")[0].lower() for field in fields)
    document = _with_stand_ins(loaded.document, Shape(Document), loaded.report.place(), _Naming(sketch, said))
    timer, registry = Timer(asyncio.get_running_loop()), Registry()
    generation = Generation(Loaded(document, loaded.report), instance="explain", timer=timer, registry=registry)
    await generation.compile()
    unrouted = Route("-", _answer_nothing, 0, registry)
    generation.dress(unrouted)
    try:
        request = _request(document, told, fields, sketch)
        try:
            route, handler = decide(generation.router, unrouted, request)
        finally:
            told.host, told.path = request.host.decode(), request.path.decode()
    except RequestRefused as refused:
        told.refusal = _refusal(refused)
        if refused.status in (404, 405):
            told.near = _nearest(loaded.document, told)
        return told
    if route is not unrouted:
        told.route = route.name
        where = ("routes", route.name) if route.name in loaded.document.routes else ("issuer",)
        told.position = str(loaded.report.position(where) or "")
    if handler is not route.handler:
        response = await handler(request)
        allow = response.headers.get(b"allow") or b""
        told.refusal = Refusal(response.status, _OWN_ANSWER[route is not unrouted], allow.decode())
        return told
    told.placeholders = dict(request.params)
    told.settings = list(_settings(loaded, route.name))
    sketch.request = request
    try:
        for link in generation.chains[route.name]:
            told.chain.append(link.describe(sketch))
            if sketch.refusal is not None:
                raise sketch.refusal
    except RequestRefused as refused:
        told.refusal = _refusal(refused)
    return told


def _refusal(refused: RequestRefused) -> Refusal:
    allow = dict(refused.headers).get(b"allow", b"").decode()
    return Refusal(refused.status, refused.detail or refused.kind.title, allow)


def _request(document: Document, told: Explanation, given: Sequence[str], sketch: Sketch) -> Request:
    """The request as the edge reads it, with stand-ins for what is not known. Raises `RequestRefused`."""
    limits, method = document.listen.limits, told.method
    lines = [f"{method} {told.target} HTTP/1.1", f"host: {told.host}", *given]
    head = "".join(f"{line}\r\n" for line in (*lines, "")).encode()
    read_method, target, fields = HeadReader(limits.headers, limits.uri, document.told_names()).read(head, None)
    host = fields.host
    if not target.startswith(b"/"):
        named, target = locate(read_method, target)
        host = named or host
    path, _, query = target.partition(b"?")
    client = sketch.stand_in("{address of the client}")
    scheme = b"http" if document.listen.tls is None else b"https"
    request = Request(
        sketch.stand_in("{request id}").encode(),
        Trace(sketch.stand_in("{traceparent}").encode(), None),
        client,
        scheme,
        host,
        read_method,
        path,
        query,
        UnknownFields(sketch, fields.headers, PREFLIGHT),
        b"" if method in _BODILESS else sketch.stand_in("{body}, as it came").encode(),
        0.0,
    )
    forwarding = Forwarding(document.listen.trusted_proxies, document.listen.name)
    request.forwarded = forwarding.fields(client, scheme, host, fields.read)
    return request


async def _answer_nothing(_request: Request) -> Response:
    raise AssertionError("what no route is for is refused or answered before")


def _nearest(document: Document, told: Explanation) -> list[Near]:
    place = Report().place()
    keys = [(name, key) for name in document.routes if (key := parse_key(name, place)) is not None]
    host = told.host.partition(":")[0].lower()
    return nearest(keys, told.method.encode(), host.encode(), told.path.encode())


# Stand-ins.


class _Naming(NamedTuple):
    """What references are replaced with, but those to fields that the request was said to have."""

    sketch: Sketch
    fields: frozenset[str]

    def keep_or_name(self, found: re.Match[str]) -> str:
        """For each reference that is found in a template."""
        field = _FIELD.match(found[0])
        known = found[1] is None or found[1] in _KNOWN or (field is not None and field[1].lower() in self.fields)
        return found[0] if known else self.sketch.stand_in(found[0])


def _with_stand_ins(value: Any, shape: Shape, at: Place, naming: _Naming) -> Any:
    """The settings with stand-ins, in templates, for every reference that is not known and for what may be secret."""
    if shape.template:
        return _named(value, at, naming)
    if isinstance(value, msgspec.Struct):
        changed = {
            name: _with_stand_ins(getattr(value, name), shape_of(field.type), at.field(name), naming)
            for name, field in fields_of(type(value)).items()
        }
        return msgspec.structs.replace(value, **changed)
    if shape.kind is dict and isinstance(value, dict):
        entry = shape_of(shape.options[0])
        return {key: _with_stand_ins(each, entry, at.field(key), naming) for key, each in value.items()}
    return value


def _named(value: Any, at: Place, naming: _Naming) -> Any:
    if isinstance(value, str):
        if at.path in at.report.written:
            value = _without_secrets(value, at.report, naming.sketch)
        return _REFERENCE.sub(naming.keep_or_name, value)
    if isinstance(value, dict):
        return {key: _named(each, at.field(key), naming) for key, each in value.items()}
    if isinstance(value, list):
        return [_named(each, at.field(index), naming) for index, each in enumerate(value)]
    return value


def _without_secrets(text: str, report: Report, sketch: Sketch) -> str:
    """What came from the environment by its name; the beginning of a path is no secret and must stay one."""
    for value, mark in report.substituted.items():
        if value and not value.startswith("/"):
            text = text.replace(value.replace("{", "{{").replace("}", "}}"), sketch.stand_in(mark))
    return text


# Settings.

_Owners = list[tuple[str, DocumentPath]]


def _settings(loaded: Loaded, name: str) -> Iterator[Setting]:
    """What holds for a route, then the bounds of what is behind it, each with where it was said."""
    document, report = loaded
    said = document.every_route()[name]
    effective = document.effective(said)
    owners: _Owners = [("route", ("routes", name)), ("defaults", ("defaults",))]
    service_name, _, operation = (said.call or "").partition(".")
    service = document.services.get(service_name)
    kafka = None if service is None else service.kafka
    of_operation = None if kafka is None else kafka.operations.get(operation)
    if of_operation is not None:
        owners.insert(1, ("operation", ("services", service_name, "kafka", "operations", operation)))
    for field, info in fields_of(RouteDefaults).items():
        value = getattr(effective, field)
        if field == "timeout" and said.timeout is None and of_operation is not None:
            value = of_operation.timeout or value
        value = merged(value, _DEFAULTS.get(field))
        saying = [(owner, (*path, field)) for owner, path in owners if (*path, field) in report.positions]
        owner = saying if getattr(type(value), "merges", False) else saying[:1]
        yield from _leaves(field, value, shape_of(info.type), owner, report)
    if service is not None and service.http is not None:
        path: DocumentPath = ("services", service_name, "http")
        yield from _bounds(path, service.http, "service", report)
    if document.kafka is not None and (kafka is not None or said.publish is not None):
        yield from _bounds(("kafka",), document.kafka, "kafka", report)


def _bounds(path: DocumentPath, section: msgspec.Struct, owner: str, report: Report) -> Iterator[Setting]:
    """The numbers of a section and its pool; its names are seen in what the chain says."""
    for field, info in fields_of(type(section)).items():
        value = getattr(section, field)
        shape = shape_of(info.type)
        if field == "pool" or (isinstance(value, (int, float)) and not isinstance(value, bool)):
            place = (*path, field)
            yield from _leaves(show_path(place), value, shape, [(owner, place)], report)


def _leaves(name: str, value: Any, shape: Shape, owners: _Owners, report: Report) -> Iterator[Setting]:
    """A setting, or the single ones of a section."""
    if value is None:
        return
    if is_struct(shape.kind) and isinstance(value, msgspec.Struct):
        for field, info in fields_of(type(value)).items():
            below = [(owner, (*path, field)) for owner, path in owners]
            yield from _leaves(f"{name}.{field}", getattr(value, field), shape_of(info.type), below, report)
        return
    written = shape.unit.write(value) if shape.unit is not None else msgspec.json.encode(value).decode()
    said = [(owner, report.positions[path]) for owner, path in owners if path in report.positions]
    yield Setting(name, written, *(said[0][0], str(said[0][1])) if said else (BUILT_IN,))


# Words.


def to_text(told: Explanation) -> str:
    """For people."""
    lines = [f"{told.method} {told.target}"]
    if told.path and told.path != told.target.partition("?")[0]:
        lines.append(f"  is matched as {told.path}")
    if told.route is not None:
        lines.append(f"  is for the route '{told.route}'" + (f", {told.position}" if told.position else ""))
    if told.placeholders:
        lines += ["", "placeholders", *_aligned([(name, value) for name, value in told.placeholders.items()])]
    if told.settings:
        rows = [(s.name, s.value, f"{s.source}{', ' if s.position else ''}{s.position}") for s in told.settings]
        lines += ["", "settings", *_aligned(rows)]
    if told.chain:
        lines += ["", "chain"]
    for number, link in enumerate(told.chain, 1):
        lines.append(f"  {number}. {link.role}: {link.name}")
        for name, said in link.says.items():
            first, *more = said if isinstance(said, list) else [said]
            lines.append(f"       {name:<16} {first}")
            lines += [f"       {'':<16} {each}" for each in more]
    if told.refusal is not None:
        lines += ["", f"  is answered {told.refusal.status}: {told.refusal.reason}"]
        if told.refusal.allow:
            lines.append(f"  Allow: {told.refusal.allow}")
    if told.near:
        lines += ["", "nearest routes"]
        lines += [f"  {near.route}: {'; '.join(near.reasons)}" for near in told.near]
    return "\n".join(line.rstrip() for line in lines)


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
