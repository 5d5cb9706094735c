"""Which route a request is for: by host, path and method, at a cost that does not grow with the number of routes.

Paths without placeholders are found in one dictionary. The others walk a tree of segments: plain text before `{name}`
before `{name...}`, so the most specific template wins; one that lacks the method gives way to the next that has it.
Where paths hold escapes or `;parameters`, plain text is compared decoded and without parameters, since that is how
servers read it: `/%21admin;x` is for `/!admin`. A slash at the end is part of the path.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar
from urllib.parse import unquote_to_bytes

from castlegate.errors import Kinds, RequestRefused
from castlegate.routing.path import normalise
from castlegate.routing.template import ANY, Param, RouteKey

T = TypeVar("T")

_NO_PARAMS: dict[str, str] = {}
_ALL_METHODS = (b"DELETE", b"GET", b"HEAD", b"PATCH", b"POST", b"PUT")


class Router(Generic[T]):
    """The routes of one configuration, each with its target. Immutable."""

    __slots__ = ("_anywhere", "_by_host", "_texts")

    def __init__(self, routes: Iterable[tuple[RouteKey, T]]) -> None:
        self._anywhere: _Tree[T] = _Tree()
        self._by_host: dict[bytes, _Tree[T]] = {}
        self._texts: dict[T, int] = {}  # by target: segments of plain text in its template
        shapes = set()
        for key, target in routes:
            if key.shape in shapes:
                raise ValueError(f"two routes match the same requests: {key}")
            shapes.add(key.shape)
            tree = self._anywhere if key.host is None else self._by_host.setdefault(key.host, _Tree())
            tree.add(key, target)
            texts = sum(isinstance(segment, bytes) for segment in key.segments)
            self._texts[target] = max(texts, self._texts.get(target, 0))

    def match(self, method: bytes, host: bytes, path: bytes) -> tuple[T, dict[str, str]]:
        """The target for a normalised path, and the values of its placeholders, decoded; they are not to be changed.

        Raises `RequestRefused`: 404 without a route for the path, 405 (with `Allow`) without one for the method.
        """
        if self._by_host:
            tree = self._by_host.get(_name_of(host))
            found = None if tree is None else tree.find(method, path)
            if found is not None:
                return found
        found = self._anywhere.find(method, path)
        if found is not None:
            return found
        allow = self.allowed(host, path)
        if allow is None:
            raise RequestRefused(Kinds.NOT_FOUND)
        raise RequestRefused(Kinds.METHOD_NOT_ALLOWED, headers=((b"allow", allow),))

    def confirm(self, method: bytes, host: bytes, path: bytes, target: T, guards: Callable[[T], bool]) -> None:
        """Refuse a path with an encoded `/` or `;` that names another route where that is taken for a plain one, as
        servers of WSGI and ASGI do, if it is more specific or `guards` what `target` does not: `/admin%2Fusers` is no
        way past `/admin/{rest...}`. Raises `RequestRefused` (400).
        """
        if b"%2F" not in path and b"%3B" not in path:
            return
        other_path = normalise(path.replace(b"%2F", b"/").replace(b"%3B", b";"))
        try:
            other, _ = self.match(method, host, other_path)
        except RequestRefused:
            return
        if other is not target and (self._texts[other] > self._texts[target] or guards(other)):
            raise RequestRefused(Kinds.BAD_PATH, "The path has an escape that, decoded, leads to another route.")

    def allowed(self, host: bytes, path: bytes) -> bytes | None:
        """The value of `Allow` for a path; None if no route is for it."""
        trees = (self._by_host.get(_name_of(host)), self._anywhere)
        leaves = [leaf for tree in trees if tree is not None for leaf in tree.leaves(path)]
        if not leaves:
            return None
        methods = {b"OPTIONS"}.union(*(leaf.routes for leaf in leaves))
        if ANY in methods:
            methods = (methods - {ANY}).union(_ALL_METHODS)
        return b", ".join(sorted(methods))


class _Route(Generic[T]):
    """A target and where in the path its values are."""

    __slots__ = ("params", "rest", "target")

    def __init__(self, key: RouteKey, target: T) -> None:
        self.target = target
        params = [(segment, index) for index, segment in enumerate(key.segments) if isinstance(segment, Param)]
        self.params = tuple((param.name, index) for param, index in params if not param.rest)
        self.rest = next(((param.name, index) for param, index in params if param.rest), None)

    def values(self, segments: list[bytes]) -> dict[str, str]:
        if len(self.params) == 1 and self.rest is None:
            name, index = self.params[0]
            return {name: _decode(segments[index])}
        values = {name: _decode(segments[index]) for name, index in self.params}
        if self.rest is not None:
            name, index = self.rest
            values[name] = _decode(b"/".join(segments[index:]))
        return values or _NO_PARAMS


class _Leaf(Generic[T]):
    """Where a template ends: the routes by method; a GET also answers HEAD, ANY what is not there."""

    __slots__ = ("routes",)

    def __init__(self) -> None:
        self.routes: dict[bytes, _Route[T]] = {}

    def add(self, method: bytes, route: _Route[T]) -> None:
        self.routes[method] = route
        if method == b"GET":
            self.routes.setdefault(b"HEAD", route)

    def route(self, method: bytes) -> _Route[T] | None:
        return self.routes.get(method) or self.routes.get(ANY)


class _Node(Generic[T]):
    """What may follow after some segments."""

    __slots__ = ("leaf", "param", "rest", "text")

    def __init__(self) -> None:
        self.text: dict[bytes, _Node[T]] = {}
        self.param: _Node[T] | None = None
        self.rest: _Leaf[T] | None = None
        self.leaf: _Leaf[T] | None = None


class _Tree(Generic[T]):
    """The routes of one host, or of all."""

    __slots__ = ("_heads", "_root", "_static")

    def __init__(self) -> None:
        self._root: _Node[T] = _Node()
        self._heads: dict[bytes, _Leaf[T]] = {}  # of templates that are text but for their last segment
        self._static: dict[bytes, dict[bytes, tuple[T, dict[str, str]]]] = {}  # path → method → the whole answer

    def add(self, key: RouteKey, target: T) -> None:
        node = self._root
        for segment in key.segments:
            if isinstance(segment, bytes):
                node = node.text.setdefault(segment, _Node())
            elif segment.rest:
                node.rest = node.rest or _Leaf()
                node.rest.add(key.method, _Route(key, target))
                return
            else:
                node.param = node = node.param or _Node()
        node.leaf = node.leaf or _Leaf()
        node.leaf.add(key.method, _Route(key, target))
        if not key.params:
            # Other spellings of it are found in the tree.
            self._static[key.path.encode()] = {
                method: (route.target, _NO_PARAMS) for method, route in node.leaf.routes.items()
            }
        elif key.params == [key.path.rpartition("/{")[2].rstrip("}")] and key.path.endswith("}"):
            self._heads[key.path.rpartition("/{")[0].encode()] = node.leaf

    def find(self, method: bytes, path: bytes) -> tuple[T, dict[str, str]] | None:
        """The most specific route that has the method."""
        static = self._static.get(path)
        if static is not None:
            answer = static.get(method) or static.get(ANY)
            if answer is not None:
                return answer
        odd = b"%" in path or b";" in path
        if not odd:
            # Of a service's routes most are `/things/{id}`. No route is more specific: its text comes first everywhere.
            head, _, last = path.rpartition(b"/")
            leaf = self._heads.get(head) if last else None
            if leaf is not None and (route := leaf.routes.get(method) or leaf.routes.get(ANY)) is not None:
                return route.target, {route.params[0][0]: last.decode()}
        segments = path[1:].split(b"/")
        plain = _plain(path, segments) if odd else segments
        leaf = self._first(plain)
        if leaf is not None and (route := leaf.routes.get(method) or leaf.routes.get(ANY)) is not None:
            return route.target, route.values(segments)
        for leaf in _leaves(self._root, plain, 0):
            route = leaf.route(method)
            if route is not None:
                return route.target, route.values(segments)
        return None

    def leaves(self, path: bytes) -> Iterator[_Leaf[T]]:
        """All that match, the most specific first."""
        return _leaves(self._root, _plain(path, path[1:].split(b"/")), 0)

    def _first(self, segments: list[bytes]) -> _Leaf[T] | None:
        """The first of `leaves` if it is found without turning back, which is nearly always."""
        node = self._root
        for segment in segments:
            child = node.text.get(segment)
            if child is None:
                child = node.param
                if child is None or not segment:
                    return node.rest
            node = child
        return node.leaf


def _leaves(node: _Node[T], segments: list[bytes], index: int) -> Iterator[_Leaf[T]]:
    if index == len(segments):
        if node.leaf is not None:
            yield node.leaf
        return
    segment = segments[index]
    child = node.text.get(segment)
    if child is not None:
        yield from _leaves(child, segments, index + 1)
    if node.param is not None and segment:
        yield from _leaves(node.param, segments, index + 1)
    if node.rest is not None:
        yield node.rest


def _plain(path: bytes, segments: list[bytes]) -> list[bytes]:
    """The segments as plain text is compared with them."""
    if b"%" not in path and b";" not in path:
        return segments
    return [unquote_to_bytes(segment.partition(b";")[0]) for segment in segments]


def _decode(text: bytes) -> str:
    try:
        return (unquote_to_bytes(text) if b"%" in text else text).decode()
    except UnicodeDecodeError as error:
        raise RequestRefused(Kinds.BAD_PATH, "The path is not UTF-8.") from error


def _name_of(host: bytes) -> bytes:
    """Without port, in lower case."""
    if host[:1] == b"[":
        return host[: host.find(b"]") + 1].lower()
    return host.partition(b":")[0].rstrip(b".").lower()
