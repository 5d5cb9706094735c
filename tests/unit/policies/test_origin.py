"""Which requests of browsers may change something with a credential that goes along by itself."""

from __future__ import annotations

import math

import pytest

from castlegate.headers import Headers
from castlegate.message import Request, Response
from castlegate.policies.origin import OriginPolicy
from castlegate.principal import Principal
from castlegate.telemetry.trace import Trace

PAGE = "https://app.example.com"


async def answer(_request: Request) -> Response:
    return Response(200)


async def status(method: str, scheme: str, **fields: str) -> int:
    headers = Headers.of([(name.replace("_", "-").encode(), value.encode()) for name, value in fields.items()])
    trace = Trace(b"", None)
    request = Request(
        b"1", trace, "-", b"https", b"Shop.example:8443", method.encode(), b"/", b"", headers, b"", math.inf
    )
    request.principal = Principal(subject="ann", scheme=scheme)
    policy = OriginPolicy([PAGE], frozenset(["cookie"]))
    return (await policy.wrap(answer)(request)).status


@pytest.mark.parametrize(
    "fields",
    [
        {},  # not a browser
        {"sec_fetch_site": "same-origin", "origin": "https://shop.example:8443"},
        {"sec_fetch_site": "none"},  # typed in, or a bookmark
        {"origin": "https://shop.example:8443"},  # an old browser
        {"sec_fetch_site": "cross-site", "origin": PAGE},
        {"origin": PAGE},
    ],
)
async def test_our_pages_and_trusted_ones_may(fields: dict[str, str]) -> None:
    assert await status("POST", "cookie", **fields) == 200


@pytest.mark.parametrize(
    "fields",
    [
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "cross-site", "origin": "https://evil.example"},
        {"sec_fetch_site": "same-site", "origin": "https://blog.shop.example"},
        {"sec_fetch_site": "cross-site", "origin": "https://shop.example:8443"},  # the browser knows better
        {"sec_fetch_site": "anything"},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "https://shop.example"},  # another port
        {"origin": "https://shop.example:8443.evil.example"},
    ],
)
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
async def test_pages_of_others_may_not(method: str, fields: dict[str, str]) -> None:
    assert await status(method, "cookie", **fields) == 403


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
async def test_what_changes_nothing_is_not_asked(method: str) -> None:
    assert await status(method, "cookie", origin="https://evil.example") == 200


async def test_a_credential_that_a_page_must_know_needs_no_check() -> None:
    assert await status("POST", "token", origin="https://evil.example") == 200
