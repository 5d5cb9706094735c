"""The key of a route: `GET /orders/{id}`, `ANY api.example.com/files/{path...}`.

    METHOD [HOST]/SEGMENT/SEGMENT...

A segment is text in normal form, `{name}` for any one segment, or, only as the last, `{name...}` for any number of
them, also none.
"""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import quote, unquote_to_bytes

from castlegate.config.references import Scope, request_scope
from castlegate.config.report import Place, near, show
from castlegate.errors import RequestRefused
from castlegate.routing.path import normalise

ANY = b"ANY"
METHODS = (
    "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "ANY", "QUERY", "PROPFIND", "PROPPATCH", "MKCOL",
    "COPY", "MOVE", "LOCK", "UNLOCK", "SEARCH", "REPORT", "PURGE",
)  # fmt: skip

_EXAMPLE = "the key of a route looks like 'GET /orders/{id}'"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OTHER_PLACEHOLDER = re.compile(r"<(\w+)>|:(\w+)")
_HOST = re.compile(r"(?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?\.)*[a-z0-9](?:[a-z0-9-]*[a-z0-9])?|\[[0-9a-f:.]+\]")


class Param(NamedTuple):
    """A placeholder."""

    name: str
    rest: bool = False  # of all segments from here on


class RouteKey(NamedTuple):
    """A parsed key."""

    method: bytes  # or ANY
    host: bytes | None  # lower case, without port
    path: str  # as it was written
    segments: tuple[bytes | Param, ...]  # text is percent-decoded

    @property
    def params(self) -> list[str]:
        """Names of its placeholders."""
        return [segment.name for segment in self.segments if isinstance(segment, Param)]

    @property
    def shape(self) -> tuple[bytes, bytes | None, tuple[bytes | bool, ...]]:
        """What it matches: keys of the same shape match the same requests."""
        parts = tuple(segment.rest if isinstance(segment, Param) else segment for segment in self.segments)
        return self.method, self.host, parts

    def scope(self) -> Scope:
        """What the references of this route can reach."""
        last = self.segments[-1]
        rest = (last.name, len(self.segments) - 1) if isinstance(last, Param) and last.rest else None
        return request_scope(self.params, rest)


def parse_key(text: str, at: Place) -> RouteKey | None:
    """The key; after a mistake, None."""
    method, space, target = text.partition(" ")
    target = target.strip()
    if not space or not target:
        lone = "the method is missing" if text[:1] in ("/", "{") else "expected a method and a path"
        at.mistake(f"{lone}; {_EXAMPLE}")
        return None
    if not _check_method(method, at):
        return None
    host, slash, path = target.partition("/")
    if not slash:
        at.mistake(f"the path {show(target)} does not begin with '/'; {_EXAMPLE}")
        return None
    if host and not _HOST.fullmatch(host.lower()):
        port = "; leave out the port" if re.search(r":[0-9]+$", host) else ""
        at.mistake(f"{show(host)} is no host name{port or ', and a path begins with a slash'}")
        return None
    segments = _parse_path("/" + path, at)
    if segments is None:
        return None
    return RouteKey(method.encode(), host.lower().encode() or None, f"/{path}", segments)


def _check_method(method: str, at: Place) -> bool:
    if method in METHODS:
        return True
    if "," in method or "|" in method:
        at.mistake(f"{show(method)}: a route has one method, or ANY for all of them; write a route for each")
    elif method.upper() in METHODS:
        at.mistake(f"methods are in upper case; write '{method.upper()}'")
    else:
        found = near(method, METHODS)
        at.mistake(f"unknown method {show(method)}" + (f"; did you mean '{found}'?" if found else ""))
    return False


def _parse_path(path: str, at: Place) -> tuple[bytes | Param, ...] | None:
    segments: list[bytes | Param] = []
    parts = path.split("/")[1:]
    names: set[str] = set()
    for index, part in enumerate(parts):
        if wrong := _OTHER_PLACEHOLDER.fullmatch(part):
            at.mistake(f"{show(part)} looks like a placeholder; those are written '{{{wrong[1] or wrong[2]}}}'")
            return None
        if part in ("*", "**"):
            at.mistake(f"'{part}' stands for itself; the rest of a path is '{{rest...}}', one segment of it '{{name}}'")
            return None
        if "{" not in part and "}" not in part:
            segments.append(unquote_to_bytes(part))
            continue
        param = _parse_param(part, at)
        if param is None:
            return None
        if param.name in names:
            at.mistake(f"the placeholder '{{{param.name}}}' stands twice in the path; give each its own name")
            return None
        if param.rest and index < len(parts) - 1:
            at.mistake(f"'{part}' stands for the rest of the path, so nothing can follow it")
            return None
        names.add(param.name)
        segments.append(param)
    literal = "/".join("x" if "{" in part else part for part in parts)
    return tuple(segments) if _check_normal("/" + literal, path, at) else None


def _parse_param(part: str, at: Place) -> Param | None:
    if part.count("{") != part.count("}") or part.find("}") < part.find("{"):
        at.mistake(f"the braces in {show(part)} do not match; a placeholder looks like '{{id}}'")
        return None
    if not (part.startswith("{") and part.endswith("}") and part.count("{") == 1):
        at.mistake(f"{show(part)}: a placeholder takes a whole segment of the path, such as '/{{id}}'")
        return None
    inner = part[1:-1]
    name = inner.removesuffix("...")
    if _NAME.fullmatch(name):
        return Param(name, rest=inner.endswith("..."))
    for wrong in (inner.strip("*"), inner.partition(":")[0], inner.replace("-", "_"), inner.rstrip(".?+")):
        if _NAME.fullmatch(wrong):
            meant = f"{wrong}..." if "*" in inner or (inner.endswith(("path", "..")) and ":" in inner + ".") else wrong
            at.mistake(f"bad placeholder '{part}'; did you mean '{{{meant}}}'?")
            return None
    at.mistake(f"bad placeholder '{part}'; names consist of letters, digits and '_', such as '{{order_id}}'")
    return None


def _check_normal(literal: str, path: str, at: Place) -> bool:
    """Whether requests, whose paths are normalised, can match it."""
    encoded = quote(literal, safe="/%!$&'()*+,;=:@~?#")
    if ";" in literal or "?" in literal or "#" in literal:
        at.mistake(f"{show(path)}: a route's path holds no '{next(c for c in literal if c in ';?#')}'")
        return False
    try:
        normal = normalise(encoded.encode()).decode()
    except RequestRefused as refused:
        at.mistake(f"{show(path)} can never match. {refused.detail}")
        return False
    if normal != literal:
        at.mistake(f"{show(path)} is not in normal form, so it can never match; its plain parts are '{normal}'")
        return False
    return True
