"""The issuer: a login at a service becomes tokens, refresh tokens become further ones, and the public keys are told.

A service that is called says who somebody is; everything else is decided here. No credential is kept or told to anyone
else: passwords go to that service alone, refresh tokens are kept as hashes.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from castlegate.body import Budget
from castlegate.calls.plan import CallPlan
from castlegate.config.report import Report
from castlegate.config.templates import compile_json
from castlegate.errors import CallFailed, GatewayError, Kinds, Outcome, PartUnfit
from castlegate.headers import Headers
from castlegate.issuer.answers import RefreshTransport, Refused, bad_credentials, failure
from castlegate.issuer.families import Families, Granted, RefreshToken, new_token
from castlegate.issuer.keys import SigningKey
from castlegate.issuer.settings import ANSWER, OURS, IssuerSettings
from castlegate.means import OwnTokens
from castlegate.message import Caller, Handler, Reply, Request, Response
from castlegate.principal import scopes_of
from castlegate.sketch import Description, Sketch

_LARGEST_ANSWER = 64 * 1024  # bytes, of the login's service
_LARGEST_CLAIMS = 4 * 1024  # bytes: what a token is to be sent with in a field of each request
_LONGEST_SUBJECT = 512  # characters

_FRESH = b"public, max-age=300"

_ENCODE = msgspec.json.Encoder().encode

logger = logging.getLogger("castlegate.issuer")


_DOES = {
    "login": "asks the service below, and answers with an access token and a refresh token",
    "refresh": "takes a refresh token for the next one, with an access token",
    "logout": "ends what began with the login of a refresh token",
    "keys": "tells the public keys",
    "discovery": "tells what clients need to know of the issuer",
}


class IssuerEndpoint:
    """One of its routes, as `castlegate explain` tells it."""

    def __init__(self, name: str) -> None:
        self._name = name

    def describe(self, sketch: Sketch) -> Description:
        """What it does."""
        del sketch
        return Description(role="endpoint", name=f"issuer, {self._name}", says={"does": _DOES[self._name]})


class Issuer:
    """Of one configuration; the families of refresh tokens outlive it."""

    def __init__(
        self, settings: IssuerSettings, keys: Sequence[SigningKey], families: Families, now: Callable[[], float]
    ) -> None:
        self._settings = settings
        self._now = now
        self._keys = keys
        self._key = keys[0]
        self._families = families
        self._refresh = settings.refresh
        self._transport = RefreshTransport(settings.refresh, settings.paths.cookie)
        self._grant = {
            name: compile_json(getattr(settings.grant, name), ANSWER, Report().place())
            for name in ("subject", "scopes", "claims")
        }

    @property
    def tokens(self) -> OwnTokens:
        """What routes that take its access tokens need to know."""
        settings, keys = self._settings, [key.public for key in self._keys]
        return OwnTokens(settings.url, settings.meant_for, keys, self._families, settings.leeway)

    @property
    def problem(self) -> str:
        """What is amiss, for operators."""
        return self._families.problem

    def login(self, plan: CallPlan, caller: Caller, budget: Budget, *, limit: int) -> Handler:
        """Credentials for tokens; `limit` is the most that the body may be, in bytes."""

        async def handle(request: Request) -> Response:
            try:
                await self._families.check(
                    request.deadline
                )  # before the service has credentials that nothing can come of
                await request.collect(limit, budget)
                granted = await self._ask(plan, caller, request)
                token = new_token()
                try:
                    await self._families.begin(token, granted, request.deadline)
                except CallFailed as failed:
                    # The service was asked, so it cannot be said that nothing was sent.
                    raise CallFailed(failed.kind, Outcome.UNKNOWN, failed.detail) from failed
            except GatewayError as error:
                return failure(error, request)
            return self._issue(granted, token)

        return handle

    def handler(self, name: str, budget: Budget, *, limit: int) -> Handler:
        """That of another route than the login."""
        if name == "refresh":
            return self._refreshing(budget, limit)
        if name == "logout":
            return self._ending(budget, limit)
        if name == "keys":
            return _constant({"keys": [key.public for key in self._keys]}, b"application/jwk-set+json")
        return _constant(self._discovery(), b"application/json")

    def _refreshing(self, budget: Budget, limit: int) -> Handler:
        """A refresh token for tokens."""

        async def handle(request: Request) -> Response:
            try:
                await request.collect(limit, budget)
                token = self._transport.find(request)
                granted = None
                if token is not None:
                    following = new_token(token)
                    granted = await self._families.use(token, following, request.deadline)
                if granted is None:
                    raise Refused
            except Refused as error:
                return self._transport.forgetting(failure(error, request))
            except GatewayError as error:
                return failure(error, request)
            return self._issue(granted, following)

        return handle

    def _ending(self, budget: Budget, limit: int) -> Handler:
        """The end of what began with a login. What is no good is no error (RFC 7009 §2.2)."""

        async def handle(request: Request) -> Response:
            try:
                await request.collect(limit, budget)
                token = self._transport.find(request)
                if token is not None:
                    await self._families.end(token, request.deadline)
            except GatewayError as error:
                return failure(error, request)
            return self._transport.forgetting(Response(204, Headers.of([(b"cache-control", b"no-store")])))

        return handle

    def _discovery(self) -> dict[str, Any]:
        """What clients need to know (OpenID Connect Discovery 1.0 §3, RFC 8414 §2)."""
        url, paths = self._settings.url, self._settings.paths
        base = url[: url.index("/", 8)] if "/" in url[8:] else url
        return {
            "issuer": url,
            "jwks_uri": base + paths.keys,
            "token_endpoint": base + paths.refresh,
            "revocation_endpoint": base + paths.logout,
            "grant_types_supported": ["refresh_token"],
            "response_types_supported": [],
            "subject_types_supported": ["public"],
            "token_endpoint_auth_methods_supported": ["none"],
            "id_token_signing_alg_values_supported": list(dict.fromkeys(key.algorithm for key in self._keys)),
        }

    # The login's service.

    async def _ask(self, plan: CallPlan, caller: Caller, request: Request) -> Granted:
        """What the service says. Raises `GatewayError`."""
        call = plan.make(request)
        call.headers = call.headers.without(b"accept-encoding")  # the answer is read here
        try:
            reply = await caller(call)
        except CallFailed as failed:
            raise _told(failed.status, failed.headers) if failed.kind is Kinds.SERVICE_ERROR else failed from failed
        if not 200 <= reply.status < 300:
            reply.close()
            raise _told(reply.status, tuple(reply.headers.pairs()))
        content = await self._read(reply, request)
        try:
            answer = msgspec.json.decode(content) if content else None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise _bad_answer("it is not JSON") from error
        if answer is None or answer is False:
            raise bad_credentials()  # how services say that they know nobody of that name
        return self._granted(request, answer)

    async def _read(self, reply: Reply, request: Request) -> bytes:
        try:
            content = await reply.content(_LARGEST_ANSWER, request.deadline, self._now)
        except TimeoutError as error:
            raise CallFailed(Kinds.TIMEOUT, Outcome.UNKNOWN) from error
        if content is None:
            raise _bad_answer("it is too large")
        return content

    def _granted(self, request: Request, answer: Any) -> Granted:
        parts = {"answer": answer}
        try:
            said = {
                name: msgspec.json.decode(template.render(request, parts)) for name, template in self._grant.items()
            }
        except PartUnfit as refused:  # of a reference that is not there
            raise _bad_answer(refused.detail.rstrip(".")) from refused
        subject, claims = said["subject"], said["claims"]
        if isinstance(subject, int) and not isinstance(subject, bool):
            subject = str(subject)
        if not isinstance(subject, str) or not 0 < len(subject) <= _LONGEST_SUBJECT:
            raise _bad_answer("it names no subject")
        if not isinstance(claims or {}, dict):
            raise _bad_answer("its claims are no object")
        chosen = self._settings.claims
        encoded = _ENCODE(
            {
                name: value
                for name, value in (claims or {}).items()
                if name not in OURS and (chosen is None or name in chosen)
            }
        )
        if len(encoded) > _LARGEST_CLAIMS:
            raise _bad_answer("its claims are too large")
        return Granted(subject, _scopes(said["scopes"]), msgspec.Raw(encoded), time.time() + self._refresh.lifetime)

    # Tokens.

    def _issue(self, granted: Granted, token: RefreshToken) -> Response:
        now = time.time()
        settings = self._settings
        claims = msgspec.json.decode(granted.claims)
        claims |= {
            "iss": settings.url,
            "aud": settings.meant_for,
            "sub": granted.subject,
            "iat": int(now),
            "exp": int(now + settings.access),
            "jti": secrets.token_urlsafe(16),
            "sid": token.family,
            "scope": granted.scopes,
        }
        document = {
            "access_token": self._key.sign(claims),
            "token_type": "Bearer",
            "expires_in": int(settings.access),
            "scope": granted.scopes,
        }
        return self._transport.answer(document, token, min(self._refresh.idle, granted.until - now))


def _scopes(said: Any) -> str:
    try:
        scopes = [] if said is None else scopes_of(said)
    except ValueError as error:
        raise _bad_answer("its scopes are neither a list of words nor words") from error
    if not all(_is_scope(each) for each in scopes):
        raise _bad_answer("its scopes are no words")
    return " ".join(scopes)


def _is_scope(text: str) -> bool:
    """RFC 6749 §3.3."""
    return bool(text) and all("!" <= each <= "~" and each not in '"\\' for each in text)


def _told(status: int, headers: tuple[tuple[bytes, bytes], ...]) -> GatewayError:
    """What a client is told of a service that said no: that it is too much or not possible now, else nothing but that
    it failed, in words that are always the same.
    """
    if 400 <= status < 500 and status not in (408, 429):
        return bad_credentials()
    after = tuple([field for field in headers if field[0] == b"retry-after"])
    return CallFailed(
        Kinds.SERVICE_ERROR,
        Outcome.ANSWERED,
        "The login failed.",
        status=status if status >= 400 else Kinds.BAD_ANSWER.status,
        headers=after,
    )


def _bad_answer(reason: str) -> CallFailed:
    """The reason is for operators."""
    logger.warning("the answer of the login's service cannot be used: %s", reason)
    return CallFailed(Kinds.BAD_ANSWER, Outcome.ANSWERED, "The login's service gave no answer that can be used.")


def _constant(document: Any, kind: bytes) -> Handler:
    response = Headers.of([(b"content-type", kind), (b"cache-control", _FRESH)]), _ENCODE(document)

    async def handle(_request: Request) -> Response:
        return Response(200, *response)

    return handle
