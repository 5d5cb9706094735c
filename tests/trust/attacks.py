"""What an attacker sends in place of a token: each is refused with 401, and nothing that it names is ever asked.

The provider's set holds good keys (RSA, EC, Ed25519) and what providers get wrong: see `Target.published`.
"""

import json
import time
from collections.abc import Callable, Mapping
from typing import Any

from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from tests.testbeds.tokens import Signer, claims, compact, encode, secret_signer

SHARED = b"a secret that the provider publishes by mistake, of 64 bytes ...."
_P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


class Target:
    """A provider's keys, and a place of the attacker's own."""

    def __init__(self, elsewhere: str) -> None:
        self.elsewhere = elsewhere
        self.rsa, self.ec, self.ed = Signer("RS256", "rsa"), Signer("ES256", "ec"), Signer("EdDSA", "ed")
        self.weak, self.encrypting, self.wrapping = (
            Signer("RS256", "weak", 1024),
            Signer("RS256", "enc"),
            Signer("ES256", "wrap"),
        )
        self.twin, self.other_twin = Signer("ES256", "twin"), Signer("ES256", "twin")
        self.own = Signer("RS256", "rsa")  # the attacker's: under the name of a good one

    @property
    def published(self) -> list[Mapping[str, Any]]:
        """The provider's set of keys."""
        return [
            {"kty": "oct", "kid": "shared", "alg": "HS256", "k": encode(SHARED).decode()},
            {"kty": "oct", "k": encode(SHARED).decode()},
            self.weak.jwk,
            self.rsa.jwk,
            {**self.encrypting.jwk, "use": "enc", "alg": "RSA-OAEP"},
            {name: value for name, value in {**self.wrapping.jwk, "key_ops": ["wrapKey"]}.items() if name != "use"},
            self.ec.jwk,
            self.twin.jwk,
            self.other_twin.jwk,
            {"kty": "PQC", "kid": "future", "alg": "ML-DSA-65", "pub": "AAAA"},
            {
                "kty": "EC",
                "kid": "crooked",
                "crv": "P-256",
                "x": encode(bytes(32)).decode(),
                "y": encode(bytes(32)).decode(),
            },
            {"kid": "no-kind"},
            self.ed.jwk,
        ]


Make = Callable[[Target], bytes]


def _header(signer: Signer, **more: Any) -> dict[str, Any]:
    return {name: value for name, value in {**signer.header, **more}.items() if value is not ...}


def header(**more: Any) -> Make:
    """Well signed by the provider, with another header; `...` leaves a member out."""
    return lambda t: compact(_header(t.rsa, **more), claims(), t.rsa.sign)


def said(**more: Any) -> Make:
    """Well signed by the provider, with other claims."""
    return lambda t: compact(t.rsa.header, {**claims(), **more}, t.rsa.sign)


def without(*names: str) -> Make:
    """Well signed by the provider, without some claims."""
    return lambda t: compact(t.rsa.header, claims(**dict.fromkeys(names)), t.rsa.sign)


def raw_claims(content: Callable[[dict[str, Any]], bytes]) -> Make:
    """Well signed by the provider, with whatever bytes for claims."""
    return lambda t: compact(t.rsa.header, content(claims()), t.rsa.sign)


def raw_header(content: Callable[[Target], bytes]) -> Make:
    """Well signed by the provider, with whatever bytes for a header."""
    return lambda t: compact(content(t), claims(), t.rsa.sign)


def unsigned(algorithm: Any, **more: Any) -> Make:
    """With nothing for a signature."""
    return lambda t: compact(_header(t.rsa, alg=algorithm, **more), claims(), lambda _: b"")


def confused(secret: Callable[[Target], bytes], algorithm: str = "HS256", **more: Any) -> Make:
    """Signed by HMAC with what everybody knows."""
    digest = f"sha{algorithm[2:]}"
    return lambda t: compact(_header(t.rsa, alg=algorithm, **more), claims(), secret_signer(secret(t), digest))


def own_key(**more: Any) -> Make:
    """Signed by the attacker, with something in the header that says so."""

    def make(t: Target) -> bytes:
        members = {name: value(t) if callable(value) else value for name, value in more.items()}
        return compact(_header(t.own, **members), claims(), t.own.sign)

    return make


def signature(change: Callable[[bytes], bytes], signer: str = "rsa") -> Make:
    """Well signed, and the signature changed."""

    def make(t: Target) -> bytes:
        good: Signer = getattr(t, signer)
        return compact(good.header, claims(), lambda signed: change(good.sign(signed)))

    return make


def text(change: Callable[[bytes], bytes]) -> Make:
    """A good token, changed as it stands."""
    return lambda t: change(t.rsa.token())


def _last_bits(token: bytes) -> bytes:
    """The last letter stands for 2 bits of 256 bytes and 4 that must be zero."""
    letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return token[:-1] + letters[letters.index(token[-1:]) + 1 :][:1]


def _der(raw: bytes) -> bytes:
    return encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))


def _parts(token: bytes, *order: int) -> bytes:
    found = token.split(b".")
    return b".".join(found[number] for number in order)


def _json_form(token: bytes) -> bytes:
    protected, payload, signed = token.decode().split(".")
    return json.dumps({"payload": payload, "protected": protected, "signature": signed}).encode()


def _swapped_claims(t: Target) -> bytes:
    good, other = t.rsa.token(), t.rsa.token(sub="root")
    return b".".join([good.split(b".")[0], other.split(b".")[1], good.split(b".")[2]])


def _der_of(t: Target) -> bytes:
    der: bytes = t.rsa.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return der


def _modulus(t: Target) -> bytes:
    n: int = t.rsa.key.public_key().public_numbers().n
    return n.to_bytes(256, "big")


def _order(place: int) -> Callable[[bytes], bytes]:
    order = _P256_ORDER.to_bytes(32, "big")
    return lambda raw: order + raw[32:] if place == 0 else raw[:32] + order


NOW = int(time.time())

ATTACKS: dict[str, Make] = {
    # No algorithm.
    "alg none": unsigned("none"),
    "alg None": unsigned("None"),
    "alg NONE": unsigned("NONE"),
    "alg nOnE": unsigned("nOnE"),
    "alg none with a space": unsigned("none "),
    "alg none without kid": unsigned("none", kid=...),
    "alg none with the signature left on": header(alg="none"),
    "alg missing": header(alg=...),
    "alg null": header(alg=None),
    "alg empty": header(alg=""),
    "alg a list": header(alg=["RS256"]),
    "alg a number": header(alg=256),
    "alg true": header(alg=True),
    "alg an object": header(alg={"RS256": 1}),
    "alg in small letters": header(alg="rs256"),
    "alg that nobody knows": header(alg="RS1024"),
    "alg of encryption": header(alg="RSA-OAEP"),
    "alg said twice, the second none": raw_header(lambda t: b'{"alg":"RS256","kid":"rsa","alg":"none"}'),
    "alg said twice in another spelling": raw_header(lambda t: b'{"alg":"none","kid":"rsa","\\u0061lg":"RS256"}'),
    # Another algorithm than the key's.
    "RS256 good, said to be RS512": header(alg="RS512"),
    "RS512 by a key that is for RS256": lambda t: compact(_header(t.rsa, alg="RS512"), claims(), lambda m: t.rsa.sign_as("RS512", m)),
    "PS256 by a key that is for RS256": lambda t: compact(_header(t.rsa, alg="PS256"), claims(), lambda m: t.rsa.sign_as("PS256", m)),
    "PS256 by a key that is for RS256, without kid": lambda t: compact(_header(t.rsa, alg="PS256", kid=...), claims(), lambda m: t.rsa.sign_as("PS256", m)),
    "ES256 under the name of an RSA key": lambda t: compact(_header(t.ec, kid="rsa"), claims(), t.ec.sign),
    "RS256 under the name of an EC key": header(kid="ec"),
    # The public key as a secret.
    "HS256 with the PEM": confused(lambda t: t.rsa.pem),
    "HS256 with the PEM without its last line break": confused(lambda t: t.rsa.pem.strip()),
    "HS256 with the PEM, without kid": confused(lambda t: t.rsa.pem, kid=...),
    "HS384 with the PEM": confused(lambda t: t.rsa.pem, "HS384"),
    "HS512 with the PEM": confused(lambda t: t.rsa.pem, "HS512"),
    "HS256 with the DER": confused(_der_of),
    "HS256 with the modulus": confused(_modulus),
    "HS256 with the JWK": confused(lambda t: json.dumps(t.rsa.jwk).encode()),
    "HS256 with the PEM of the EC key": confused(lambda t: t.ec.pem, kid="ec"),
    "HS256 with nothing": confused(lambda t: b""),
    "HS256 with the kid": confused(lambda t: b"rsa"),
    "HS256 with a secret of the provider's set": confused(lambda t: SHARED, kid="shared"),
    "HS256 with a secret of the provider's set, without kid": confused(lambda t: SHARED, kid=...),
    # Keys that the token brings, or says where to find.
    "jwk of its own": own_key(jwk=lambda t: t.own.jwk),
    "jwk of its own, without kid": own_key(jwk=lambda t: t.own.jwk, kid=...),
    "jwk beside a good signature": header(jwk={"kty": "RSA"}),
    "jwk null": header(jwk=None),
    "jku of its own": own_key(jku=lambda t: f"{t.elsewhere}/jwks"),
    "jku of its own, unknown kid": own_key(jku=lambda t: f"{t.elsewhere}/jwks", kid="own"),
    "jku of its own, without kid": own_key(jku=lambda t: f"{t.elsewhere}/jwks", kid=...),
    "jku beside a good signature": lambda t: compact(_header(t.rsa, jku=f"{t.elsewhere}/jwks"), claims(), t.rsa.sign),
    "jku that is no text": header(jku=["https://idp.example.com"]),
    "x5u of its own": own_key(x5u=lambda t: f"{t.elsewhere}/certificate"),
    "x5u beside a good signature": lambda t: compact(_header(t.rsa, x5u=t.elsewhere), claims(), t.rsa.sign),
    "x5c of its own": own_key(x5c=["MIIB"]),
    "x5c beside a good signature": header(x5c=["MIIB"]),
    "iss that is an address of its own": lambda t: compact(t.own.header, claims(iss=t.elsewhere), t.own.sign),
    "iss of its own, unknown kid": lambda t: compact(_header(t.own, kid="own"), claims(iss=t.elsewhere), t.own.sign),
    "kid that is an address": lambda t: compact(_header(t.own, kid=f"{t.elsewhere}/key"), claims(), t.own.sign),
    # Names of keys.
    "kid that leads to an empty file": confused(lambda t: b"", kid="../../../../../../dev/null"),
    "kid with SQL": confused(lambda t: b"x", kid="x' UNION SELECT 'x';--"),
    "kid with a command": own_key(kid="rsa|curl example.com"),
    "kid with a zero byte": own_key(kid="rsa\0"),
    "kid with a line break": own_key(kid="rsa\r\nx: y"),
    "kid that is a template": own_key(kid="{{7*7}}${7*7}%s%n"),
    "kid a number": header(kid=0),
    "kid true": header(kid=True),
    "kid null": header(kid=None),
    "kid a list": header(kid=["rsa"]),
    "kid an object": header(kid={"kid": "rsa"}),
    "kid empty": header(kid=""),
    "kid of 5,000 letters": own_key(kid="k" * 5000),
    "kid of another spelling": header(kid="RSA"),
    "kid that nobody has": own_key(kid="nobody"),
    # Keys that are not for this.
    "signed with a key of 1024 bits": lambda t: t.weak.token(),
    "signed with a key for encryption": lambda t: t.encrypting.token(),
    "signed with a key for wrapping": lambda t: t.wrapping.token(),
    "signed with one of two keys of a name": lambda t: t.twin.token(),
    "signed with the other of two keys of a name": lambda t: t.other_twin.token(),
    "signed with another key of the name": lambda t: t.own.token(),
    "signed with another key, without kid": lambda t: compact(_header(t.own, kid=...), claims(), t.own.sign),
    # Signatures.
    "signature empty": signature(lambda _: b""),
    "signature of one zero": signature(lambda _: b"\0"),
    "signature of zeros": signature(lambda raw: bytes(len(raw))),
    "signature of ones": signature(lambda raw: b"\xff" * len(raw)),
    "signature one": signature(lambda raw: bytes(len(raw) - 1) + b"\1"),
    "signature cut": signature(lambda raw: raw[:-1]),
    "signature with a byte more": signature(lambda raw: raw + b"\0"),
    "signature with a zero before it": signature(lambda raw: b"\0" + raw),
    "signature with a bit changed": signature(lambda raw: raw[:-1] + bytes((raw[-1] ^ 1,))),
    "signature of another token": lambda t: t.rsa.token().rsplit(b".", 1)[0] + b"." + t.rsa.token(sub="eve").rsplit(b".", 1)[1],
    "signature of 6,000 bytes": signature(lambda raw: raw * 23),
    "ECDSA of zeros": signature(lambda raw: bytes(64), "ec"),
    "ECDSA with r zero": signature(lambda raw: bytes(32) + raw[32:], "ec"),
    "ECDSA with s zero": signature(lambda raw: raw[:32] + bytes(32), "ec"),
    "ECDSA with r the order": signature(_order(0), "ec"),
    "ECDSA with s the order": signature(_order(1), "ec"),
    "ECDSA of ones": signature(lambda raw: b"\xff" * 64, "ec"),
    "ECDSA in DER": signature(_der, "ec"),
    "ECDSA of zeros in DER": signature(lambda raw: b"\x30\x06\x02\x01\0\x02\x01\0", "ec"),
    "ECDSA cut": signature(lambda raw: raw[:63], "ec"),
    "ECDSA with zeros between": signature(lambda raw: b"\0" + raw[:32] + b"\0" + raw[32:], "ec"),
    "Ed25519 of zeros": signature(lambda raw: bytes(64), "ed"),
    "Ed25519 cut": signature(lambda raw: raw[:-1], "ed"),
    "Ed25519 with s beyond the order": signature(lambda raw: raw[:63] + bytes((raw[63] | 0xE0,)), "ed"),
    # The form.
    "padded": text(lambda token: token + b"=="),
    "padded in the middle": text(lambda token: token.replace(b".", b"=.", 1)),
    "with bits behind the end": text(_last_bits),
    "in base64 that is not for URLs": lambda t: next(
        token.replace(b"-", b"+").replace(b"_", b"/") for number in range(99) if b"-" in (token := t.rsa.token(n=number))
    ),
    "with a letter that is none": text(lambda token: token[:30] + b"*" + token[30:]),
    "with a space": text(lambda token: token[:30] + b" " + token[30:]),
    "one part": text(lambda token: _parts(token, 0)),
    "two parts": text(lambda token: _parts(token, 0, 1)),
    "no signature but its dot": text(lambda token: _parts(token, 0, 1) + b"."),
    "four parts": text(lambda token: token + b".AAAA"),
    "five parts, as if encrypted": text(lambda token: _parts(token, 0, 1, 2, 1, 2)),
    "with a dot before it": text(lambda token: b"." + token),
    "with a dot behind it": text(lambda token: token + b"."),
    "with nothing for a header": text(lambda token: b"." + _parts(token, 1, 2)),
    "with nothing for claims": text(lambda token: b"..".join([_parts(token, 0), _parts(token, 2)])),
    "parts in another order": text(lambda token: _parts(token, 1, 0, 2)),
    "claims exchanged": _swapped_claims,
    "as JSON": text(_json_form),
    "twice with a comma": lambda t: t.rsa.token() + b"," + t.rsa.token(),
    "a token in a token": lambda t: compact({**t.rsa.header, "cty": "JWT"}, t.rsa.token(), t.rsa.sign),
    "dots": lambda t: b"..",
    "many dots": lambda t: b"." * 8000,
    "null": lambda t: b"null",
    "nothing": lambda t: b"",
    # Headers and claims as JSON.
    "header that is a list": raw_header(lambda t: b'["alg","RS256"]'),
    "header that is text": raw_header(lambda t: b'"RS256"'),
    "header that is no JSON": raw_header(lambda t: b"{alg:RS256}"),
    "header in UTF-16": raw_header(lambda t: json.dumps(t.rsa.header).encode("utf-16")),
    "header with a mark before it": raw_header(lambda t: b"\xef\xbb\xbf" + json.dumps(t.rsa.header).encode()),
    "header that is not UTF-8": raw_header(lambda t: b'{"alg":"RS256","kid":"rsa","x":"\xff"}'),
    "header of deep lists": raw_header(lambda t: b'{"alg":"RS256","kid":"rsa","x":' + b"[" * 2500 + b"]" * 2500 + b"}"),
    "kid said twice": raw_header(lambda t: b'{"alg":"RS256","kid":"x","kid":"rsa"}'),
    "crit that nobody knows": header(crit=["exp"]),
    "crit empty": header(crit=[]),
    "crit that asks for what is there": header(crit=["alg"]),
    "b64 with crit": header(crit=["b64"], b64=False),
    "b64 without crit": header(b64=False),
    "typ of a logout token": header(typ="logout+jwt"),
    "typ of a DPoP proof": header(typ="dpop+jwt"),
    "typ a number": header(typ=7),
    "claims that are a list": raw_claims(lambda c: json.dumps([c]).encode()),
    "claims that are text": raw_claims(lambda c: json.dumps(json.dumps(c)).encode()),
    "claims with something behind them": raw_claims(lambda c: json.dumps(c).encode() + b"{}"),
    "claims with a comment": raw_claims(lambda c: json.dumps(c).encode() + b"// x"),
    "claims with a comma too many": raw_claims(lambda c: json.dumps(c).encode()[:-1] + b",}"),
    "claims that are not UTF-8": raw_claims(lambda c: json.dumps(c).encode()[:-1] + b',"x":"\xc0\x80"}'),
    "claims with half a surrogate pair": raw_claims(lambda c: json.dumps({**c, "sub": "\ud800"}).encode()),
    "claims with sub said twice": raw_claims(lambda c: json.dumps(c).encode()[:-1] + b',"sub":"root"}'),
    "claims with sub said twice in another spelling": raw_claims(lambda c: json.dumps(c).encode()[:-1] + b',"\\u0073ub":"root"}'),
    "claims with a member said twice deep inside": raw_claims(lambda c: json.dumps(c).encode()[:-1] + b',"x":{"y":[{"a":1,"a":2}]}}'),
    "claims of deep objects": raw_claims(lambda c: json.dumps(c).encode()[:-1] + b',"x":' + b'{"a":' * 900 + b"1" + b"}" * 900 + b"}"),
    "claims of deep lists": raw_claims(lambda c: json.dumps(c).encode()[:-1] + b',"x":' + b"[" * 2500 + b"]" * 2500 + b"}"),
    "claims a little too deep": raw_claims(lambda c: json.dumps(c).encode()[:-1] + b',"x":' + b"[" * 8 + b"]" * 8 + b"}"),
    "claims that never end": raw_claims(lambda c: b"[" * 5000),
    "a number of 5,000 digits": raw_claims(lambda c: json.dumps(c).encode()[:-1] + b',"x":' + b"9" * 5000 + b"}"),
    "larger than may be": said(x="x" * 7000),
    # What is claimed.
    "another issuer": said(iss="https://evil.example.com"),
    "issuer missing": without("iss"),
    "issuer a list": said(iss=["https://idp.example.com"]),
    "issuer an object": said(iss={"https://idp.example.com": 1}),
    "issuer null": said(iss=None),
    "issuer with a slash": said(iss="https://idp.example.com/"),
    "issuer in capitals": said(iss="https://IDP.example.com"),
    "issuer that begins the same": said(iss="https://idp.example.com.evil.example"),
    "another audience": said(aud="web"),
    "audience missing": without("aud"),
    "audience null": said(aud=None),
    "audience empty": said(aud=[]),
    "audience a part of the name": said(aud="ap"),
    "audience with more behind it": said(aud="api2"),
    "audience in capitals": said(aud="API"),
    "audience in one text with others": said(aud="web api"),
    "audience an object": said(aud={"api": True}),
    "audience a list with a number": said(aud=["api", 1]),
    "audience a list of lists": said(aud=[["api"]]),
    "expired": said(exp=NOW - 3600),
    "expired long ago": said(exp=0),
    "expiry missing": without("exp"),
    "expiry null": said(exp=None),
    "expiry as text": said(exp=str(NOW + 900)),
    "expiry true": said(exp=True),
    "expiry a list": said(exp=[NOW + 900]),
    "expiry negative": said(exp=-1),
    "expiry infinite": raw_claims(lambda c: json.dumps({**c, "exp": float("inf")}).encode()),
    "expiry too large to be a number": raw_claims(lambda c: json.dumps({**c, "exp": 0}).replace('"exp": 0', '"exp": 1e999').encode()),
    "expiry not a number": raw_claims(lambda c: json.dumps({**c, "exp": float("nan")}).encode()),
    "expiry of 400 digits": raw_claims(lambda c: json.dumps({**c, "exp": 10**400}).encode()),
    "not valid yet": said(nbf=NOW + 3600),
    "beginning as text": said(nbf=str(NOW)),
    "beginning false": said(nbf=False),
    "issued in the future": said(iat=NOW + 3600),
    "issued at an object": said(iat={}),
    "subject missing": without("sub"),
    "subject a number": said(sub=1),
    "subject empty": said(sub=""),
    "subject a list": said(sub=["ann", "root"]),
    "subject an object": said(sub={"$ne": None}),
    "scopes an object": said(scope={"orders:read": True}),
    "scopes a number": said(scope=1),
    "scopes a list with a list": said(scope=["orders:read", ["admin"]]),
    "token id an object": said(jti={"$gt": ""}),
}  # fmt: skip
