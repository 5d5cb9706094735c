"""A request and its answer: what it takes to answer it, the answer's head, and what is counted of it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from castlegate.body import Body
from castlegate.edge.framing import Fields
from castlegate.errors import GatewayError
from castlegate.message import Ended, Handler, Request, Response
from castlegate.routing.route import Route
from castlegate.wire.fields import STATUS_LINES

if TYPE_CHECKING:
    from castlegate.edge.listener import Listener

logger = logging.getLogger("castlegate.edge")

WITHOUT_BODY = frozenset((204, 304))


class Exchange:
    """One of a connection."""

    __slots__ = (
        "body", "chunked", "cut", "ended", "error", "fields", "handler", "keep_alive", "request", "route", "sent",
        "status",
    )  # fmt: skip

    def __init__(self, request: Request, route: Route, handler: Handler, fields: Fields, *, keep_alive: bool) -> None:
        self.request = request
        self.route = route
        self.handler = handler
        self.keep_alive = keep_alive
        self.chunked = fields.version == b"1"  # whether the client understands the chunked coding: HTTP/1.0 does not
        self.body: Body | None = None  # while it is still arriving
        self.error: GatewayError | None = None  # it is refused: answered without its handler
        self.fields = fields
        self.status = 0  # of the answer, once it is begun
        self.sent = 0  # bytes of the answer
        self.ended = False
        self.cut = False  # its body broke off

    def bare(self, response: Response) -> bool:
        """Whether the answer has no body, whatever its handler made."""
        return response.status in WITHOUT_BODY or self.request.method == b"HEAD"

    def head(self, response: Response, length: int | None, date: Callable[[], bytes]) -> bytes:
        """Status line and fields. `length` None: there is none to be said. `date`: for the field, if it is missing."""
        fields = response.headers.wire
        if b"x-request-id: " in fields and b"x-request-id" in response.headers:
            fields = response.headers.without(b"x-request-id").wire
        if length is not None:
            framing = b"content-length: %d\r\n" % length
        elif self.chunked and type(response.body) is not bytes and not self.bare(response):
            framing = b"transfer-encoding: chunked\r\n"
        else:
            framing = b""
        if not self.keep_alive:
            framing += b"connection: close\r\n"
        elif not self.chunked:  # HTTP/1.0 asks to be told
            framing += b"connection: keep-alive\r\n"
        dated = b"" if b"date: " in fields and b"date" in response.headers else b"date: %b\r\n" % date()
        return b"%b\r\n%bx-request-id: %b\r\n%b%b\r\n" % (
            STATUS_LINES[response.status], fields, self.request.id, dated, framing
        )  # fmt: skip

    def account(self, listener: Listener, now: float, *, cut: bool) -> None:
        """It has ended: counters, whoever hangs on its end, the access log."""
        self.ended = True
        request = self.request
        seconds = now - request.arrived
        self.route.count(self.status, seconds, request.trace.traceparent)
        listener.bytes_out.value += self.sent
        if request.on_end is not None:
            ended = Ended(self.status, cut)
            for told in request.on_end:
                try:
                    told(ended)
                except Exception:
                    logger.exception("what hangs on the end of request %s failed", request.id.decode())
        log = listener.log
        if log is not None:
            body = request.body
            log.write(self, len(body) if isinstance(body, bytes) else body.received, seconds, request.principal)
