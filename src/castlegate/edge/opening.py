"""A head becomes an exchange: the request that it makes, and the route that answers it or what it is refused for.

Knows nothing of bytes or bodies; whose turn it is and what follows is told by the connection.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from castlegate.edge.exchange import Exchange
from castlegate.edge.framing import Fields, locate
from castlegate.errors import Kinds, RequestRefused
from castlegate.headers import Headers
from castlegate.message import Request
from castlegate.routing.decision import decide
from castlegate.telemetry.trace import acceptable_request_id, continue_trace

if TYPE_CHECKING:
    from castlegate.edge.listener import Listener

_ORIGIN = re.compile(rb"\r\norigin:[ \t]*([!-~]+)[ \t]*(?=\r\n)", re.IGNORECASE)


def open_exchange(listener: Listener, peer: str, method: bytes, target: bytes, fields: Fields, now: float) -> Exchange:
    """The exchange that a head begins. Raises `RequestRefused` if its target says nothing."""
    read, host, forwarded = fields.read, fields.host, fields.forwarded
    if not target.startswith(b"/"):
        named, target = locate(method, target)
        if named is not None:
            host = named
            forwarded = listener.forwarding.fields(peer, listener.scheme, named, read)
    path, _, query = target.partition(b"?")
    if fields.identified:
        request_id = acceptable_request_id(read.get(b"x-request-id")) or listener.ids.take(32)
        trace = continue_trace(read.get(b"traceparent"), read.get(b"tracestate"), listener.ids)
    else:
        request_id, trace = listener.ids.fresh()
    request = Request(
        request_id, trace, fields.client, listener.scheme, host, method, path, query, fields.headers, b"", now
    )
    request.forwarded = forwarded
    route, handler, error = listener.unrouted, listener.unrouted.handler, None
    try:
        route, handler = decide(listener.router, route, request)
    except RequestRefused as refusal:
        error = refusal
    request.route = route
    exchange = Exchange(request, route, handler, fields, keep_alive=fields.keep_alive and not listener.closing)
    if error is not None:
        exchange.error = error
        if error.kind is Kinds.BAD_PATH:
            exchange.keep_alive = False  # who says this has more to try
    return exchange


def open_refusal(listener: Listener, peer: str, refusal: RequestRefused, now: float, head: bytes) -> Exchange:
    """The exchange of a message that cannot be read: of whose request nothing is known. What came of its head is only
    asked for the page that may read the answer.
    """
    request_id, trace = listener.ids.fresh()
    headers = _origin(head) if listener.unrouted.dressers else Headers()
    request = Request(request_id, trace, peer, listener.scheme, b"", b"-", b"-", b"", headers, b"", now)
    fields = Fields(b"", b"1")
    fields.log_client = peer.encode()
    unrouted = listener.unrouted
    exchange = Exchange(request, unrouted, unrouted.handler, fields, keep_alive=False)
    exchange.error = refusal
    return exchange


def _origin(head: bytes) -> Headers:
    """That field alone, if there is one."""
    found = _ORIGIN.findall(head)
    return Headers.of([(b"origin", found[0])]) if len(found) == 1 else Headers()
