"""Errors as clients see them: RFC 9457 problem documents. The one place where an error becomes a response."""

from __future__ import annotations

from typing import Any

import msgspec

from castlegate.errors import GatewayError
from castlegate.message import Headers, Response

_ENCODE = msgspec.json.Encoder().encode


def problem(error: GatewayError, request_id: str, instance: str) -> Response:
    """The response for `error`; `instance` is the path that was asked for."""
    document: dict[str, Any] = {
        "type": f"urn:castlegate:{error.kind.name}",
        "title": error.kind.title,
        "status": error.status,
        "detail": error.detail or error.kind.title,
        "instance": instance,
        "request_id": request_id,
    }
    if error.outcome is not None:
        document["outcome"] = error.outcome.value
    headers = Headers([(b"content-type", b"application/problem+json"), *error.headers])
    if error.kind.retry_after is not None and b"retry-after" not in headers:
        headers.add(b"retry-after", b"%d" % error.kind.retry_after)
    return Response(error.status, headers, _ENCODE(document), error)
