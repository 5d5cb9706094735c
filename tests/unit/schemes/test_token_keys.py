"""Which keys verify what: the vectors of the RFCs, and keys that are none."""

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from tests.testbeds.certificates import Authority
from tests.testbeds.tokens import Signer, encode, number

from castlegate.schemes.signatures import Unusable
from castlegate.schemes.strict import decode_base64url, decode_object
from castlegate.schemes.token_keys import Key, KeySet, Signed, from_file, from_jwk, from_jwks, from_secret
from castlegate.schemes.tokens import TokenRefused, read

VECTORS: dict[str, Any] = json.loads(Path(__file__).with_name("vectors.json").read_text())
RSA, OTHER = Signer("RS256", "a"), Signer("RS256", "b")


def key_of(jwk: dict[str, Any]) -> Key:
    return from_secret(json.dumps(jwk)) if jwk["kty"] == "oct" else from_jwk(jwk)


def signed(token: bytes, kid: str | None = None) -> Signed:
    content, _, signature = token.rpartition(b".")
    header = decode_object(decode_base64url(content.partition(b".")[0]), 8)
    return Signed(header["alg"], kid, content, decode_base64url(signature))


@pytest.mark.parametrize("name", VECTORS)
def test_the_examples_of_the_rfcs_verify(name: str) -> None:
    key, token = key_of(VECTORS[name]["key"]), signed(VECTORS[name]["token"].encode())
    keys = KeySet([key])
    assert keys.verifying(token) is key
    assert keys.verifying(token._replace(content=token.content + b"A")) is None
    for byte in range(0, len(token.signature), 7):
        changed = bytearray(token.signature)
        changed[byte] ^= 1
        assert keys.verifying(token._replace(signature=bytes(changed))) is None


@pytest.mark.parametrize("name", [name for name in VECTORS if not name.startswith("RFC 7515 A") or name.endswith("4")])
def test_examples_whose_payload_is_text_are_no_tokens(name: str) -> None:
    with pytest.raises(TokenRefused):
        read(VECTORS[name]["token"].encode(), 8192, 8)


@pytest.mark.parametrize(
    "token",
    [
        "eyJhbGciOiJub25lIn0.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.",
        "eyJhbGciOiJIUzI1NiIsImtpZCI6IjAxOGMwYWU1LTRkOWItNDcxYi1iZmQ2LWVlZjMxNGJjNzAzNyJ9..s0h6KThzkfBBBkLspW1h84VsJZFTsPPqMDA7g1Md7p0",
        "eyJhbGciOiJIUzI1NiIsImI2NCI6ZmFsc2UsImNyaXQiOlsiYjY0Il19.$.02.A5dxf2s96_n5FLueVuW1Z_vh161FwXZC4YLPff6dmDY",
    ],
    ids=["RFC 7515 A.5, unsecured", "RFC 7520 4.5, detached", "RFC 7797 4.2, not encoded"],
)
def test_examples_that_are_no_signed_tokens_are_refused(token: str) -> None:
    with pytest.raises(TokenRefused):
        read(token.encode(), 8192, 8)


def without(jwk: dict[str, Any], name: str) -> dict[str, Any]:
    return {member: value for member, value in jwk.items() if member != name}


def rsa_jwk(n: int, e: int = 65537) -> dict[str, Any]:
    return {"kty": "RSA", "n": number(n), "e": number(e)}


EC = Signer("ES256", "ec").jwk
ED = Signer("EdDSA", "ed").jwk
BAD: dict[str, tuple[Any, str]] = {
    "no object": ([], "malformed"),
    "no kty": ({"n": "AQAB"}, "kind"),
    "kty a list": ({**RSA.jwk, "kty": ["RSA"]}, "kind"),
    "kty in small letters": ({**RSA.jwk, "kty": "rsa"}, "kind"),
    "a secret": ({"kty": "oct", "k": encode(bytes(64)).decode()}, "symmetric"),
    "1024 bits": (rsa_jwk(rsa.generate_private_key(65537, 1024).public_key().public_numbers().n), "weak"),
    "2047 bits": (rsa_jwk(2**2046 + 1), "weak"),
    "16384 bits": (rsa_jwk(2**16383 + 1), "large"),
    "exponent 1": ({**RSA.jwk, "e": number(1)}, "malformed"),
    "exponent even": ({**RSA.jwk, "e": number(65536)}, "malformed"),
    "exponent of 40 bits": ({**RSA.jwk, "e": number(2**40 + 1)}, "large"),
    "modulus padded": ({**RSA.jwk, "n": RSA.jwk["n"] + "=="}, "malformed"),
    "modulus missing": (without(RSA.jwk, "n"), "malformed"),
    "modulus a number": ({**RSA.jwk, "n": 5}, "malformed"),
    "private": ({**RSA.jwk, "d": "AQAB"}, "private"),
    "for encryption": ({**RSA.jwk, "use": "enc"}, "use"),
    "use null": ({**RSA.jwk, "use": None}, "use"),
    "use a list": ({**RSA.jwk, "use": ["sig"]}, "use"),
    "for wrapping": ({**RSA.jwk, "key_ops": ["wrapKey"]}, "use"),
    "for signing": ({**RSA.jwk, "key_ops": ["sign"]}, "use"),
    "key_ops a text": ({**RSA.jwk, "key_ops": "verify"}, "use"),
    "alg of another kind": ({**RSA.jwk, "alg": "ES256"}, "algorithm"),
    "alg HS256": ({**RSA.jwk, "alg": "HS256"}, "algorithm"),
    "alg none": ({**RSA.jwk, "alg": "none"}, "algorithm"),
    "alg a list": ({**RSA.jwk, "alg": ["RS256"]}, "algorithm"),
    "kid a number": ({**RSA.jwk, "kid": 1}, "malformed"),
    "kid empty": ({**RSA.jwk, "kid": ""}, "malformed"),
    "not on the curve": ({**EC, "x": EC["y"]}, "malformed"),
    "zero point": ({**EC, "x": encode(bytes(32)).decode(), "y": encode(bytes(32)).decode()}, "malformed"),
    "coordinate cut": ({**EC, "x": encode(bytes(31)).decode()}, "malformed"),
    "coordinate of another curve": ({**EC, "crv": "P-384"}, "malformed"),
    "curve that is not known": ({**EC, "crv": "secp256k1"}, "kind"),
    "curve missing": (without(EC, "crv"), "kind"),
    "alg of another curve": ({**EC, "alg": "ES384"}, "algorithm"),
    "Ed25519 cut": ({**ED, "x": encode(bytes(31)).decode()}, "malformed"),
    "X25519": ({**ED, "crv": "X25519"}, "kind"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_key_that_is_none_says_why(name: str) -> None:
    jwk, reason = BAD[name]
    with pytest.raises(Unusable) as caught:
        from_jwk(jwk)
    assert caught.value.reason == reason


def test_a_key_is_for_what_it_says_or_else_for_what_its_kind_can() -> None:
    assert list(from_jwk(RSA.jwk).checks) == ["RS256"]
    assert set(from_jwk(without(RSA.jwk, "alg")).checks) == {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}
    assert list(from_jwk(without(EC, "alg")).checks) == ["ES256"]
    assert set(from_jwk(without(ED, "alg")).checks) == {"EdDSA", "Ed25519"}


@pytest.mark.parametrize(
    "algorithm", ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
)
def test_every_algorithm_verifies_its_own_signatures_alone(algorithm: str) -> None:
    signer = Signer(algorithm, "x")
    keys = KeySet([from_jwk(signer.jwk)])
    good = Signed(algorithm, "x", b"content", signer.sign(b"content"))
    assert keys.verifying(good) is keys.keys[0]
    assert keys.verifying(good._replace(content=b"Content")) is None
    assert keys.verifying(good._replace(signature=b"")) is None
    assert keys.verifying(good._replace(algorithm="HS256")) is None


def test_a_set_finds_keys_by_name_and_tries_few_where_there_is_none() -> None:
    nameless = [Signer("RS256", None) for _ in range(6)]
    named = KeySet([from_jwk(RSA.jwk), from_jwk(OTHER.jwk)])
    assert named.verifying(Signed("RS256", "b", b"x", OTHER.sign(b"x"))) is named.keys[1]
    assert named.verifying(Signed("RS256", None, b"x", OTHER.sign(b"x"))) is named.keys[1]
    assert named.verifying(Signed("RS256", "a", b"x", OTHER.sign(b"x"))) is None
    assert named.verifying(Signed("RS256", "c", b"x", OTHER.sign(b"x"))) is None
    assert not named.knows("c")
    many = KeySet([from_jwk(signer.jwk) for signer in nameless])
    assert many.verifying(Signed("RS256", "any", b"x", nameless[3].sign(b"x"))) is many.keys[3]
    assert many.verifying(Signed("RS256", "any", b"x", nameless[4].sign(b"x"))) is None


def test_a_set_leaves_out_what_cannot_be_told_apart() -> None:
    ec_twin = Signer("ES256", "a")
    keys, skipped = from_jwks({"keys": [RSA.jwk, RSA.jwk, ec_twin.jwk]})
    assert [key.kty for key in keys] == ["RSA", "EC"], "the same key twice, and one of another kind (RFC 7517 §4.5)"
    assert not skipped
    keys, skipped = from_jwks({"keys": [RSA.jwk, {**OTHER.jwk, "kid": "a"}, OTHER.jwk]})
    assert [key.kid for key in keys] == ["b"]
    assert [each.reason for each in skipped] == ["twice", "twice"]


def test_a_set_has_a_bounded_number_of_keys() -> None:
    keys, skipped = from_jwks({"keys": [{**RSA.jwk, "kid": str(each)} for each in range(103)]})
    assert len(keys) == 100
    assert [each.reason for each in skipped] == ["many"] * 3


def test_keys_that_are_there_again_are_the_same_objects() -> None:
    before, _ = from_jwks({"keys": [RSA.jwk, OTHER.jwk]})
    after, _ = from_jwks({"keys": [OTHER.jwk, {**RSA.jwk, "alg": "RS384"}]}, before)
    assert after[0] is before[1]
    assert after[1] is not before[0], "it is for another algorithm now"


@pytest.mark.parametrize("document", [{}, {"keys": {}}, {"keys": None}, {"keys": "x"}])
def test_no_set_of_keys(document: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        from_jwks(document)


def test_files_hold_pem_certificates_or_jwks(tmp_path: Path) -> None:
    certificate = Authority(tmp_path).issue("idp").cert.read_bytes()
    pkcs1 = RSA.key.public_key().public_bytes(Encoding.PEM, PublicFormat.PKCS1)
    assert len(from_file(RSA.pem + b"\n# another one\n" + Signer("ES256").pem + certificate + pkcs1)) == 4
    assert from_file(RSA.pem)[0].kid is None
    assert from_file(json.dumps(RSA.jwk).encode())[0].kid == "a"
    assert len(from_file(json.dumps({"keys": [RSA.jwk, {**OTHER.jwk, "use": "enc"}]}).encode())) == 1
    assert from_file(b"nothing") == []


def private(key: Any) -> bytes:
    content: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return content


def public(key: Any) -> bytes:
    content: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return content


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (private(RSA.key), "private key"),
        (public(rsa.generate_private_key(65537, 1024)), "1024 bits"),
        (public(dsa.generate_private_key(2048)), "no algorithm"),
        (public(ec.generate_private_key(ec.SECP256K1())), "curve"),
        (RSA.pem[:100] + RSA.pem[110:], "no public key"),
        (b"{", "Expecting"),
        (json.dumps({**RSA.jwk, "d": "AQAB"}).encode(), "private"),
        (json.dumps({"kty": "oct", "k": "AAAA"}).encode(), "secret"),
    ],
)
def test_files_with_other_keys_are_refused(content: bytes, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        from_file(content)


def test_a_secret_is_as_long_as_the_hash_at_least() -> None:
    assert set(from_secret("x" * 32).checks) == {"HS256"}
    assert set(from_secret("x" * 48).checks) == {"HS256", "HS384"}
    assert set(from_secret("x" * 64).checks) == {"HS256", "HS384", "HS512"}
    assert set(from_secret(json.dumps({"kty": "oct", "k": encode(bytes(64)).decode(), "alg": "HS512"})).checks) == {
        "HS512"
    }
    for text in ("x" * 31, '{"kty":"oct","k":"AAAA"}', '{"kty":"RSA"}', "{", '{"kty":"oct"}'):
        with pytest.raises(ValueError):
            from_secret(text)
