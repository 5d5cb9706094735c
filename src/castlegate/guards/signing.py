"""Short-lived tokens for services: signed with a key from a file, whose algorithm follows from the key."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from castlegate.config.report import Place

_LARGEST = 64 * 1024  # bytes of a file
_RSA_BITS = range(2048, 4097)  # the longer, the longer signing holds up all requests: 5 ms at the end of this

Sign = Callable[[Mapping[str, Any]], bytes]


class Unusable(Exception):
    """There is no key to sign with in the file; says why."""


def check_key(file: str, at: Place) -> None:
    """Report a file that cannot be signed with."""
    try:
        signer(at.report.folder / file)
    except Unusable as unusable:
        at.mistake(f"found {at.shown(file)}, {unusable}")


def signer(path: Path) -> Sign:
    """What makes tokens of claims (RFC 7519). Raises `Unusable`."""
    from joserfc import jwt  # slow to load
    from joserfc.errors import SecurityWarning
    from joserfc.jwk import import_key

    # RFC 9864 calls it Ed25519; what services verify with knows the old name, and often no other.
    warnings.filterwarnings("ignore", "EdDSA is deprecated", SecurityWarning)
    private = _private(path)
    kind, algorithm = _kind(private)
    key = import_key(_content(path), kind)  # type: ignore[call-overload]
    header = {"typ": "JWT", "alg": algorithm, "kid": key.thumbprint()}
    return lambda claims: jwt.encode(header, dict(claims), key, [algorithm]).encode()


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as opened:
            return opened.read(_LARGEST)
    except (OSError, ValueError) as error:
        why = f"which cannot be read: {getattr(error, 'strerror', None) or error}"
        if isinstance(error, FileNotFoundError):
            make = f"openssl genpkey -algorithm ed25519 -out {path.name}"
            why = f"which is not there in '{path.parent}'; make one: {make}"
        raise Unusable(why) from error


def _private(path: Path) -> Any:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        return load_pem_private_key(_content(path), None)
    except TypeError as error:
        raise Unusable("which is encrypted: a key without a passphrase is needed") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise Unusable("which holds no private key in PEM") from error


def _kind(private: Any) -> tuple[str, str]:
    """Type and algorithm of a key that is strong enough."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    if isinstance(private, ed25519.Ed25519PrivateKey):
        return "OKP", "EdDSA"
    if isinstance(private, ec.EllipticCurvePrivateKey) and isinstance(private.curve, ec.SECP256R1):
        return "EC", "ES256"
    if not isinstance(private, rsa.RSAPrivateKey):
        raise Unusable("a key of a kind that is not signed with: Ed25519, P-256 or RSA is needed")
    if private.key_size not in _RSA_BITS:
        raise Unusable(f"a key of {private.key_size} bits: RSA needs {_RSA_BITS[0]} to {_RSA_BITS[-1]}")
    return "RSA", "RS256"
