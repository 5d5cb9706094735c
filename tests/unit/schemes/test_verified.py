"""Verified tokens are remembered as long as they may be, and no more of them than may be."""

import sys

from tests.testbeds.tokens import Signer

from castlegate.principal import Principal
from castlegate.schemes.token_keys import from_jwk
from castlegate.schemes.verified import Verified, VerifiedTokens

JWK = Signer("EdDSA").jwk


def entry(until: float = 100.0) -> Verified:
    return Verified(Principal(subject="ann", scheme="idp", expires=until), from_jwk(JWK))


def test_a_token_ends_with_its_time() -> None:
    tokens = VerifiedTokens(10)
    tokens.put(b"a", entry(until=100.0))
    assert tokens.get(b"a", 99.9) is not None
    assert tokens.get(b"a", 100.0) is None
    assert tokens.get(b"a", 99.0) is None, "it is forgotten, whatever the clock says later"
    assert len(tokens) == 0


def test_a_token_ends_with_its_key() -> None:
    tokens, found = VerifiedTokens(10), entry()
    tokens.put(b"a", found)
    found.key.live = False
    assert tokens.get(b"a", 0.0) is None


def test_no_credential_stays_in_memory() -> None:
    tokens, token = VerifiedTokens(2), b"".join([b"head.", b"claims.", b"signature"])
    before = sys.getrefcount(token)
    tokens.put(token, entry())
    assert tokens.get(token, 0.0) is not None
    assert sys.getrefcount(token) == before


def test_what_is_asked_for_stays_and_there_are_never_more_than_may_be() -> None:
    tokens = VerifiedTokens(10)
    tokens.put(b"often", entry())
    for number in range(1000):
        tokens.put(b"%d" % number, entry())
        assert len(tokens) <= 10
        assert tokens.get(b"often", 0.0) is not None


def test_none_are_remembered_where_none_may_be() -> None:
    tokens = VerifiedTokens(0)
    tokens.put(b"a", entry())
    assert tokens.get(b"a", 0.0) is None
    assert len(tokens) == 0
