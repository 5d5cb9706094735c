"""Fields that make browsers careful, as they stand on the wire."""

from castlegate.headers import Headers
from castlegate.message import Request, Response
from castlegate.policies.secure import Secure, SecureFields
from castlegate.telemetry.trace import Trace


def dressed(fields: SecureFields) -> Headers:
    request = Request(b"", Trace(b"", None), "", b"https", b"h", b"GET", b"/", b"", Headers(), b"", 0.0)
    response = Response(200)
    Secure(fields).dress(request, response)
    return response.headers


def test_a_directive_stands_once() -> None:
    """Browsers ignore the field otherwise (RFC 6797 §6.1)."""
    found = dressed(SecureFields(hsts=60.0, subdomains=True)).get(b"strict-transport-security")
    assert found == b"max-age=60; includeSubDomains"
    assert dressed(SecureFields(hsts=60.0)).get(b"strict-transport-security") == b"max-age=60"
