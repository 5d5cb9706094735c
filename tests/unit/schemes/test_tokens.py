"""What is made of tokens, whoever made them."""

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.testbeds.tokens import AUDIENCE, ISSUER, Signer, compact, encode

from castlegate.principal import Principal
from castlegate.schemes.scheme import Unauthenticated
from castlegate.schemes.token_keys import KeySet, from_jwk
from castlegate.schemes.tokens import REASONS, Rules, TokenRefused, judge, principal_of, read

NOW = 1_800_000_000.0
SIGNERS = {name: Signer(name, name) for name in ("RS256", "ES256", "EdDSA")}
KEYS = KeySet([from_jwk(signer.jwk) for signer in SIGNERS.values()])
CLAIMS: dict[str, Any] = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ann", "exp": NOW + 60, "scope": "a b"}
RULES = Rules(
    issuer=ISSUER,
    audiences=frozenset((AUDIENCE,)),
    algorithms=None,
    jku=None,
    typ=frozenset((None, "jwt")),
    leeway=60.0,
    required=(),
    subject="sub",
    scopes=("scope", "scp"),
)


def verify(token: bytes, rules: Rules = RULES, now: float = NOW) -> Principal:
    """As the scheme does it."""
    found = read(token, 8192, 8)
    judge(found, rules, now)
    if KEYS.verifying(found.signed) is None:
        raise TokenRefused("signature", "")
    return principal_of(found, rules, "idp")


def made(signer: Signer = SIGNERS["RS256"], header: dict[str, Any] | None = None, **more: Any) -> bytes:
    claims = {name: value for name, value in {**CLAIMS, **more}.items() if value is not None}
    return compact({**signer.header, **(header or {})}, claims, signer.sign)


TOKENS = {name: made(signer) for name, signer in SIGNERS.items()}


def refusal(token: bytes, rules: Rules = RULES, now: float = NOW) -> str:
    with pytest.raises(TokenRefused) as caught:
        verify(token, rules, now)
    assert caught.value.reason in REASONS
    assert '"' not in caught.value.detail, "it stands in a quoted text of a header field"
    return caught.value.reason


@pytest.mark.parametrize("name", TOKENS)
def test_a_good_token_is_somebody(name: str) -> None:
    found = verify(TOKENS[name])
    assert (found.subject, found.scheme, found.scopes) == ("ann", "idp", {"a", "b"})
    assert found.claims == CLAIMS
    assert found.expires == NOW + 60 + RULES.leeway


@pytest.mark.parametrize("name", TOKENS)
def test_no_byte_can_be_changed(name: str) -> None:
    token = TOKENS[name]

    @settings(max_examples=300, deadline=None)
    @given(st.integers(0, len(token) - 1), st.integers(1, 255))
    @example(len(token) - 1, 1)
    def check(place: int, change: int) -> None:
        changed = bytearray(token)
        changed[place] ^= change
        with pytest.raises(TokenRefused):
            verify(bytes(changed))

    check()


@pytest.mark.parametrize("name", TOKENS)
def test_nothing_can_be_put_in_or_taken_out(name: str) -> None:
    token = TOKENS[name]

    @settings(max_examples=200, deadline=None)
    @given(st.integers(0, len(token)), st.integers(0, len(token)), st.binary(max_size=5))
    def check(start: int, end: int, put: bytes) -> None:
        changed = token[:start] + put + token[end:]
        if changed != token:
            with pytest.raises(TokenRefused):
                verify(changed)

    check()


PARTS = (
    st.binary(max_size=60)
    | st.binary(max_size=60).map(encode)
    | st.sampled_from([part for token in TOKENS.values() for part in token.split(b".")])
)


@settings(deadline=None)
@given(st.lists(PARTS, max_size=6).map(b".".join) | st.binary(max_size=200))
def test_garbage_is_refused_and_nothing_else_is_raised(token: bytes) -> None:
    if token not in TOKENS.values():
        with pytest.raises(Unauthenticated):
            verify(token)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from([ISSUER, AUDIENCE, NOW, "a b"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(["iss", "aud", "sub", "exp", "nbf", "iat", "jti", "scope", "scp"]), JSON))
def test_claims_of_any_type_are_refused_or_right(claims: dict[str, Any]) -> None:
    try:
        found = verify(compact(SIGNERS["EdDSA"].header, {**CLAIMS, **claims}, SIGNERS["EdDSA"].sign))
    except TokenRefused:
        return
    assert isinstance(found.subject, str)
    assert found.subject
    assert isinstance(found.credential, str)
    assert all(isinstance(scope, str) for scope in found.scopes)
    assert NOW < found.expires <= 2**53 + RULES.leeway


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(["alg", "kid", "typ", "jku", "jwk", "x5c", "x5u", "crit", "b64", "cty"]), JSON))
def test_headers_of_any_type_are_refused_or_harmless(header: dict[str, Any]) -> None:
    token = made(SIGNERS["EdDSA"], header)
    if set(header) <= {"cty"}:
        assert verify(token)
    elif header.keys() & {"alg", "jku", "jwk", "x5c", "x5u", "crit", "b64"}:
        with pytest.raises(TokenRefused):
            verify(token)


@pytest.mark.parametrize(
    ("claims", "good"),
    [
        ({"exp": NOW - 59}, True), ({"exp": NOW - 61}, False), ({"exp": NOW - 60}, False), ({"exp": NOW - 59.5}, True),
        ({"nbf": NOW + 59}, True), ({"nbf": NOW + 61}, False), ({"iat": NOW + 59}, True), ({"iat": NOW + 61}, False),
        ({"nbf": NOW - 1e6, "iat": NOW - 1e6}, True), ({"exp": None}, False),
    ],
)  # fmt: skip
def test_times_have_a_leeway(claims: dict[str, Any], good: bool) -> None:
    if good:
        assert verify(made(**claims))
    else:
        assert refusal(made(**claims)) in ("expired", "early", "claims")


def test_the_audience_is_one_of_several() -> None:
    assert verify(made(aud=["web", AUDIENCE]))
    assert verify(made(aud="web"), RULES._replace(audiences=frozenset(("web", "app"))))
    assert verify(made(aud=None), RULES._replace(audiences=None))
    assert refusal(made(aud=None)) == "audience"


def test_an_issuer_that_has_no_name_is_not_looked_at() -> None:
    assert verify(made(iss=5), RULES._replace(issuer=None))
    assert refusal(made(iss=5)) == "issuer"


def test_algorithms_are_those_that_are_configured() -> None:
    rules = RULES._replace(algorithms=frozenset(("ES256",)))
    assert verify(TOKENS["ES256"], rules)
    assert refusal(TOKENS["RS256"], rules) == "algorithm"


def test_an_address_of_keys_may_be_named_if_it_is_the_configured_one() -> None:
    rules = RULES._replace(jku="https://idp.example.com/keys")
    assert verify(made(header={"jku": "https://idp.example.com/keys"}), rules)
    assert refusal(made(header={"jku": "https://idp.example.com/keys2"}), rules) == "header"
    assert refusal(made(header={"jku": "https://idp.example.com/keys"})) == "header"


def test_the_type_is_one_of_access_tokens() -> None:
    for typ in ("JWT", "jwt", "application/jwt"):
        assert verify(made(header={"typ": typ}))
    assert refusal(made(header={"typ": "at+jwt"})) == "type"
    assert verify(made(header={"typ": "application/AT+jwt"}), RULES._replace(typ=frozenset(("at+jwt",))))
    header = {name: value for name, value in SIGNERS["EdDSA"].header.items() if name != "typ"}
    untyped = compact(header, CLAIMS, SIGNERS["EdDSA"].sign)
    assert verify(untyped)
    assert refusal(untyped, RULES._replace(typ=frozenset(("at+jwt",)))) == "type"


def test_claims_are_found_by_name_or_by_the_way_to_them() -> None:
    rules = RULES._replace(subject="user.id", scopes=("realm.roles",), required=("user.tenant",))
    inside = made(user={"id": "u1", "tenant": "t"}, realm={"roles": ["x", "y"]})
    assert (verify(inside, rules).subject, verify(inside, rules).scopes) == ("u1", {"x", "y"})
    named = made(**{"user.id": "u2", "user.tenant": "t", "realm.roles": "z"})
    assert (verify(named, rules).subject, verify(named, rules).scopes) == ("u2", {"z"})
    assert refusal(made(user={"id": "u1"}), rules) == "claims"
    assert refusal(made(user="u1"), rules) == "claims"


def test_scopes_are_words_or_a_list_and_the_first_claim_counts() -> None:
    assert verify(made(scope=["a", "b c"])).scopes == {"a", "b c"}
    assert verify(made(scope="  a   b ")).scopes == {"a", "b"}
    assert verify(made(scope="a\u00a0b")).scopes == {"a\u00a0b"}
    assert verify(made(scope=None, scp="x")).scopes == {"x"}
    assert verify(made(scope="a", scp="x")).scopes == {"a"}
    assert verify(made(scope=None)).scopes == frozenset()


def test_size_is_bounded_before_anything_is_read() -> None:
    with pytest.raises(TokenRefused, match="too large"):
        read(b"{" * 101, 100, 8)
