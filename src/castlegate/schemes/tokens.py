"""JSON Web Tokens, from bytes to claims (RFC 7515, 7519, 8725): read, judged, and refused for a word.

Does no I/O and reads no clock; signatures are checked by `token_keys`. What is cheap to refuse is refused first: size,
form, header, issuer, times; then the signature; only then is anything made of the claims. Nothing that a token carries
or points to is ever used as a key.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from castlegate.errors import Kind, Kinds
from castlegate.principal import Principal, scopes_of
from castlegate.schemes.scheme import Unauthenticated
from castlegate.schemes.strict import decode_base64url, decode_object
from castlegate.schemes.token_keys import ASYMMETRIC, LONGEST_KID, SYMMETRIC, Signed

REASONS = (
    "malformed", "header", "algorithm", "key", "signature", "type", "issuer", "audience", "expired", "early", "claims",
    "no_keys",
)  # fmt: skip

_ALGORITHMS = frozenset((*ASYMMETRIC, *SYMMETRIC))
# `x5t` only names a certificate. Extensions in `crit` would have to be understood, and there are none that are.
_BRING_A_KEY = ("jwk", "x5u", "x5c")
_UNDERSTOOD_BY_NOBODY = ("crit", "b64")
_LATEST = 2**53  # seconds; beyond, numbers are not exact (and infinity is one that JSON can write)
_HEADERS = 256  # that are remembered: all tokens of a key have the same


class TokenRefused(Unauthenticated):
    """`reason` is one of `REASONS`."""

    def __init__(self, reason: str, detail: str, kind: Kind = Kinds.UNAUTHORIZED) -> None:
        super().__init__(detail, kind=kind)
        self.reason = reason


class Header(NamedTuple):
    """What counts of a token's header."""

    algorithm: str
    kid: str | None
    typ: str | None
    jku: str | None


class Token(NamedTuple):
    """One that is well formed. Nothing in it is true yet."""

    header: Header
    claims: dict[str, Any]
    signed: Signed


class Rules(NamedTuple):
    """What an issuer's tokens must fulfil beside their signature."""

    issuer: str | None
    """None: whatever `iss` says, or nothing."""
    audiences: frozenset[str] | None
    """One of these; None: whatever `aud` says, or nothing."""
    algorithms: frozenset[str] | None
    """None: those that the key is for."""
    jku: str | None
    """The one address that a token may name: where the keys are from anyway."""
    typ: frozenset[str | None]
    """In lower case, without `application/`; None for tokens that do not say."""
    leeway: float
    required: tuple[str, ...]
    subject: str
    scopes: tuple[str, ...]
    """The claims that may hold them; the first one that is there counts."""


def read(token: bytes, size: int, depth: int) -> Token:
    """Take a token of at most `size` bytes apart. Raises `TokenRefused`."""
    if len(token) > size:
        raise TokenRefused("malformed", "The token is too large.")
    parts = token.split(b".", 3)
    if len(parts) != 3:
        raise TokenRefused("malformed", "The token does not have three parts.")
    header = _read_header(parts[0], depth)
    try:
        claims = decode_object(decode_base64url(parts[1]), depth)
        signature = decode_base64url(parts[2])
    except ValueError as error:
        raise TokenRefused("malformed", "The token is malformed.") from error
    if not signature:
        raise TokenRefused("signature", "The token is not signed.")
    content = token[: -1 - len(parts[2])]
    return Token(header, claims, Signed(header.algorithm, header.kid, content, signature))


def judge(token: Token, rules: Rules, now: float) -> None:
    """Whether a token may be believed if its signature is good; `now` is Unix time. Raises `TokenRefused`."""
    header, claims = token.header, token.claims
    if rules.algorithms is not None and header.algorithm not in rules.algorithms:
        raise TokenRefused("algorithm", "The algorithm of the token is not accepted.")
    if header.jku is not None and header.jku != rules.jku:
        raise TokenRefused("header", "The token says where its key is, which is for the gateway to know.")
    if header.typ not in rules.typ:
        raise TokenRefused("type", "The token is of another type.")
    if rules.issuer is not None and claims.get("iss") != rules.issuer:
        raise TokenRefused("issuer", "The issuer of the token is not known.")
    leeway = rules.leeway
    expires = _time(claims, "exp")
    if expires is None:
        raise TokenRefused("claims", "The token does not say when it expires.")
    if now >= expires + leeway:
        raise TokenRefused("expired", "The token has expired.")
    begins, issued = _time(claims, "nbf"), _time(claims, "iat")
    if begins is not None and now < begins - leeway:
        raise TokenRefused("early", "The token is not valid yet.")
    if issued is not None and now < issued - leeway:
        raise TokenRefused("early", "The token was issued in the future.")
    if rules.audiences is not None and rules.audiences.isdisjoint(_audiences(claims)):
        raise TokenRefused("audience", "The token is for somebody else.")


def principal_of(token: Token, rules: Rules, scheme: str) -> Principal:
    """Whose it is, once its signature was found good. Raises `TokenRefused`."""
    claims = token.claims
    for name in rules.required:
        if _claim(claims, name) is None:
            raise TokenRefused("claims", "A claim that is required is missing.")
    subject, credential = _claim(claims, rules.subject), claims.get("jti", "")
    if not isinstance(subject, str) or not subject:
        raise TokenRefused("claims", "The token does not say whom it is about.")
    if not isinstance(credential, str):
        raise TokenRefused("claims", "The id of the token is no text.")
    return Principal(
        subject=subject,
        scheme=scheme,
        claims=claims,
        scopes=_scopes(claims, rules.scopes),
        credential=credential,
        expires=claims["exp"] + rules.leeway,
    )


@lru_cache(_HEADERS)
def _read_header(segment: bytes, depth: int) -> Header:
    """Remembers the last ones, whoever sent them: it says nothing of a token that it has a header."""
    try:
        header = decode_object(decode_base64url(segment), depth)
    except ValueError as error:
        raise TokenRefused("malformed", "The header of the token is malformed.") from error
    if any(member in header for member in _BRING_A_KEY):
        raise TokenRefused("header", "The token brings a key with it, which is for the gateway to know.")
    if any(member in header for member in _UNDERSTOOD_BY_NOBODY):
        raise TokenRefused("header", "The token asks for an extension that is not known.")
    algorithm, kid = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str) or algorithm not in _ALGORITHMS:
        raise TokenRefused("algorithm", "The algorithm of the token is not accepted.")
    if "kid" in header and not (isinstance(kid, str) and 0 < len(kid) <= LONGEST_KID):
        raise TokenRefused("header", "The name of the token's key is no name.")
    typ, jku = (_text(header, name) for name in ("typ", "jku"))
    return Header(algorithm, kid, None if typ is None else typ.lower().removeprefix("application/"), jku)


def _text(header: Mapping[str, Any], name: str) -> str | None:
    value = header.get(name)
    if name in header and not isinstance(value, str):
        raise TokenRefused("header", "A field of the token's header is no text.")
    return value


def _time(claims: Mapping[str, Any], name: str) -> float | None:
    """A NumericDate (RFC 7519 §2); None if the claim is missing."""
    if name not in claims:
        return None
    value = claims[name]
    if type(value) not in (int, float) or not 0 <= value <= _LATEST:
        raise TokenRefused("claims", "A time in the token is none.")
    return float(value)


def _audiences(claims: Mapping[str, Any]) -> list[str]:
    """Whom the token is for."""
    found = claims.get("aud", [])
    if isinstance(found, str):
        return [found]
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise TokenRefused("audience", "The audience of the token is none.")
    return found


def _scopes(claims: Mapping[str, Any], names: tuple[str, ...]) -> frozenset[str]:
    """Words in a text (RFC 8693 §4.2), or a list of them."""
    for name in names:
        found = _claim(claims, name)
        if found is None:
            continue
        try:
            return frozenset(scopes_of(found))
        except ValueError as error:
            raise TokenRefused("claims", "The scopes of the token are none.") from error
    return frozenset()


def _claim(claims: Mapping[str, Any], name: str) -> Any:
    """A claim by its name, or, where no claim is called so, by the names that lead to it with dots between them."""
    if name in claims:
        return claims[name]
    found: Any = claims
    for step in name.split("."):
        if not isinstance(found, dict):
            return None
        found = found.get(step)
    return found
