"""Fields that make browsers careful, over HTTPS."""

import math

from castlegate.message import Headers, Request, Response
from castlegate.policies.secure import Secure, SecureFields
from castlegate.telemetry.trace import Trace


def hsts(settings: SecureFields, scheme: bytes) -> bytes | None:
    request = Request(b"1", Trace(b"", None), "-", scheme, b"x", b"GET", b"/", b"", Headers(), b"", math.inf)
    response = Response(200)
    Secure(settings).dress(request, response)
    return response.headers.get(b"strict-transport-security")


def test_hosts_are_bound_to_https_for_a_year_and_names_below_them_where_it_is_said() -> None:
    assert hsts(SecureFields(), b"https") == b"max-age=31536000"
    assert hsts(SecureFields(subdomains=True, hsts=60.0), b"https") == b"max-age=60; includeSubDomains"


def test_over_plain_http_nothing_is_bound() -> None:
    assert hsts(SecureFields(), b"http") is None
