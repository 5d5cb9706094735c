"""What the issuer's routes answer, and how they read what clients send: JSON or a form (RFC 6749, RFC 7009).

Errors are problem documents like all others, with the member `error` that clients of OAuth look for (RFC 6749 §5.2).
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from castlegate.config.references import form_parameters
from castlegate.errors import CallFailed, GatewayError, Kinds, RequestRefused
from castlegate.headers import Headers
from castlegate.issuer.families import RefreshToken, read_token
from castlegate.issuer.settings import RefreshTokens
from castlegate.message import Request, Response
from castlegate.problem import problem

_ENCODE = msgspec.json.Encoder().encode
_FORM = b"application/x-www-form-urlencoded"
_COOKIE = re.compile(rb'[ \t]*([^=;]+)=[ \t]*"?([^;"]*)"?[ \t]*(?:;|$)')

_NO_STORE = (b"cache-control", b"no-store")
_JSON = (b"content-type", b"application/json")


class Refused(RequestRefused):
    """A refresh token that is not good, or no longer."""

    def __init__(self) -> None:
        super().__init__(Kinds.TOKEN_REFUSED, "The refresh token is not good, or no longer.")


def bad_credentials() -> RequestRefused:
    """The same for whatever is wrong with them: whether there is such a user is not told."""
    challenge = (b"www-authenticate", b'Bearer realm="login"')
    return RequestRefused(Kinds.UNAUTHORIZED, "The credentials are not accepted.", headers=(challenge,))


def failure(error: GatewayError, request: Request) -> Response:
    """The answer for an error."""
    if error.kind in (Kinds.TOKEN_REFUSED, Kinds.UNAUTHORIZED):
        name = "invalid_grant"
    elif isinstance(error, CallFailed) or error.status >= 500:
        name = "temporarily_unavailable" if error.status in (429, 503) else "server_error"
    else:
        name = "invalid_request"
    error.members = {**error.members, "error": name}
    response = problem(error, request)
    response.headers = response.headers.setting(*_NO_STORE)
    return response


class RefreshTransport:
    """How refresh tokens travel: in the body or in a cookie."""

    def __init__(self, settings: RefreshTokens, path: str) -> None:
        self._by_cookie = settings.by == "cookie"
        self._name = settings.cookie.encode()
        self._attributes = f"; Path={path}; HttpOnly; Secure; SameSite=Strict".encode()

    def find(self, request: Request) -> RefreshToken | None:
        """The token of a request whose body is there; None if what it has is none. Raises `RequestRefused` where it
        has nothing.
        """
        text = self._cookie(request) if self._by_cookie else _member(request)
        if text is None:
            raise RequestRefused(Kinds.BAD_INPUT, "There is no refresh token in the request.")
        return read_token(text)

    def answer(self, document: dict[str, Any], token: RefreshToken, lasts: float) -> Response:
        """Tokens for a client (RFC 6749 §5.1)."""
        fields = [_JSON, _NO_STORE]
        if self._by_cookie:
            value = b"%b=%b; Max-Age=%d%b" % (self._name, token.text.encode(), lasts, self._attributes)
            fields.append((b"set-cookie", value))
        else:
            document["refresh_token"] = token.text
        return Response(200, Headers.of(fields), _ENCODE(document))

    def forgetting(self, response: Response) -> Response:
        """With the cookie taken away, if there may be one."""
        if self._by_cookie:
            value = b"%b=; Max-Age=0%b" % (self._name, self._attributes)
            response.headers = response.headers.adding(b"set-cookie", value)
        return response

    def _cookie(self, request: Request) -> str | None:
        """One of that name, as browsers send it (RFC 6265 §4.2); of several none can be told to be ours."""
        found = []
        for line in request.headers.get_all(b"cookie"):
            found += [value for name, value in _COOKIE.findall(line) if name == self._name]
        return found[0].decode("latin-1") if len(found) == 1 else None


def _member(request: Request) -> str | None:
    kind = (request.headers.get(b"content-type") or b"").partition(b";")[0].strip().lower()
    assert isinstance(request.body, bytes), "it was collected"
    names = ("refresh_token", "token")  # RFC 6749 §6, RFC 7009 §2.1
    if kind == _FORM:
        form = form_parameters(request.body)
        if any(len(values) > 1 for values in form.values()):
            raise RequestRefused(Kinds.BAD_INPUT, "A parameter stands twice in the body.")  # RFC 6749 §3.2
        if form.get("grant_type", ["refresh_token"]) != ["refresh_token"]:
            raise RequestRefused(Kinds.BAD_INPUT, "The grant type is not refresh_token.")
        return next((form[name][0] for name in names if name in form), None)
    document = request.json()
    if not isinstance(document, dict):
        return None
    found = next((document[name] for name in names if name in document), None)
    return found if isinstance(found, str) else None
