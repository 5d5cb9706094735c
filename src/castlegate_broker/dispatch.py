"""From a frame's bytes to the handler of its API, and from its answer to bytes; and the ApiVersions request itself.

Which versions exist is told by the tables alone. A request that can't be understood raises `Malformed`.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass

from castlegate_broker.apis_data import API_VERSIONS
from castlegate_broker.codec import (
    Message,
    Reader,
    Writer,
    message_reader,
    message_writer,
    read_string,
    skip_tags,
)
from castlegate_broker.errors import Code, Malformed
from castlegate_broker.request import Answer, Handler, Peer, Request
from castlegate_broker.schema import Api

_HEADER = struct.Struct(">hhi")
_RESPONSE_HEADER = struct.Struct(">ii")
_SIZE = struct.Struct(">i")


@dataclass(frozen=True, slots=True)
class _Route:
    """One API in one version, ready to be used."""

    handler: Handler
    read: Reader
    write: Writer
    flexible: bool
    tagged_response_header: bool


@dataclass(frozen=True, slots=True)
class Pending:
    """An answer together with what is needed to write it down."""

    answer: Answer
    correlation_id: int
    route: _Route

    def encode(self, message: Message) -> bytearray:
        """The whole frame of a response."""
        out = bytearray(_RESPONSE_HEADER.pack(0, self.correlation_id))
        if self.route.tagged_response_header:
            out.append(0)
        self.route.write(out, message)
        _SIZE.pack_into(out, 0, len(out) - _SIZE.size)
        return out


class Dispatcher:
    """The APIs that are served."""

    def __init__(self, handlers: Mapping[Api, Handler]) -> None:
        self._handlers = {api.key: (api, handler) for api, handler in handlers.items()}
        self._handlers[API_VERSIONS.key] = (API_VERSIONS, self._api_versions)
        self._routes: dict[tuple[int, int], _Route] = {}

    def dispatch(self, frame: bytes, peer: Peer) -> Pending:
        """Decode a request and hand it to its handler; raises `Malformed`."""
        try:
            key, version, correlation_id = _HEADER.unpack_from(frame)
            client_id, at = read_string(frame, _HEADER.size)
            if key == API_VERSIONS.key and not API_VERSIONS.serves(version):
                # The client can't know what we understand before this answer: it is given in version 0 (KIP-511).
                return Pending(self._versions(Code.UNSUPPORTED_VERSION), correlation_id, self._route(key, 0))
            route = self._route(key, version)
            if route.flexible:
                at = skip_tags(frame, at)
            body, _ = route.read(frame, at)
        except (struct.error, UnicodeDecodeError) as error:
            raise Malformed(f"a request that can't be read: {error}") from error
        answer = route.handler(Request(version, client_id or "", peer, body))
        return Pending(answer, correlation_id, route)

    def _route(self, key: int, version: int) -> _Route:
        route = self._routes.get((key, version))
        if route is None:
            if key not in self._handlers:
                raise Malformed(f"API {key}, which is not served")
            api, handler = self._handlers[key]
            if not api.serves(version):
                raise Malformed(f"{api.name} version {version}, which is not served")
            flexible = api.is_flexible(version)
            route = self._routes[key, version] = _Route(
                handler,
                message_reader(api.request, version, flexible=flexible),
                message_writer(api.response, version, flexible=flexible),
                flexible,
                # Clients read this answer before they know what the broker speaks (KIP-511).
                flexible and api is not API_VERSIONS,
            )
        return route

    def _api_versions(self, _request: Request) -> Answer:
        return self._versions(Code.NONE)

    def _versions(self, code: Code) -> Message:
        ranges = [
            {"api_key": api.key, "min_version": api.advertised_oldest, "max_version": api.newest}
            for api, _ in sorted(self._handlers.values(), key=lambda entry: entry[0].key)
        ]
        return {"error_code": code, "api_keys": ranges}
