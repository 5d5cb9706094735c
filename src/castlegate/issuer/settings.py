"""What operators say of the tokens that the gateway issues itself."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

import msgspec

from castlegate.config.addresses import is_loopback, parse_origin, parse_url
from castlegate.config.references import PartRoot, Scope
from castlegate.config.report import Place
from castlegate.config.templates import compile_json
from castlegate.config.units import Count, Seconds, SecondsOrZero, Template
from castlegate.issuer.keys import load_keys

ANSWER = Scope({"answer": PartRoot("answer")})
"""What the references of `grant` reach."""

OURS = ("iss", "aud", "sub", "iat", "nbf", "exp", "jti", "sid", "scope")

_COOKIE = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)+")
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")

DEFAULT_TOPIC = "castlegate.tokens"

_LONGEST_ACCESS = 86400  # seconds
_LARGEST_LEEWAY = 60  # seconds

_DISCOVERY = "/.well-known/openid-configuration"


class IssuerPaths(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Where clients find what the issuer offers."""

    login: str = "/auth/login"
    """`POST`: credentials for tokens."""
    refresh: str = "/auth/refresh"
    """`POST`: a refresh token for new tokens."""
    logout: str = "/auth/logout"
    """`POST`: ends what began with a login."""
    keys: str = "/.well-known/jwks.json"
    """`GET`: the public keys, as a JSON Web Key Set (RFC 7517)."""
    discovery: str = _DISCOVERY
    """`GET`: what clients need to know of the issuer (OpenID Connect Discovery 1.0)."""

    @property
    def cookie(self) -> str:
        """What the paths of refresh and logout have in common: where the cookie is sent."""
        refresh, logout = self.refresh.split("/")[1:], self.logout.split("/")[1:]
        common = []
        for one, other in zip(refresh, logout, strict=False):
            if one != other:
                break
            common.append(one)
        return "/" + "/".join(common)

    def check(self, at: Place) -> None:
        """Plain paths, each its own."""
        seen: dict[str, str] = {}
        for name in msgspec.structs.asdict(self):
            path = getattr(self, name)
            if not _PATH.fullmatch(path) or "/." in path.replace("/.well-known", ""):
                at.field(name).mistake(f"expected a path such as /auth/{name}, found {at.field(name).shown(path)}")
            elif path in seen:
                at.field(name).mistake(f"'{seen[path]}' has the same path")
            seen.setdefault(path, name)


class RefreshTokens(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Refresh tokens: each is good for one use, which gives the next. One that comes a second time was stolen, or its
    thief has used it first: everything that began with the same login ends.
    """

    by: Literal["body", "cookie"] = "body"
    """How clients get and send it: as `refresh_token` in the body, or in a cookie that no script can read and that is
    sent to nobody else."""
    cookie: str = "__Secure-refresh"
    """The cookie's name. One that begins with `__Secure-` is taken by browsers from https only."""
    idle: Seconds = 7 * 86400.0
    """How long it can be used."""
    lifetime: Seconds = 30 * 86400.0
    """How long refreshing goes on from a login; then a new one is needed."""
    grace: SecondsOrZero = 0.0
    """For so long the token before the last is taken once more, for clients whose answer was lost. Nothing by default:
    in that time a thief's use of it looks the same. A client that lost an answer logs in again."""

    def check(self, at: Place) -> None:
        """What goes together."""
        if not _COOKIE.fullmatch(self.cookie):
            at.field("cookie").mistake("not a name of a cookie")
        elif self.cookie.startswith("__Host-"):
            at.field("cookie").mistake("a '__Host-' cookie is sent to every path; call it '__Secure-...'")
        if self.idle > self.lifetime:
            at.field("idle").mistake("it cannot be longer than 'lifetime'")
        if self.grace > 60:
            at.field("grace").mistake("expected at most 1m")


class IssuerState(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Where it is kept which refresh tokens are good: only hashes of them, with what their bearers were granted.

    Either a topic, for any number of instances, or a file, for the workers of one.
    """

    topic: str | None = None
    """A compacted topic with one partition, made where it is missing; `castlegate.tokens` if neither is said and there
    is a Kafka cluster. Every worker reads all of it when it starts."""
    file: str | None = None
    """A file (SQLite) on a local disk, relative to the configuration's folder; made where it is missing."""
    most: Count = 100_000
    """Logins under way at once; one more is answered 503. A worker holds a kilobyte in memory for each, and what its
    claims take, where they are in a topic."""
    per_subject: Count = 100
    """Logins under way of one subject; with one more, that of them ends which was not used for the longest. So nobody
    can take the place of all others."""

    def check(self, at: Place) -> None:
        """One of them."""
        if self.topic is not None and self.file is not None:
            at.mistake("both 'topic' and 'file' are said; the state is in one of them")
        if self.topic is not None and not _TOPIC.fullmatch(self.topic):
            at.field("topic").mistake("a topic's name has 1 to 249 letters, digits, '.', '_' and '-'")
        if self.file is not None:
            folder = (at.report.folder / self.file).parent
            if not folder.is_dir():
                at.field("file").mistake(f"there is no folder {at.field('file').shown(str(folder))}")


class Grant(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """What is granted, taken from the answer of the login's service by references such as `{answer.user.id}`."""

    subject: Annotated[Any, Template()] = "{answer.subject}"
    """Whose tokens they are: `sub`. Text or a number."""
    scopes: Annotated[Any, Template()] = "{answer.scopes?}"
    """What they are good for: a list, or text with spaces between."""
    claims: Annotated[Any, Template()] = "{answer.claims?}"
    """Further claims of the access token: an object. Who has the token can read them."""

    def check(self, at: Place) -> None:
        """The references."""
        for name in ("subject", "scopes", "claims"):
            compile_json(getattr(self, name), ANSWER, at.field(name))


class IssuerSettings(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Tokens of the gateway's own, for teams without an identity provider."""

    url: str
    """Who issues them, as it stands in `iss`: the URL at which clients reach this gateway."""
    audience: str | None = None
    """Whom they are for, as it stands in `aud`; the URL if nothing is said."""
    keys: list[str]
    """Files with private keys in PEM: P-256 (ES256), Ed25519 (EdDSA) or RSA of at least 2048 bits (RS256). The first
    signs, the public halves of all are published. A new key is added last, put first when everyone has seen it, and
    the old one is removed when its last token has expired, each by a reload of all instances."""
    access: Seconds = 600.0
    """How long an access token can be used. This gateway refuses it as soon as its login ends; whoever else verifies
    it does not hear of that."""
    leeway: SecondsOrZero = 5.0
    """By how much the clocks of this gateway's instances may differ: an access token is taken for so long before and
    after its time. At most 1m; 0 where there is one instance."""
    claims: list[str] | None = None
    """Which of the claims that were granted stand in the access token; all of them if nothing is said."""
    refresh: RefreshTokens = RefreshTokens()
    """Refresh tokens."""
    grant: Grant = Grant()
    """What is made of the answer of the login's service."""
    state: IssuerState = IssuerState()
    """Where it is kept which refresh tokens are good."""
    paths: IssuerPaths = IssuerPaths()
    """The routes that are added; all of them are public."""

    @property
    def meant_for(self) -> str:
        """`aud`."""
        return self.audience or self.url

    def check(self, at: Place) -> None:
        """The URL, the keys and the claims."""
        try:
            url = parse_url(self.url)
            origin = parse_origin(url.origin)
        except ValueError as error:
            at.field("url").refuse(self.url, error)
        else:
            if "?" in url.target or self.url.endswith("/"):
                at.field("url").mistake("expected a URL without a query and without a '/' at its end")
            elif not origin.tls and not is_loopback(origin.host):
                at.field("url").warning("tokens that are not sent over https can be read by anyone on the way")
        if not 1 <= self.access <= _LONGEST_ACCESS:
            at.field("access").mistake("expected from 1s to 1d; only the gateway itself hears of it when a login ends")
        if self.leeway > _LARGEST_LEEWAY:
            at.field("leeway").mistake("expected at most 1m: clocks that differ by more are to be set right")
        for index, claim in enumerate(self.claims or ()):
            if claim in OURS:
                at.field("claims", index).mistake(f"'{claim}' is always there and is said by the gateway")
        if not self.keys and not at.field("keys").spoilt:
            at.field("keys").mistake("expected at least one file with a private key")
        load_keys(self.keys, at.field("keys"))
