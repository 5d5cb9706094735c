"""Tokens as providers and attackers make them: every part can be said, whatever it is."""

import base64
import hmac
import json
import time
from collections.abc import Callable, Mapping
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

ISSUER = "https://idp.example.com"
AUDIENCE = "api"

_HASHES: dict[str, hashes.HashAlgorithm] = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}
_CURVES: dict[str, tuple[ec.EllipticCurve, str]] = {
    "ES256": (ec.SECP256R1(), "P-256"),
    "ES384": (ec.SECP384R1(), "P-384"),
    "ES512": (ec.SECP521R1(), "P-521"),
}

Sign = Callable[[bytes], bytes]


def encode(content: bytes) -> bytes:
    """Base64url without padding."""
    return base64.urlsafe_b64encode(content).rstrip(b"=")


def part(value: Any) -> bytes:
    """A part of a token: bytes as they are, all else as JSON."""
    return encode(value if isinstance(value, bytes) else json.dumps(value, separators=(",", ":")).encode())


def number(value: int, size: int = 0) -> str:
    """As JWKs write it."""
    return encode(value.to_bytes(size or (value.bit_length() + 7) // 8, "big")).decode()


def compact(header: Any, claims: Any, sign: Sign) -> bytes:
    """A token of whatever header and claims."""
    signed = part(header) + b"." + part(claims)
    return signed + b"." + encode(sign(signed))


def claims(**more: Any) -> dict[str, Any]:
    """Of a good token for some hours, since some are made when tests are collected; None leaves one out."""
    now = int(time.time())
    found = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "ann",
        "iat": now,
        "exp": now + 4 * 3600,
        "scope": "orders:read",
        **more,
    }
    return {name: value for name, value in found.items() if value is not None}


def secret_signer(secret: bytes, digest: str = "sha256") -> Sign:
    """HMAC."""
    return lambda signed: hmac.digest(secret, signed, digest)


class Signer:
    """A key of a provider, and what it signs."""

    def __init__(self, algorithm: str = "RS256", kid: str | None = "key-1", bits: int = 2048) -> None:
        self.algorithm = algorithm
        self.kid = kid
        self.key: Any
        if algorithm in _CURVES:
            self.key = ec.generate_private_key(_CURVES[algorithm][0])
        elif algorithm == "EdDSA":
            self.key = ed25519.Ed25519PrivateKey.generate()
        else:
            self.key = rsa.generate_private_key(65537, bits)

    @property
    def jwk(self) -> dict[str, Any]:
        """Its public part."""
        public = self.key.public_key()
        common = {"use": "sig", "alg": self.algorithm, **({} if self.kid is None else {"kid": self.kid})}
        if self.algorithm in _CURVES:
            numbers, size = public.public_numbers(), (public.key_size + 7) // 8
            crv = _CURVES[self.algorithm][1]
            return {"kty": "EC", "crv": crv, "x": number(numbers.x, size), "y": number(numbers.y, size), **common}
        if self.algorithm == "EdDSA":
            x = encode(public.public_bytes(Encoding.Raw, PublicFormat.Raw)).decode()
            return {"kty": "OKP", "crv": "Ed25519", "x": x, **common}
        numbers = public.public_numbers()
        return {"kty": "RSA", "n": number(numbers.n), "e": number(numbers.e), **common}

    @property
    def pem(self) -> bytes:
        """Its public part."""
        public: bytes = self.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        return public

    @property
    def header(self) -> dict[str, Any]:
        """Of its tokens."""
        return {"alg": self.algorithm, "typ": "JWT", **({} if self.kid is None else {"kid": self.kid})}

    def sign(self, signed: bytes) -> bytes:
        """As its algorithm does."""
        return self.sign_as(self.algorithm, signed)

    def sign_as(self, algorithm: str, signed: bytes) -> bytes:
        """As an algorithm does, which its key must be able to."""
        if algorithm == "EdDSA":
            return bytes(self.key.sign(signed))
        digest = _HASHES[algorithm[2:]]
        if algorithm.startswith("ES"):
            size = (self.key.key_size + 7) // 8
            r, s = decode_dss_signature(self.key.sign(signed, ec.ECDSA(digest)))
            return r.to_bytes(size, "big") + s.to_bytes(size, "big")
        if algorithm.startswith("PS"):
            return bytes(self.key.sign(signed, padding.PSS(padding.MGF1(digest), padding.PSS.DIGEST_LENGTH), digest))
        return bytes(self.key.sign(signed, padding.PKCS1v15(), digest))

    def token(self, header: Mapping[str, Any] | None = None, **more: Any) -> bytes:
        """A good one, with a header and claims changed."""
        return compact({**self.header, **(header or {})}, claims(**more), self.sign)


def jwks(*keys: Signer | Mapping[str, Any]) -> bytes:
    """A set of keys."""
    return json.dumps({"keys": [key.jwk if isinstance(key, Signer) else key for key in keys]}).encode()
