"""JSON Web Tokens as credentials: who issues them, for whom, and where the keys are that say so.

`tokens` judges, `keys` verify, `jwks` fetches keys, `verified` remembers. Here is what operators say, and the order:
what was verified before; else read, judged, verified, by the keys of the issuer that the token names.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Annotated, ClassVar, Literal, NamedTuple

import msgspec
from msgspec import Meta

from castlegate.config.addresses import parse_url
from castlegate.config.report import DocumentPath, Place, Report, listed
from castlegate.config.units import SecondsOrZero, Size
from castlegate.errors import Kinds
from castlegate.means import Means
from castlegate.message import Request
from castlegate.principal import Principal
from castlegate.schemes.carrier import Carrier
from castlegate.schemes.jwks import FixedKeys, KeySource, Provider, RemoteKeys
from castlegate.schemes.key_fetching import KeyFetching, may_be_asked
from castlegate.schemes.token_keys import SYMMETRIC, Key, from_file, from_secret
from castlegate.schemes.tokens import REASONS, Rules, Token, TokenRefused, judge, principal_of, read
from castlegate.schemes.verified import Verified, VerifiedTokens

Algorithm = Literal[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519",
    "HS256", "HS384", "HS512",
]  # fmt: skip

_SOURCES = ("jwks", "keys", "secret")
_ANY_AUDIENCE = "*"
_LARGEST_FILE = 1024 * 1024
_TYPES: frozenset[str | None] = frozenset((None, "jwt", "at+jwt"))  # others are no access tokens (RFC 8725 §3.11)
_SCOPES = ("scope", "scp")


class TrustedIssuer(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Who issues tokens, and the keys that they are signed with: from `jwks`, `keys` or `secret`. If none of them is
    said, the keys are those of the discovery document of `issuer` (OpenID Connect).
    """

    issuer: str | None = None
    """What `iss` must be, letter by letter. With `keys`, `jwks` or `secret` it may be left out: then `iss` does not
    count."""
    audience: str | list[str] | None = None
    """Whom tokens must be for: `aud` must hold it, or one of several. `"*"` takes tokens for anybody, also those that
    the issuer gave to others."""
    jwks: str | None = None
    """URL of the issuer's set of keys."""
    keys: str | list[str] | None = None
    """Files of public keys: PEM (also certificates), a JWK or a set of them. Read at the start and at each reload."""
    secret: str | None = None
    """Shared with the issuer: at least 32 bytes of text, or a JWK with `kty` "oct". From the environment or a file:
    `${TOKEN_SECRET}`, `${file:/run/secrets/token}`."""
    algorithms: list[Algorithm] | None = None
    """Those that are accepted; else those that the key itself is for. What the token says never counts alone."""
    fetch: KeyFetching = KeyFetching()
    """How keys are fetched from `jwks` or `issuer`."""

    def check(self, at: Place) -> None:
        """One source of keys, and what goes with it."""
        said = [name for name in _SOURCES if getattr(self, name) is not None]
        if len(said) > 1:
            at.field(said[1]).mistake(f"{listed([repr(name) for name in said])} are said; keys come from one of them")
        elif not said and self.issuer is None and not any(at.field(name).spoilt for name in ("issuer", *_SOURCES)):
            at.mistake("expected an 'issuer', or its keys: 'jwks', 'keys' or 'secret'")
        if not self.audiences and not at.field("audience").spoilt:
            hint = "say it with 'audience', or \"*\" for those that are for anybody"
            at.mistake(f"it must be said whom tokens are for; {hint}")
        if self.issuer is not None and not said:
            self._check_url(self.issuer, at.field("issuer"))
            if "?" in self.issuer:
                at.field("issuer").mistake("an issuer's URL has no query (OpenID Connect Discovery §3)")
        if self.jwks is not None:
            self._check_url(self.jwks, at.field("jwks"))
        if self.algorithms is not None:
            self._check_algorithms(self.algorithms, at.field("algorithms"))
        if self.secret is not None:
            _check_secret(self.secret, at.field("secret"))
        _read_files(self, at)

    @property
    def audiences(self) -> list[str]:
        """Of which one must be in `aud`."""
        return [self.audience] if isinstance(self.audience, str) else list(self.audience or ())

    @property
    def files(self) -> list[str]:
        """That hold keys."""
        return [self.keys] if isinstance(self.keys, str) else list(self.keys or ())

    def _check_url(self, text: str, at: Place) -> None:
        try:
            url = parse_url(text)
        except ValueError as error:
            at.refuse(text, error)
            return
        if not may_be_asked(url, self.fetch):
            at.mistake("keys that come over http:// can be replaced on the way; use https://, or 'fetch.allow_http'")

    def _check_algorithms(self, algorithms: Sequence[str], at: Place) -> None:
        if not algorithms and not at.field(0).spoilt:
            at.mistake("this accepts no token; leave it out for those that the keys are for")
        for algorithm in algorithms:
            if (algorithm in SYMMETRIC) != (self.secret is not None):
                goes = "goes with 'secret', not with public keys" if algorithm in SYMMETRIC else "is for public keys"
                at.mistake(f"{algorithm} {goes}")


class Jwt(TrustedIssuer, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Signed tokens (JWT, RFC 7519). The ordinary case is `jwt: {issuer: https://idp.example.com, audience: api}`."""

    issuers: list[TrustedIssuer] = []
    """Several, in place of the one that is said here; the token's `iss` chooses."""
    leeway: SecondsOrZero = 60.0
    """By how much clocks may differ: a token is good for so long before and after its time."""
    required: list[str] = []
    """Claims that must be there beside `exp`, which always must."""
    typ: str | None = None
    """What the header's `typ` must be. Without it, `JWT`, `at+jwt` or none."""
    subject: str = "sub"
    """The claim that says whom the token is about. Of a claim inside another: `user.id`."""
    scopes: str | None = None
    """The claim that holds scopes, as words in a text or as a list. Without it, `scope` or else `scp`."""
    cookie: str | None = None
    """The cookie that the token is taken from, in place of `Authorization: Bearer ...`."""
    query: str | None = None
    """The query parameter that the token is taken from, in place of `Authorization`, where clients cannot send that.
    Its value is not written to the access log."""
    subprotocol: str | None = None
    """The name behind which the token is offered as a subprotocol of a WebSocket, in place of `Authorization`, which
    pages in browsers cannot send then: `Sec-WebSocket-Protocol: NAME, TOKEN`, or `NAME.` and the token in base64url."""
    forward: bool = False
    """`true` leaves the token in the request, for services that verify it themselves. Without it, services do not get
    what was accepted: neither `Authorization`, nor that one cookie, nor the query parameter, nor the subprotocol."""
    size: Size = 8 * 1024
    """The largest token that is read."""
    depth: Annotated[int, Meta(ge=1, le=100)] = 8
    """How deeply claims may be nested."""
    cache: Annotated[int, Meta(ge=0, le=10_000_000)] = 5000
    """Verified tokens that each worker remembers, so that they are not verified at every request; 0 for none."""

    own: ClassVar[tuple[str, ...]] = ("issuer", "audience", "algorithms", *_SOURCES)

    def check(self, at: Place) -> None:
        """One issuer or several, and the place of the token."""
        self.carrier.check(at)
        if not self.issuers:
            super().check(at)
            return
        for name in (*self.own, "fetch"):
            if getattr(self, name) != getattr(TrustedIssuer(), name):
                at.field(name).mistake("this stands in each of 'issuers'")
        names: set[str] = set()
        for number, each in enumerate(self.issuers):
            place = at.field("issuers", number)
            if each.issuer is None and not place.field("issuer").spoilt:
                place.mistake("of several issuers each has a name: 'issuer' is missing")
            elif each.issuer in names:
                place.field("issuer").mistake("another one has the same name")
            names.add(each.issuer or "")

    @property
    def carrier(self) -> Carrier:
        """Where the token stands."""
        elsewhere = Carrier(cookie=self.cookie, query=self.query, subprotocol=self.subprotocol, forward=self.forward)
        return elsewhere if elsewhere.said else Carrier(authorization="Bearer", forward=self.forward)

    @property
    def secret_parameters(self) -> list[str]:
        """Query parameters that are not to be logged."""
        return self.carrier.secret_parameters

    @property
    def every_issuer(self) -> list[TrustedIssuer]:
        """Those that are said."""
        return self.issuers or [self]


class Known(NamedTuple):
    """An issuer whose tokens are accepted."""

    rules: Rules
    source: KeySource


class JwtScheme:
    """See `castlegate.schemes.scheme.Scheme`."""

    challenge = "Bearer"
    credential = "token"

    def __init__(self, name: str, settings: Jwt, means: Means) -> None:
        self._name = name
        self._size, self._depth = settings.size, settings.depth
        self._issuers = {
            each.issuer: _known(name, settings, number, means) for number, each in enumerate(settings.every_issuer)
        }
        self._only = self._issuers.get(None)
        self.carrier = settings.carrier
        self.ambient = self.carrier.ambient
        self.take = self.carrier.taker()
        fixed = _digest(settings, means.folder)
        self._tokens = means.resources.keep(f"jwt {name}", (settings, fixed), lambda: VerifiedTokens(settings.cache))
        results = means.registry.counter(
            "castlegate_jwt_tokens_total", "Tokens: remembered, verified, or why they were refused.", "scheme", "result"
        )
        self._remembered, self._verified = results.child(name, "remembered"), results.child(name, "verified")
        self._refused = {reason: results.child(name, reason) for reason in REASONS}

    def known(self, credential: bytes) -> Principal | None:
        """Whose it is, if it was verified before."""
        principal = self._tokens.get(credential, time.time())
        if principal is not None:
            self._remembered.value += 1
        return principal

    async def verify(self, credential: bytes, request: Request) -> Principal:
        """Whose it is. Raises `TokenRefused`."""
        try:
            token = read(credential, self._size, self._depth)
            rules, source = self._issuer_of(token)
            judge(token, rules, time.time())
            key = source.keys.verifying(token.signed)
            while key is None and self._may_be_newer(token, source) and await source.renewed(request.deadline):
                key = source.keys.verifying(token.signed)
            if key is None:
                raise _why_unverified(token, source)
            principal = principal_of(token, rules, self._name)
        except TokenRefused as refused:
            self._refused[refused.reason].value += 1
            raise
        self._verified.value += 1
        self._tokens.put(credential, Verified(principal, key))
        return principal

    def _issuer_of(self, token: Token) -> Known:
        if self._only is not None:
            return self._only
        name = token.claims.get("iss")
        found = self._issuers.get(name) if isinstance(name, str) else None
        if found is None:
            raise TokenRefused("issuer", "The issuer of the token is not known.")
        return found

    def _may_be_newer(self, token: Token, source: KeySource) -> bool:
        return not source.keys or not source.keys.knows(token.header.kid)


def _why_unverified(token: Token, source: KeySource) -> TokenRefused:
    if not source.keys or (source.failing and not source.keys.knows(token.header.kid)):
        return TokenRefused("no_keys", "The keys of the token's issuer cannot be got now.", Kinds.UNVERIFIABLE)
    if not source.keys.knows(token.header.kid):
        return TokenRefused("key", "The token is signed with a key that is not known.")
    if not source.keys.allows(token.signed):
        return TokenRefused("algorithm", "The key is not for the algorithm of the token.")
    return TokenRefused("signature", "The signature of the token is not good.")


def _known(name: str, settings: Jwt, number: int, means: Means) -> Known:
    issuer, path = settings.every_issuer[number], ("auth", name, "jwt")
    audiences = issuer.audiences
    typ = _TYPES if settings.typ is None else frozenset((settings.typ.lower().removeprefix("application/"),))
    rules = Rules(
        issuer=issuer.issuer,
        audiences=None if _ANY_AUDIENCE in audiences else frozenset(audiences),
        algorithms=None if issuer.algorithms is None else frozenset(issuer.algorithms),
        jku=issuer.jwks,
        typ=typ,
        leeway=settings.leeway,
        required=tuple(settings.required),
        subject=settings.subject,
        scopes=_SCOPES if settings.scopes is None else (settings.scopes,),
    )
    return Known(rules, _source(issuer, (*path, "issuers", number) if settings.issuers else path, means))


def _source(issuer: TrustedIssuer, path: DocumentPath, means: Means) -> KeySource:
    if issuer.secret is not None:
        return FixedKeys([from_secret(issuer.secret)])
    if issuer.keys is not None:
        report = Report(means.folder)
        keys = _read_files(issuer, report.place(*path))
        report.raise_if_any()
        return FixedKeys(keys)
    provider = Provider(issuer.issuer, issuer.jwks, issuer.fetch)
    return means.resources.keep("jwks", provider, lambda: RemoteKeys(provider, (*path, "fetch"), means))


def _digest(settings: Jwt, folder: Path) -> list[bytes]:
    """Of what the files of keys hold: what was verified with other keys is not remembered beyond a reload."""
    files = [name for each in settings.every_issuer for name in each.files]
    return [sha256((folder / name).read_bytes()).digest() for name in files]


def _check_secret(secret: str, at: Place) -> None:
    if "-----BEGIN" in secret:
        at.mistake("this is a key in PEM and no secret; name its file under 'keys'")
        return
    try:
        from_secret(secret)
    except ValueError as error:
        at.mistake(f"this cannot be used: {error}")


def _public_of(name: str = "FILE") -> str:
    """How a file of keys is come by: never in place of what it holds."""
    made = f"openssl pkey -in PRIVATE.pem -pubout -out {name}"
    return f"it is the issuer's to give, its public key or set of keys; of a private key of your own: {made}"


def _read_files(issuer: TrustedIssuer, at: Place) -> list[Key]:
    """The keys in an issuer's files; what is wrong is reported."""
    keys: list[Key] = []
    for number, name in enumerate(issuer.files):
        place = at.field("keys") if isinstance(issuer.keys, str) else at.field("keys", number)
        try:
            with (at.report.folder / name).open("rb") as file:
                found = from_file(file.read(_LARGEST_FILE))
        except OSError as error:
            hint = f"; {_public_of(shlex.quote(name))}" if isinstance(error, FileNotFoundError) else ""
            place.mistake(f"found {place.shown(name)}, which cannot be read: {error.strerror}{hint}")
            continue
        except ValueError as error:
            place.mistake(f"found {place.shown(name)}, {error}")
            continue
        if not found:
            place.mistake(f"found {place.shown(name)}, which holds no key in PEM and no JWK; {_public_of()}")
        keys += found
    if issuer.keys is not None and not issuer.files:
        at.field("keys").mistake("expected a file, or several")
    return keys
