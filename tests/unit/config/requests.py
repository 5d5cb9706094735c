"""Requests to render templates with."""

from typing import Any

from castlegate.headers import Headers
from castlegate.message import Request

_NO_TRACE: Any = None


def request(
    *,
    path: bytes = b"/",
    query: bytes = b"",
    headers: dict[bytes, bytes] | None = None,
    body: bytes = b"",
    params: dict[str, str] | None = None,
) -> Request:
    made = Request(
        id=b"1",
        trace=_NO_TRACE,
        client="192.0.2.1",
        scheme=b"http",
        host=b"localhost",
        method=b"POST",
        path=path,
        query=query,
        headers=Headers.of((headers or {}).items()),
        body=body,
        arrived=0.0,
    )
    made.params = params or {}
    return made
