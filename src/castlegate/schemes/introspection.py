"""Opaque tokens, judged by the authorization server that issued them: RFC 7662.

Each token is asked about once while its answer holds. Where the server cannot be asked, nobody is let in.
"""

from __future__ import annotations

import base64
import re
import time
from typing import Any, Literal
from urllib.parse import quote_plus, urlencode

from castlegate.config.addresses import is_loopback, parse_origin, parse_url
from castlegate.config.report import Place
from castlegate.config.units import Count, Seconds
from castlegate.errors import CallFailed, Kinds
from castlegate.fetching import Fetched, Fetcher
from castlegate.headers import Headers
from castlegate.means import Means
from castlegate.message import Request
from castlegate.principal import Principal
from castlegate.schemes.answers import Accepted, AnswerCache, Nonsense, Verdict, kept_answers
from castlegate.schemes.carrier import Carrier, challenge
from castlegate.schemes.scheme import Unauthenticated
from castlegate.schemes.verdict import LARGEST, REFUSAL, read_introspection
from castlegate.wire.service_tls import ServiceTls

_TOKEN = re.compile(rb"[A-Za-z0-9._~+/-]{1,8192}=*")  # RFC 6750 §2.1, and no longer than a head
_CUT = (Kinds.NO_ANSWER, Kinds.RESET)


class Introspection(Carrier, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Tokens that the authorization server is asked about (RFC 7662). Without another place being said, they are bearer
    tokens in `Authorization`.
    """

    url: str
    """The server's introspection endpoint, `https://` (`http://` on loopback only)."""
    client: str
    """Our client id there."""
    secret: str
    """Its secret; from the environment or a file: `${INTROSPECTION_SECRET}`, `${file:/run/secrets/introspection}`."""
    method: Literal["basic", "post"] = "basic"
    """How we say both: in the field `Authorization`, or in the form (`client_secret_post`)."""
    issuer: str | None = None
    """What `iss` of the answer must be."""
    audience: str | None = None
    """What `aud` of the answer must be, or have among others: else a token for another service would do here."""
    tls: ServiceTls = ServiceTls()
    """How the server proves who it is."""
    timeout: Seconds = 2.0
    """For each question. The request's own deadline bounds the wait too."""
    cache: AnswerCache = AnswerCache()
    """How long answers are believed."""
    questions: Count = 64
    """Tokens that the instance may ask about at once; requests with further ones are answered 503."""

    @property
    def carrier(self) -> Carrier:
        """Where the credential stands."""
        return self if self.said else Carrier(authorization="Bearer", forward=self.forward)

    def check(self, at: Place) -> None:
        """The URL, and what the server knows us by."""
        Carrier.check(self, at)
        try:
            origin = parse_origin(parse_url(self.url).origin)
        except ValueError as error:
            at.field("url").refuse(self.url, error)
        else:
            if not origin.tls and not is_loopback(origin.host):
                at.field("url").mistake(f"expected https://, found {at.field('url').shown(self.url)}: tokens go there")
        for name in ("client", "secret"):
            if not getattr(self, name):
                at.field(name).mistake("expected text, found nothing")


class IntrospectionScheme:
    """See `castlegate.schemes.scheme.Scheme`."""

    credential = "token"

    def __init__(self, name: str, settings: Introspection, means: Means) -> None:
        self._name = name
        self._settings = settings
        self.carrier = settings.carrier
        self.ambient = self.carrier.ambient
        self.challenge = challenge("Bearer", name)
        self.take = self.carrier.taker()
        url = parse_url(settings.url)
        self._target = url.target.encode()
        self._form, self._headers = _identification(settings)
        self._fetcher: Fetcher = means.resources.keep(
            f"introspection server of {name}",
            settings,
            lambda: means.fetcher(f"auth.{name}", url.origin, settings.tls, ("auth", name, "introspection", "tls")),
        )
        self._answers = kept_answers(f"introspected tokens of {name}", name, settings, means)
        self.known = self._answers.known

    async def verify(self, credential: bytes, request: Request) -> Principal:
        """Whose it is, as the server says."""
        if _TOKEN.fullmatch(credential) is None:
            raise Unauthenticated("The token is malformed.")
        return await self._answers.ask(credential, request, lambda: self._question(credential))

    async def _question(self, token: bytes) -> Verdict:
        answer = await self._fetch(self._form + urlencode({"token": token.decode()}).encode())
        if answer.status != 200:
            # 401: the server does not accept us. It says nothing about the token.
            raise Nonsense(f"the introspection endpoint answers with status {answer.status}")
        verdict = read_introspection(answer.body, self._name, time.time())
        if isinstance(verdict, Accepted) and not self._is_for_us(verdict.principal.claims):
            return REFUSAL
        return verdict

    async def _fetch(self, form: bytes) -> Fetched:
        """One answer. A connection that was cut is no reason to give up: a question may be asked twice."""
        for last in (False, True):
            try:
                return await self._fetcher.fetch(
                    b"POST", self._target, self._headers, form, within=self._settings.timeout, limit=LARGEST
                )
            except CallFailed as failed:
                if last or failed.kind not in _CUT:
                    raise
        raise AssertionError("the last try returns or raises")

    def _is_for_us(self, claims: Any) -> bool:
        settings = self._settings
        if settings.issuer is not None and claims.get("iss") != settings.issuer:
            return False
        if settings.audience is None:
            return True
        audience = claims.get("aud")
        return settings.audience in audience if isinstance(audience, list) else settings.audience == audience


def _identification(settings: Introspection) -> tuple[bytes, Headers]:
    """The beginning of the form and the fields that say who asks (RFC 6749 §2.3.1)."""
    fields = [(b"content-type", b"application/x-www-form-urlencoded"), (b"accept", b"application/json")]
    if settings.method == "post":
        form = {"client_id": settings.client, "client_secret": settings.secret}
        return urlencode(form).encode() + b"&", Headers.of(fields)
    pair = f"{quote_plus(settings.client)}:{quote_plus(settings.secret)}".encode()
    return b"", Headers.of([*fields, (b"authorization", b"Basic " + base64.b64encode(pair))])
