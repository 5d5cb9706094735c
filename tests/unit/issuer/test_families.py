"""How long refresh tokens are good, and which one of a login is."""

import msgspec

from castlegate.issuer.families import Bounds, Granted, begun, new_token, used

GRANTED = Granted("ann", "read", msgspec.Raw(b"{}"), until=1000.0)
BOUNDS = Bounds(idle=100.0, lifetime=1000.0, grace=0.0, access=10.0)


def test_a_token_that_nobody_uses_ends_after_a_while() -> None:
    token = new_token()
    family = begun(GRANTED, token, 0.0, BOUNDS)
    assert family.takes(token.own, 99.9)
    assert not family.takes(token.own, 100.0)


def test_use_prolongs_it_up_to_the_end_of_the_login() -> None:
    token = new_token()
    family = begun(GRANTED, token, 0.0, BOUNDS)
    for now in range(90, 1000, 90):
        assert family.takes(token.own, now)
        following = new_token(token)
        family = used(family, token, following, now, BOUNDS)
        token = following
    assert family.takes(token.own, 999.9)
    assert not family.takes(token.own, 1000.0)


def test_a_token_is_good_once() -> None:
    token = new_token()
    following = new_token(token)
    family = used(begun(GRANTED, token, 0.0, BOUNDS), token, following, 1.0, BOUNDS)
    assert not family.takes(token.own, 1.0)
    assert family.takes(following.own, 1.0)


def test_one_whose_answer_was_lost_is_good_once_more_for_as_long_as_is_forgiven() -> None:
    bounds = BOUNDS._replace(grace=5.0)
    token = new_token()
    family = used(begun(GRANTED, token, 0.0, bounds), token, new_token(token), 1.0, bounds)
    assert family.takes(token.own, 5.9)
    assert not family.takes(token.own, 6.0)
    again = new_token(token)
    family = used(family, token, again, 5.0, bounds)  # its grace begins with the first use
    assert family.takes(token.own, 5.9)
    assert not family.takes(token.own, 6.0)
    assert family.takes(again.own, 6.0)
