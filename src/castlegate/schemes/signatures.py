"""Signatures: which algorithms a key can be used with (RFC 7518, 8037, 9864), and the check of each.

The one place that does cryptography, all of it OpenSSL's by way of `cryptography`. Slow to load: imported where keys
are made. A check tells of a signature whether it is good; it raises nothing.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

Check = Callable[[bytes, bytes], bool]
"""Of what was signed and its signature."""

LEAST_RSA, MOST_RSA = 2048, 8192  # bits: below it is broken, beyond it a check takes the time of an attack
_MOST_EXPONENT = 2**32
_LEAST_SECRET = 32  # bytes (RFC 7518 §3.2: as many as the hash has)

_HASHES: dict[str, hashes.HashAlgorithm] = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}

# Of each curve: the algorithm, its hash, bytes of a coordinate.
_CURVES: dict[str, tuple[str, hashes.HashAlgorithm, int]] = {
    "secp256r1": ("ES256", hashes.SHA256(), 32),
    "secp384r1": ("ES384", hashes.SHA384(), 48),
    "secp521r1": ("ES512", hashes.SHA512(), 66),
}


class Unusable(ValueError):
    """A key that verifies nothing; `reason` is a word for metrics."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


def checks_of(key: Any) -> dict[str, Check]:
    """By algorithm, what a public key checks. Raises `Unusable`."""
    if isinstance(key, rsa.RSAPublicKey):
        return _of_rsa(key)
    if isinstance(key, ec.EllipticCurvePublicKey):
        return _of_curve(key)
    if isinstance(key, ed25519.Ed25519PublicKey):
        check = _of_edwards(key)
        return {"EdDSA": check, "Ed25519": check}
    raise Unusable("kind", "no algorithm that is known goes with a key of its kind")


def checks_of_secret(secret: bytes) -> dict[str, Check]:
    """By algorithm, what a shared secret checks: those whose hash is no longer than it. Raises `Unusable`."""
    if len(secret) < _LEAST_SECRET:
        raise Unusable("weak", f"it has {len(secret)} bytes, and a secret has at least {_LEAST_SECRET}")
    return {f"HS{bits}": _of_secret(secret, f"sha{bits}") for bits in _HASHES if len(secret) * 8 >= int(bits)}


def rsa_key(modulus: bytes, exponent: bytes) -> rsa.RSAPublicKey:
    """Of its numbers; raises `ValueError`."""
    e, n = int.from_bytes(exponent, "big"), int.from_bytes(modulus, "big")
    if n.bit_length() < LEAST_RSA:
        raise Unusable("weak", f"it has {n.bit_length()} bits, and an RSA key has at least {LEAST_RSA}")
    if n.bit_length() > MOST_RSA or e >= _MOST_EXPONENT:
        raise Unusable("large", f"an RSA key has at most {MOST_RSA} bits, and an exponent of at most 32")
    return rsa.RSAPublicNumbers(e, n).public_key()


def curve_key(curve: str, x: bytes, y: bytes) -> ec.EllipticCurvePublicKey:
    """Of its curve, as JWKs call it, and a point on it; raises `ValueError`."""
    known: dict[str, ec.EllipticCurve] = {"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1(), "P-521": ec.SECP521R1()}
    if curve not in known:
        raise Unusable("kind", "its curve is not known")
    size = (known[curve].key_size + 7) // 8
    if len(x) != size or len(y) != size:
        raise Unusable("malformed", "its coordinates do not have the length of its curve")
    return ec.EllipticCurvePublicNumbers(int.from_bytes(x, "big"), int.from_bytes(y, "big"), known[curve]).public_key()


def edwards_key(curve: str, x: bytes) -> ed25519.Ed25519PublicKey:
    """Of its curve, as JWKs call it, and its point; raises `ValueError`."""
    if curve != "Ed25519":
        raise Unusable("kind", "its curve is not known")
    return ed25519.Ed25519PublicKey.from_public_bytes(x)


def _of_rsa(key: rsa.RSAPublicKey) -> dict[str, Check]:
    if not LEAST_RSA <= key.key_size <= MOST_RSA:
        raise Unusable("weak", f"it has {key.key_size} bits, and an RSA key has {LEAST_RSA} to {MOST_RSA}")
    checks: dict[str, Check] = {}
    for bits, digest in _HASHES.items():
        # The salt is as long as the hash (RFC 7518 §3.5).
        pss = padding.PSS(padding.MGF1(digest), padding.PSS.DIGEST_LENGTH)
        checks[f"RS{bits}"] = _check_rsa(key, padding.PKCS1v15(), digest)
        checks[f"PS{bits}"] = _check_rsa(key, pss, digest)
    return checks


def _check_rsa(key: rsa.RSAPublicKey, pad: padding.PKCS1v15 | padding.PSS, digest: hashes.HashAlgorithm) -> Check:
    verify, size = key.verify, (key.key_size + 7) // 8

    def check(signed: bytes, signature: bytes) -> bool:
        if len(signature) != size:
            return False
        try:
            verify(signature, signed, pad, digest)
        except InvalidSignature:
            return False
        return True

    return check


def _of_curve(key: ec.EllipticCurvePublicKey) -> dict[str, Check]:
    if key.curve.name not in _CURVES:
        raise Unusable("kind", "its curve is not known")
    algorithm, digest, size = _CURVES[key.curve.name]
    verify, how = key.verify, ec.ECDSA(digest)

    def check(signed: bytes, signature: bytes) -> bool:
        r, s = int.from_bytes(signature[:size], "big"), int.from_bytes(signature[size:], "big")
        if len(signature) != 2 * size or not r or not s:
            return False  # of zeros some implementations find that they are good for everything (CVE-2022-21449)
        try:
            verify(encode_dss_signature(r, s), signed, how)
        except InvalidSignature:
            return False
        return True

    return {algorithm: check}


def _of_edwards(key: ed25519.Ed25519PublicKey) -> Check:
    def check(signed: bytes, signature: bytes) -> bool:
        try:
            key.verify(signature, signed)
        except InvalidSignature:
            return False
        return True

    return check


def _of_secret(secret: bytes, digest: str) -> Check:
    return lambda signed, signature: hmac.compare_digest(hmac.digest(secret, signed, digest), signature)
