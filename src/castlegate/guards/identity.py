"""Who calls, as services are told: chosen fields, or a short-lived signed token.

Over HTTP these are header fields, over Kafka record headers, which is what the fields of a call become there in every
dialect. Whatever clients send under these names ends at the edge, on every route. Of a request whose caller is not
known nothing is told.

What is told of a caller is made once and kept for as long as the principal is, which the requests that prove the same
one share; a token is made anew when half of its time is over.
"""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from castlegate.calls.roots import PRINCIPAL
from castlegate.config.fields import ends_at_gateway, spelling
from castlegate.config.references import NO_PARTS, Scope
from castlegate.config.report import Place, listed
from castlegate.config.templates import Sink, TextTemplate, compile_text
from castlegate.config.units import Seconds, TemplateText, write_seconds
from castlegate.errors import Kinds, RequestRefused
from castlegate.guards.signing import Sign, Unusable, check_key, signer
from castlegate.headers import Headers
from castlegate.message import Call, Caller, Reply, Request
from castlegate.principal import Principal
from castlegate.rules.remembered import Remembered
from castlegate.sketch import Description, Sketch

_FIELD_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
# Fields that requests are made of: what clients say in them is not for us to replace.
_OF_CLIENTS = frozenset((
    "accept", "authorization", "content-encoding", "content-type", "cookie", "date", "host", "origin", "range",
    "user-agent",
))  # fmt: skip
_BARE_REFERENCE = re.compile(r"(principal|claims)\.[^\s{}]+")
_OWN_CLAIMS = frozenset(("iss", "sub", "aud", "exp", "iat", "nbf", "jti", "scope"))
_NOT_TOLD = re.compile(rb"[\x00-\x1f\x7f]|^ | $")  # what a service would not read as it was said
_SHORTEST, _LONGEST = 2.0, 3600.0  # seconds of a token
_MOST = 10_000  # principals that are remembered for a service

_SCOPE = Scope(PRINCIPAL)


class IdentityToken(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A signed token that says who calls (a JWT): `iss`, `sub`, `aud`, `iat`, `exp`, `scope`, and the chosen claims."""

    key: str
    """A file with the private key in PEM: Ed25519 (signs with EdDSA), P-256 (ES256) or RSA (RS256). The token names it
    by its thumbprint (`kid`, RFC 7638)."""
    header: str = "x-identity-token"
    """The field that it is in."""
    ttl: Seconds = 30.0
    """How long it is good for, 2 s to 1 h. Services get one that has at least half of this left, unless the credential
    of the caller ends before."""
    issuer: str = "castlegate"
    """Its `iss`."""
    audience: str | None = None
    """Its `aud`; the service's name if nothing is said."""
    claims: list[str] = []
    """Claims of the caller that it repeats, where there are any."""

    def check(self, at: Place) -> None:
        """The key and the claims."""
        check_key(self.key, at.field("key"))
        if not _SHORTEST <= self.ttl <= _LONGEST and not at.field("ttl").spoilt:
            at.field("ttl").mistake(f"expected 2s to 1h, found {write_seconds(self.ttl)}")
        for index, claim in enumerate(self.claims):
            if claim in _OWN_CLAIMS:
                at.field("claims", index).mistake(f"'{claim}' is the token's own")


class Identity(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """What services are told of who calls. The names are free; what clients send under any of them goes nowhere."""

    headers: dict[str, TemplateText] = {}
    """Fields with what they say: a template with `{principal.subject}`, `{principal.scopes}`, `{claims.email?}` and the
    like. One that says nothing is left out; a caller of whom something else is missing is refused. Text is UTF-8.
    Record headers have the same names, in lower case."""
    token: IdentityToken | None = None
    """A signed token besides."""

    def check(self, at: Place) -> None:
        """The names and the templates."""
        seen: dict[str, str] = {}
        for name, place in self._places(at):
            other = seen.setdefault(spelling(name), name)
            if not _FIELD_NAME.fullmatch(name):
                place.mistake(f"not a name of a header field: {place.shown(name)}")
            elif ends_at_gateway(name) or spelling(name) in _OF_CLIENTS:
                place.mistake(f"'{name}' has a meaning already; take another name, such as x-user-id")
            elif other is not name:
                place.mistake(f"services may take this for '{other}', which is there too")
        for name, text in self.headers.items():
            place = at.field("headers", name)
            template = compile_text(text, Sink.KEY, _SCOPE, place)
            if template.constant and not place.spoilt:
                meant = f'; did you mean "{{{text}}}"?' if _BARE_REFERENCE.fullmatch(text) else ""
                place.warning(f"is the text {place.shown(text)} for everyone{meant}")

    @property
    def names(self) -> list[str]:
        """Of all its fields."""
        return [*self.headers, *([] if self.token is None else [self.token.header])]

    def _places(self, at: Place) -> list[tuple[str, Place]]:
        places = [(name, at.field("headers", name)) for name in self.headers]
        return places if self.token is None else [*places, (self.token.header, at.field("token", "header"))]


class _Told(NamedTuple):
    """What a service is told of a principal until some time."""

    principal: Principal
    lines: list[bytes]
    until: float


def identify(settings: Identity, service: str, at: Place, folder: Path, *, copies: bool) -> Identify | None:
    """The guard of a service; None if there is no key any more, which is reported at `at`, the settings' place."""
    token = settings.token
    try:
        sign = None if token is None else signer(folder / token.key)
    except Unusable as unusable:
        at.field("token", "key").mistake(str(unusable))
        return None
    return Identify(settings, service, at, sign, copies=copies)


class Identify:
    """Of one service."""

    def __init__(self, settings: Identity, service: str, at: Place, sign: Sign | None, *, copies: bool) -> None:
        """`copies`: the service may answer with the fields that it was sent."""
        self._headers = [
            (name.lower(), compile_text(text, Sink.KEY, _SCOPE, at.field("headers", name)))
            for name, text in settings.headers.items()
        ]
        self._token = settings.token
        self._service = service
        self._sign = sign
        self._copied = tuple(name.lower().encode() for name in settings.names) if copies else ()
        self._told: Remembered[int, _Told] = Remembered(
            _MOST
        )  # by the identity of the principal, which is kept alive by it

    def describe(self, sketch: Sketch) -> Description:
        """What is told of the caller."""
        request = sketch.request
        if request.principal is None:
            return Description(role="guard", name="identity", says={"tells": "nothing: who calls is not known"})
        call: Call = sketch.sent
        lines = self._fields(request)
        if self._token is not None:
            repeated = listed(["sub", "scope", *self._token.claims])
            stand_in = sketch.stand_in(f"{{token for {self._token.ttl:g}s with {repeated}}}")
            lines.append(_line(self._token.header.lower(), stand_in.encode()))
        call.headers = Headers([*call.headers.lines, *lines])
        return Description(
            role="guard", name="identity", says={"tells": [sketch.show(line).removesuffix("\r\n") for line in lines]}
        )

    def wrap(self, inner: Caller) -> Caller:
        """The caller with the fields of who calls in its calls."""
        told = self._told

        def call_as(call: Call) -> Awaitable[Reply]:
            principal = call.request.principal
            if principal is not None:
                known = told.get(id(principal))
                if known is None or known.until <= time.time():
                    known = self._tell(principal, call.request)
                call.headers = Headers([*call.headers.lines, *known.lines])
            return inner(call)

        return self._without_copies(call_as) if self._copied else call_as

    def _without_copies(self, inner: Callable[[Call], Awaitable[Reply]]) -> Caller:
        """What is for the service is not for the client, least of all a token."""

        async def call_as(call: Call) -> Reply:
            reply = await inner(call)
            if any(name in reply.headers for name in self._copied):
                reply.headers = reply.headers.without(*self._copied)
            return reply

        return call_as

    def _tell(self, principal: Principal, request: Request) -> _Told:
        lines, until = self._fields(request), principal.expires
        if self._token is not None and self._sign is not None:
            now = time.time()
            until = min(now + self._token.ttl / 2, principal.expires)
            claims = self._claims(self._token, principal, now)
            lines.append(_line(self._token.header.lower(), self._sign(claims)))
        told = _Told(principal, lines, until)
        self._told.put(id(principal), told)
        return told

    def _fields(self, request: Request) -> list[bytes]:
        lines = []
        for name, template in self._headers:
            value = _render(name, template, request)
            if value:
                lines.append(_line(name, value))
        return lines

    def _claims(self, token: IdentityToken, principal: Principal, now: float) -> dict[str, Any]:
        claims: dict[str, Any] = {
            "iss": token.issuer,
            "sub": principal.subject,
            "aud": token.audience or self._service,
            "iat": int(now),
            "exp": int(min(now + token.ttl, principal.expires)),
        }
        if principal.scopes:
            claims["scope"] = " ".join(sorted(principal.scopes))
        return claims | {name: principal.claims[name] for name in token.claims if name in principal.claims}


def _render(name: str, template: TextTemplate, request: Request) -> bytes:
    """Raises `RequestRefused` (403): that something is not known of a caller is no mistake in the request."""
    try:
        value = template.render(request, NO_PARTS)
    except RequestRefused as refused:
        raise RequestRefused(Kinds.FORBIDDEN, f"Too little is known of you: {refused.detail}") from refused
    if _NOT_TOLD.search(value):
        raise RequestRefused(Kinds.FORBIDDEN, f"What is known of you cannot be told to the service, in {name}.")
    return value


def _line(name: str, value: bytes) -> bytes:
    return b"%b: %b\r\n" % (name.encode(), value)
