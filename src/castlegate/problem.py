"""Errors as clients see them: RFC 9457 problem documents. The one place where an error becomes a response."""

from __future__ import annotations

from typing import Any

import msgspec

from castlegate.errors import GatewayError
from castlegate.headers import Headers
from castlegate.message import Request, Response

_ENCODE = msgspec.json.Encoder().encode


def problem(error: GatewayError, request: Request) -> Response:
    """The response for `error`."""
    document: dict[str, Any] = {
        "type": f"urn:castlegate:{error.kind.name}",
        "title": error.kind.title,
        "status": error.status,
        "detail": error.detail or error.kind.title,
        "instance": request.path.decode("latin-1"),
        "request_id": request.id.decode(),
    }
    document.update(error.members)
    if error.outcome is not None:
        document["outcome"] = error.outcome.value
    headers = Headers.of([(b"content-type", b"application/problem+json"), *error.headers])
    if error.kind.retry_after is not None and b"retry-after" not in headers:
        headers = headers.adding(b"retry-after", b"%d" % error.kind.retry_after)
    return Response(error.status, headers, _ENCODE(document), error)
