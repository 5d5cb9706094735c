"""Limits of who calls: per principal and key, and those that a principal has of its own."""

from __future__ import annotations

import math

from castlegate.calls.roots import PRINCIPAL
from castlegate.config.references import request_scope
from castlegate.config.report import Report
from castlegate.headers import Headers
from castlegate.message import Request, Response
from castlegate.policies.limits.measures import LimitName, OwnRate, Rate
from castlegate.policies.limits.per import key_of
from castlegate.policies.limits.policy import Limit
from castlegate.principal import Principal
from castlegate.rules.gcra import SECOND, Pace
from castlegate.stores.counts import Counts, Layout
from castlegate.telemetry.metrics import Counter
from castlegate.telemetry.trace import Trace

HOUR = 3600 * SECOND


def policy(per: str, *, own: bool = False, number: int = 2) -> Limit:
    scope = request_scope().including(PRINCIPAL)
    limit_name = LimitName(per, key_of(per, scope, Report().place()), ("rate", per), Counter())
    kind = OwnRate if own else Rate
    measure = kind(limit_name, Pace(number, HOUR, number), Counts(Layout(100, 1)))
    return Limit([measure], [], None, {}, refuse_when_lost=False)


async def answer(_request: Request) -> Response:
    return Response(200)


async def ask(limit: Limit, principal: Principal | None) -> Response:
    request = Request(b"1", Trace(b"", None), "-", b"http", b"x", b"GET", b"/", b"", Headers(), b"", math.inf)
    request.principal = principal
    return await limit.wrap(answer)(request)


async def statuses(limit: Limit, times: int, principal: Principal) -> list[int]:
    return [(await ask(limit, principal)).status for _ in range(times)]


def who(subject: str, scheme: str = "keys", credential: str = "", **claims: object) -> Principal:
    return Principal(subject=subject, scheme=scheme, credential=credential, claims=claims)


async def test_principals_are_told_apart_by_scheme_and_subject() -> None:
    limit = policy("principal")
    assert await statuses(limit, 3, who("ann", credential="1")) == [200, 200, 429]
    assert await statuses(limit, 1, who("ann", credential="2")) == [429]
    assert await statuses(limit, 1, who("ann", scheme="jwt")) == [200]
    assert await statuses(limit, 1, who("bob")) == [200]


async def test_keys_are_told_apart_by_credential() -> None:
    limit = policy("key")
    assert await statuses(limit, 3, who("ann", credential="1")) == [200, 200, 429]
    assert await statuses(limit, 1, who("ann", credential="2")) == [200]
    assert await statuses(limit, 3, who("ann")) == [200, 200, 429], "without one, by whom they are"


async def test_claims_are_told_apart() -> None:
    limit = policy("{claims.tenant}")
    assert await statuses(limit, 3, who("ann", tenant="a")) == [200, 200, 429]
    assert await statuses(limit, 2, who("bob", tenant="a")) == [429, 429]
    assert await statuses(limit, 1, who("cid", tenant="b")) == [200]
    assert await statuses(limit, 1, who("dan")) == [400]


async def test_a_principal_may_have_a_limit_of_its_own() -> None:
    limit = policy("principal", own=True)
    assert await statuses(limit, 5, who("ann", limit="4/h")) == [200, 200, 200, 200, 429]
    assert await statuses(limit, 3, who("bob")) == [200, 200, 429]
    refused = await ask(limit, who("ann", limit="4/h"))
    assert refused.headers.get(b"ratelimit-policy") == b'"principal";q=4;w=3600'
    assert refused.headers.get(b"retry-after") == b"900"


async def test_a_limit_of_its_own_that_is_none_is_that_of_the_route() -> None:
    limit = policy("principal", own=True)
    for number, nonsense in enumerate(["", "often", 5, None, ["1/s"], "9" * 100 + "/s"]):
        assert await statuses(limit, 3, who(str(number), limit=nonsense)) == [200, 200, 429]


async def test_a_limit_of_ones_own_is_not_looked_at_unless_the_route_says_so() -> None:
    assert await statuses(policy("principal"), 3, who("ann", limit="100/h")) == [200, 200, 429]
