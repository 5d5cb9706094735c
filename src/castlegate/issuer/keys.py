"""The keys that tokens are signed with: read from files, judged, published.

A key is what its file holds, and its algorithm follows from it: P-256 signs with ES256, Ed25519 with EdDSA, RSA with
RS256. It is called by its thumbprint (RFC 7638).
"""

from __future__ import annotations

import hashlib
import shlex
import stat
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from castlegate.config.report import Place

_LARGEST = 64 * 1024  # bytes of a file
_SHORTEST_RSA = 2048
_LONGEST_RSA = 4096  # signing holds up the loop: 5 ms with this one

_ENCODE = msgspec.json.Encoder().encode

Sign = Callable[[bytes], bytes]


class SigningKey:
    """One of them."""

    __slots__ = ("_head", "_sign", "algorithm", "id", "public")

    def __init__(self, algorithm: str, sign: Sign, public: Mapping[str, str]) -> None:
        # RFC 7638 §3.2: the required members in the order of their names.
        self.id = b64(hashlib.sha256(_ENCODE(dict(sorted(public.items())))).digest())
        self.algorithm = algorithm
        self.public: dict[str, Any] = {**public, "kid": self.id, "use": "sig", "alg": algorithm}
        self._sign = sign
        # RFC 9068 §2.1: not to be taken for a token of another kind.
        self._head = b64(_ENCODE({"alg": algorithm, "kid": self.id, "typ": "at+jwt"})).encode()

    def sign(self, claims: Mapping[str, Any]) -> str:
        """A token in compact form (RFC 7515 §7.1)."""
        signed = self._head + b"." + urlsafe_b64encode(_ENCODE(claims)).rstrip(b"=")
        return (signed + b"." + urlsafe_b64encode(self._sign(signed)).rstrip(b"=")).decode()


def load_keys(files: Sequence[str], at: Place) -> list[SigningKey]:
    """The keys in these files; what is wrong is reported where each is named."""
    keys: list[SigningKey] = []
    for index, file in enumerate(files):
        place = at.field(index)
        key = _load(file, place)
        if key is not None and key.id in [each.id for each in keys]:
            place.mistake(f"found {place.shown(file)}, which holds a key that is there already")
        elif key is not None:
            keys.append(key)
    return keys


def _load(file: str, at: Place) -> SigningKey | None:
    from cryptography.hazmat.primitives.serialization import load_pem_private_key  # slow to load

    path = at.report.folder / file
    pem = _content(path, file, at)
    if pem is None:
        return None
    try:
        private = load_pem_private_key(pem, None)
    except TypeError:
        without = f"openssl pkey -in {shlex.quote(file)} -out FILE && chmod 600 FILE"
        return _refuse(at, file, f"which is encrypted: a key without a passphrase is needed; write one: {without}")
    except ValueError:
        public = any(word in pem for word in (b"PUBLIC KEY-----", b"CERTIFICATE-----"))
        found = "only what is public of a key, and tokens are signed with the private one" if public else None
        return _refuse(at, file, f"which holds {found or 'no private key in PEM'}; {_remedy()}")
    return _judged(private, file, at)


def _content(path: Path, file: str, at: Place) -> bytes | None:
    try:
        with path.open("rb") as opened:
            mode = path.stat().st_mode
            content = opened.read(_LARGEST)
    except (OSError, ValueError) as error:
        hint = f"; {_remedy(shlex.quote(file))}" if isinstance(error, FileNotFoundError) else ""
        _refuse(at, file, f"which cannot be read: {getattr(error, 'strerror', None) or error}{hint}")
        return None
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        at.warning(f"found {at.shown(file)}, which others than its owner may use; chmod 600 it")
    return content


def _judged(private: Any, file: str, at: Place) -> SigningKey | None:
    """The key, if it is one that can be signed with and is strong enough."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    if isinstance(private, ec.EllipticCurvePrivateKey) and isinstance(private.curve, ec.SECP256R1):
        point = private.public_key().public_numbers()
        public = {"crv": "P-256", "kty": "EC", "x": _number(point.x, 32), "y": _number(point.y, 32)}
        return SigningKey("ES256", _es256(private), public)
    if isinstance(private, ed25519.Ed25519PrivateKey):
        raw = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        return SigningKey("EdDSA", private.sign, {"crv": "Ed25519", "kty": "OKP", "x": b64(raw)})
    if isinstance(private, rsa.RSAPrivateKey):
        if private.key_size < _SHORTEST_RSA:
            weak = f"a key of {private.key_size} bits; RSA needs {_SHORTEST_RSA} at least"
            return _refuse(at, file, f"{weak}; {_remedy()}")
        if private.key_size > _LONGEST_RSA:
            return _refuse(at, file, f"a key of {private.key_size} bits; signing with more than {_LONGEST_RSA} is slow")
        numbers = private.public_key().public_numbers()
        if numbers.e < 65537:
            return _refuse(at, file, f"a key with the public exponent {numbers.e}; 65537 is needed")
        return SigningKey("RS256", _rs256(private), {"e": _number(numbers.e), "kty": "RSA", "n": _number(numbers.n)})
    unfit = "a key of a kind that is not signed with: P-256, Ed25519 or RSA is needed"
    return _refuse(at, file, f"{unfit}; {_remedy()}")


def _es256(private: Any) -> Sign:
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
    from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
    from cryptography.hazmat.primitives.hashes import SHA256

    method = ECDSA(SHA256())

    def sign(signed: bytes) -> bytes:
        r, s = decode_dss_signature(private.sign(signed, method))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")  # RFC 7518 §3.4

    return sign


def _rs256(private: Any) -> Sign:
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
    from cryptography.hazmat.primitives.hashes import SHA256

    padding, method = PKCS1v15(), SHA256()
    return lambda signed: private.sign(signed, padding, method)


def b64(data: bytes) -> str:
    """Without padding (RFC 7515 §2)."""
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def _number(value: int, size: int = 0) -> str:
    return b64(value.to_bytes(size or (value.bit_length() + 7) // 8, "big"))


def _remedy(file: str = "FILE") -> str:
    """What makes a key: never in place of what a file holds."""
    return f"make one: openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out {file} && chmod 600 {file}"


def _refuse(at: Place, file: str, reason: str) -> SigningKey | None:
    at.mistake(f"found {at.shown(file)}, {reason}")
    return None
