"""Keys that tokens are verified with: from JWKs (RFC 7517) and PEM, each judged before it verifies anything.

A key says itself which algorithms it is for: a token's word counts for nothing. A set of keys finds the one that a
token names. Does no I/O; `signatures`, which is slow to load, is imported when the first key is made.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from castlegate.config.report import show
from castlegate.schemes.strict import decode_base64url, decode_object

if TYPE_CHECKING:
    from castlegate.schemes.signatures import Check

ASYMMETRIC = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519")
SYMMETRIC = ("HS256", "HS384", "HS512")

MOST_KEYS = 100  # of a set
LONGEST_KID = 256  # characters
_DEEPEST = 8
_TRIED = 4  # keys, for a token that names none

_PRIVATE = ("d", "p", "q", "dp", "dq", "qi", "oth", "k")
_PEM = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)


class Key:
    """One that verifies. Equal ones are one object for as long as they are served, so that what was verified with it
    stays verified; `live` says whether it still is.
    """

    __slots__ = ("checks", "identity", "kid", "kty", "live")

    def __init__(self, kid: str | None, kty: str, checks: Mapping[str, Check], material: object) -> None:
        self.kid = kid
        self.kty = kty
        self.checks = checks
        self.identity = kid, kty, tuple(checks), material
        self.live = True


class Skipped(NamedTuple):
    """A key of a set that verifies nothing."""

    name: str
    reason: str
    """A word for metrics."""
    text: str


class Signed(NamedTuple):
    """What of a token is verified."""

    algorithm: str
    kid: str | None
    content: bytes
    signature: bytes


class KeySet:
    """The keys of an issuer. Not changed once it is made."""

    __slots__ = ("_named", "_nameless", "keys")

    def __init__(self, keys: Sequence[Key] = ()) -> None:
        self.keys = keys
        self._named: dict[str, list[Key]] = {}
        self._nameless: list[Key] = []
        for key in keys:
            (self._nameless if key.kid is None else self._named.setdefault(key.kid, [])).append(key)

    def __bool__(self) -> bool:
        return bool(self.keys)

    def knows(self, kid: str | None) -> bool:
        """Whether it says which of these keys it means, or nothing: newer ones would be no others."""
        return kid is None or kid in self._named

    def allows(self, token: Signed) -> bool:
        """Whether a key that the token may mean is for its algorithm."""
        return bool(self._fitting(token))

    def verifying(self, token: Signed) -> Key | None:
        """The key that it was signed with, if it is one of these. A token without `kid` is tried with the first few
        keys that are for its algorithm; one with a `kid` that no key has, with those that have none.
        """
        for key in self._fitting(token):
            if key.checks[token.algorithm](token.content, token.signature):
                return key
        return None

    def _fitting(self, token: Signed) -> list[Key]:
        kid = token.kid
        candidates: Sequence[Key] = self.keys if kid is None else self._named.get(kid, self._nameless)
        return [key for key in candidates if token.algorithm in key.checks][:_TRIED]


def from_jwk(jwk: Any) -> Key:
    """A public key. Raises `signatures.Unusable`."""
    from castlegate.schemes.signatures import Unusable, checks_of

    if not isinstance(jwk, dict):
        raise Unusable("malformed", "it is no JSON object")
    kty, kid = jwk.get("kty"), jwk.get("kid")
    if kid is not None and not (isinstance(kid, str) and 0 < len(kid) <= LONGEST_KID):
        raise Unusable("malformed", f"its 'kid' is no text of at most {LONGEST_KID} characters")
    if kty == "oct":
        raise Unusable("symmetric", "it is a shared secret, which is no secret among public keys")
    if any(member in jwk for member in _PRIVATE):
        raise Unusable("private", "it holds its private part, which others know now")
    if jwk.get("use", "sig") != "sig":
        raise Unusable("use", "its 'use' is not 'sig'")
    operations = jwk.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        raise Unusable("use", "its 'key_ops' do not hold 'verify'")
    make = _MAKERS.get(kty) if isinstance(kty, str) else None
    if make is None:
        raise Unusable("kind", "its 'kty' is not known")
    try:
        public, material = make(jwk)
    except Unusable:
        raise
    except ValueError as error:
        raise Unusable("malformed", "its numbers are no key") from error
    return Key(kid, str(kty), _said(jwk, checks_of(public)), material)


def from_secret(text: str) -> Key:
    """A shared secret: its bytes as UTF-8, or the JWK (`kty` "oct") that the text is. Raises `ValueError`."""
    from castlegate.schemes.signatures import checks_of_secret

    secret, jwk = text.encode(), {}
    if text.lstrip().startswith("{"):
        jwk = decode_object(secret, _DEEPEST)
        if jwk.get("kty") != "oct":
            raise ValueError("expected a JWK whose 'kty' is 'oct'")
        secret = _bytes_of(jwk, "k")
    return Key(None, "oct", _said(jwk, checks_of_secret(secret)), secret)


def from_file(content: bytes) -> list[Key]:
    """Of PEM (public keys, certificates), a JWK or a set of them. Raises `ValueError` unless all are usable; those for
    something else than signatures are left out.
    """
    if content.lstrip().startswith(b"{"):
        found = decode_object(content, _DEEPEST)
        keys, skipped = from_jwks(found if "keys" in found else {"keys": [found]})
        for each in skipped:
            if each.reason != "use":
                raise ValueError(f"whose {each.name} cannot be used: {each.text}")
        return keys
    return [_from_pem(match[1], match[0]) for match in _PEM.finditer(content)]


def from_jwks(document: Mapping[str, Any], known: Iterable[Key] = ()) -> tuple[list[Key], list[Skipped]]:
    """Of a set: the keys that can be used, and what is wrong with the others. Those of `known` that are in it stay the
    objects that they are. Raises `ValueError` if it is no set of keys.
    """
    from castlegate.schemes.signatures import Unusable

    listed = document.get("keys")
    if not isinstance(listed, list):
        raise ValueError("expected a JSON object with a list of 'keys'")
    same = {key.identity: key for key in known}
    found: dict[object, Key] = {}
    names: dict[Key, str] = {}
    skipped: list[Skipped] = []
    for number, jwk in enumerate(listed, 1):
        kid = jwk.get("kid") if isinstance(jwk, dict) else None
        name = f"key {show(kid)}" if isinstance(kid, str) else f"key {number}"
        try:
            if number > MOST_KEYS:
                raise Unusable("many", f"a set has at most {MOST_KEYS}")
            key = from_jwk(jwk)
        except Unusable as error:
            skipped.append(Skipped(name, error.reason, str(error)))
            continue
        key = found.setdefault(key.identity, same.get(key.identity, key))
        names[key] = name
    by_name: dict[object, list[Key]] = {}
    for key in found.values():
        by_name.setdefault(key.identity if key.kid is None else (key.kid, key.kty), []).append(key)
    twice = [key for keys in by_name.values() if len(keys) > 1 for key in keys]
    skipped += [Skipped(names[key], "twice", "another key of its kind has the same 'kid'") for key in twice]
    return [key for key in found.values() if key not in twice], skipped


def _said(jwk: Mapping[str, Any], checks: dict[str, Check]) -> dict[str, Check]:
    """Of what a key can check, what it is for."""
    from castlegate.schemes.signatures import Unusable

    if "alg" not in jwk:
        return checks
    algorithm = jwk["alg"]
    if not isinstance(algorithm, str) or algorithm not in checks:
        raise Unusable("algorithm", "its 'alg' is not known, or not for a key of its kind")
    return {algorithm: checks[algorithm]}


def _rsa(jwk: Mapping[str, Any]) -> tuple[Any, object]:
    from castlegate.schemes.signatures import rsa_key

    n, e = _bytes_of(jwk, "n"), _bytes_of(jwk, "e")
    return rsa_key(n, e), (n, e)


def _curve(jwk: Mapping[str, Any]) -> tuple[Any, object]:
    from castlegate.schemes.signatures import curve_key

    x, y = _bytes_of(jwk, "x"), _bytes_of(jwk, "y")
    return curve_key(str(jwk.get("crv")), x, y), (x, y)


def _edwards(jwk: Mapping[str, Any]) -> tuple[Any, object]:
    from castlegate.schemes.signatures import edwards_key

    x = _bytes_of(jwk, "x")
    return edwards_key(str(jwk.get("crv")), x), x


_MAKERS: dict[str, Callable[[Mapping[str, Any]], tuple[Any, object]]] = {"RSA": _rsa, "EC": _curve, "OKP": _edwards}


def _bytes_of(jwk: Mapping[str, Any], member: str) -> bytes:
    value = jwk.get(member)
    if not isinstance(value, str):
        raise ValueError(f"'{member}' is missing")
    return decode_base64url(value.encode())


def _from_pem(label: bytes, block: bytes) -> Key:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_public_key
    from cryptography.x509 import load_pem_x509_certificate

    from castlegate.schemes.signatures import checks_of

    if b"PRIVATE" in label:
        made = "openssl pkey -in PRIVATE.pem -pubout -out PUBLIC.pem"
        raise ValueError(f"which holds a private key; only its public part belongs here: {made}")
    try:
        certified = label == b"CERTIFICATE"
        public = load_pem_x509_certificate(block).public_key() if certified else load_pem_public_key(block)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ValueError("which holds PEM that is no public key and no certificate") from error
    try:
        return Key(None, type(public).__name__, checks_of(public), block)
    except ValueError as error:
        raise ValueError(f"whose key cannot be used: {error}") from error
