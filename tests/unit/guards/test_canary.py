"""Which calls a canary takes."""

from typing import Any

import pytest
from tests.kafka.calls import make_request

from castlegate.guards.canary import Canary, CanarySettings
from castlegate.headers import Headers
from castlegate.message import Call, Reply
from castlegate.principal import Principal


def call(claims: dict[str, Any] | None = None) -> Call:
    request = make_request()
    if claims is not None:
        request.principal = Principal(subject="ann", scheme="jwt", scopes=frozenset(), claims=claims)
    return Call(request, b"GET", b"/", Headers(), b"", None, 1.0, idempotent=True)


async def ours(_call: Call) -> Reply:
    return Reply(200, Headers(), b"ours")


async def theirs(_call: Call) -> Reply:
    return Reply(200, Headers(), b"theirs")


@pytest.mark.parametrize(
    ("claims", "body"),
    [
        ({"beta": True}, b"theirs"),
        ({"beta": False}, b"ours"),
        ({"teams": ["a", "qa"]}, b"theirs"),
        ({"teams": ["a"]}, b"ours"),
        ({}, b"ours"),
        (None, b"ours"),
    ],
)
async def test_callers_with_a_claim_are_sent_there(claims: dict[str, Any] | None, body: bytes) -> None:
    settings = CanarySettings(service="next", claims={"beta": True, "teams": ["qa", "dev"]})
    reply = await Canary(settings, theirs).wrap(ours)(call(claims))
    assert reply.body == body


@pytest.mark.parametrize(("percent", "body"), [(0.0, b"ours"), (100.0, b"theirs")])
@pytest.mark.parametrize("key", [None, "{claims.sub}", "address"])
async def test_nobody_or_everybody(percent: float, body: bytes, key: str | None) -> None:
    canary = Canary(CanarySettings(service="next", percent=percent, key=key), theirs)
    for claims in ({"sub": "ann"}, None):
        assert (await canary.wrap(ours)(call(claims))).body == body
