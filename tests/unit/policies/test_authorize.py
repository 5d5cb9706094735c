"""What callers may do, and what those are told who may not."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from castlegate.config.report import Report
from castlegate.headers import Headers
from castlegate.message import Request, Response
from castlegate.policies.authorize import AnyScope, Authorization, Authorize, authorize
from castlegate.policies.named import NamedPolicy
from castlegate.policies.policy import Site
from castlegate.principal import Principal
from castlegate.routing.template import parse_key
from castlegate.telemetry.exposition import render
from castlegate.telemetry.metrics import Registry
from castlegate.telemetry.trace import Trace

POLICIES = {
    "owner": "path.user == principal.subject",
    "secret-plan": "principal.claims.plan == 'gold'",
    "near": "client.inNetwork('10.0.0.0/8')",
}
CHALLENGES = {"tokens": 'Bearer realm="api"', "bare": "Bearer", "certificates": ""}


class Rig:
    """A policy around a handler that answers 200."""

    def __init__(self, **settings: Any) -> None:
        self.registry = Registry()
        schemes: Any = {name: SimpleNamespace(challenge=challenge) for name, challenge in CHALLENGES.items()}
        rules = {name: NamedPolicy(allow=text).rule() for name, text in POLICIES.items()}
        place, means = Report(Path()).place("routes", "GET /users/{user}"), SimpleNamespace(registry=self.registry)
        key: Any = parse_key("GET /users/{user}", place)
        site = Site("GET /users/{user}", key, key.scope(), place, 0, schemes, means, rules)  # type: ignore[arg-type]
        self.policy = authorize(Authorization(**settings), site)

    async def ask(self, principal: Principal | None, client: str = "10.0.0.1", query: bytes = b"") -> Response:
        fields, trace = Headers(), Trace(b"", None)
        request = Request(b"1", trace, client, b"http", b"x", b"GET", b"/users/ann", query, fields, b"", math.inf)
        request.params = {"user": "ann"}
        request.principal = principal
        assert isinstance(self.policy, Authorize)
        return await self.policy.wrap(answer)(request)


async def answer(_request: Request) -> Response:
    await asyncio.sleep(0)
    return Response(200)


def caller(*scopes: str, scheme: str = "tokens", subject: str = "ann", **claims: Any) -> Principal:
    return Principal(subject=subject, scheme=scheme, scopes=frozenset(scopes), claims=claims)


def told(response: Response) -> str:
    assert isinstance(response.body, bytes)
    detail: str = msgspec.json.decode(response.body)["detail"]
    return detail


def test_a_route_that_asks_for_nothing_has_no_policy() -> None:
    assert Rig().policy is None
    assert Rig(scopes=[], claims={}, policy=[]).policy is None


@pytest.mark.parametrize(
    ("settings", "principal", "status"),
    [
        ({"scopes": ["a", "b"]}, caller("a", "b", "c"), 200),
        ({"scopes": ["a", "b"]}, caller("a"), 403),
        ({"scopes": ["a"]}, caller("A"), 403),
        ({"scopes": AnyScope(any=["a", "b"])}, caller("b"), 200),
        ({"scopes": AnyScope(any=["a", "b"])}, caller("c"), 403),
        ({"claims": {"tenant": "acme"}}, caller(tenant="acme"), 200),
        ({"claims": {"tenant": "acme"}}, caller(tenant="other"), 403),
        ({"claims": {"tenant": "acme"}}, caller(), 403),
        ({"claims": {"tenant": "acme"}}, caller(tenant=None), 403),
        ({"claims": {"tenant": "acme"}}, caller(tenant={"acme": 1}), 403),
        ({"claims": {"tenant": ["acme", "other"]}}, caller(tenant="other"), 200),
        ({"claims": {"roles": ["admin", "editor"]}}, caller(roles=["author", "editor"]), 200),
        ({"claims": {"roles": ["admin", "editor"]}}, caller(roles=["author", ["editor"], None]), 403),
        ({"claims": {"realm_access.roles": "admin"}}, caller(realm_access={"roles": ["admin"]}), 200),
        ({"claims": {"realm_access.roles": "admin"}}, caller(**{"realm_access.roles": "admin"}), 403),
        ({"claims": {"https://example.com/plan": "gold"}}, caller(**{"https://example.com/plan": "gold"}), 200),
        ({"claims": {"email_verified": True}}, caller(email_verified=True), 200),
        ({"claims": {"email_verified": True}}, caller(email_verified=1), 403),
        ({"claims": {"email_verified": True}}, caller(email_verified="true"), 403),
        ({"claims": {"level": 1}}, caller(level=True), 403),
        ({"claims": {"a": 1, "b": 2}}, caller(a=1, b=2), 200),
        ({"claims": {"a": 1, "b": 2}}, caller(a=1), 403),
        ({"policy": "owner"}, caller(), 200),
        ({"policy": "owner"}, caller(subject="bob"), 403),
        ({"policy": ["owner", "near"]}, caller(), 200),
        ({"policy": ["near", "owner"]}, caller(subject="bob"), 403),
        ({"policy": "secret-plan"}, caller(), 403),
        ({"policy": "secret-plan"}, caller(plan=["gold"]), 403),
        ({"scopes": ["a"], "claims": {"b": 1}, "policy": "owner"}, caller("a", b=1), 200),
        ({"scopes": ["a"], "claims": {"b": 1}, "policy": "owner"}, caller("a", b=1, subject="bob"), 403),
        ({"scopes": ["a"], "claims": {"b": 1}, "policy": "owner"}, caller("a"), 403),
        ({"scopes": ["a"], "claims": {"b": 1}, "policy": "owner"}, caller(b=1), 403),
        ({"policy": "near"}, None, 200),
        ({"policy": "owner"}, None, 403),
        ({"scopes": ["a"]}, None, 401),
        ({"scopes": AnyScope(any=["a"])}, None, 401),
        ({"claims": {"b": 1}}, None, 401),
    ],
)
async def test_who_is_let_through(settings: dict[str, Any], principal: Principal | None, status: int) -> None:
    assert (await Rig(**settings).ask(principal)).status == status


@pytest.mark.parametrize(
    ("settings", "principal", "challenge", "detail"),
    [
        (
            {"scopes": ["a", "b", "c"]},
            caller("b"),
            b'Bearer realm="api", error="insufficient_scope", scope="a b c"',
            "The scopes a and c are missing.",
        ),
        (
            {"scopes": ["a"]},
            caller(scheme="bare"),
            b'Bearer error="insufficient_scope", scope="a"',
            "The scope a is missing.",
        ),
        ({"scopes": ["a"]}, caller(scheme="certificates"), None, "The scope a is missing."),
        (
            {"scopes": AnyScope(any=["b", "a"])},
            caller(),
            b'Bearer realm="api", error="insufficient_scope", scope="b a"',
            "One of the scopes a or b is needed.",
        ),
        (
            {"claims": {"tenant": "acme", "plan": "gold"}},
            caller(plan="gold"),
            b'Bearer realm="api", error="insufficient_scope"',
            "The claim tenant is missing, or not as needed.",
        ),
        ({"policy": "secret-plan"}, caller(plan="tin"), None, "It is not allowed to you, or not in this way."),
        ({"policy": "secret-plan"}, caller(), None, "It is not allowed to you, or not in this way."),
    ],
)
async def test_what_is_missing_is_told_and_nothing_of_policies(
    settings: dict[str, Any], principal: Principal, challenge: bytes | None, detail: str
) -> None:
    response = await Rig(**settings).ask(principal)
    assert response.status == 403
    assert response.headers.get(b"www-authenticate") == challenge
    assert told(response) == detail
    assert isinstance(response.body, bytes)
    assert b"acme" not in response.body
    assert b"plan" not in response.body
    assert b"gold" not in response.body


async def test_refusals_are_counted_by_what_refused_and_whether_it_could_be_decided() -> None:
    rig = Rig(scopes=["a"], policy=["secret-plan"])
    for principal in (caller(), caller("a", plan="tin"), caller("a")):
        await rig.ask(principal)
    route = 'castlegate_denied_total{route="GET /users/{user}",'
    lines = [line.removeprefix(route) for line in render(rig.registry).splitlines() if line.startswith(route)]
    assert sorted(lines) == [
        'by="policy secret-plan",because="false"} 1',
        'by="policy secret-plan",because="undecided"} 1',
        'by="scopes",because="false"} 1',
    ]
