"""Who is let through by the real gateway, with tokens that say what they may; and what those are told who are not."""

import json
from typing import Any

import pytest
from tests.testbeds.gateway import Gateway
from tests.testbeds.tokens import AUDIENCE, ISSUER, Signer, jwks
from tests.testbeds.wire import Client, Origin
from tests.wire.conftest import Start

SIGNER = Signer("ES256", "one")
CONFIG = """
auth: {{idp: {{jwt: {{issuer: "{issuer}", audience: "{audience}", keys: "{keys}"}}}}}}
policies:
  owner:
    allow: path.user == principal.subject || 'admin' in principal.scopes
    examples: [{{principal: {{subject: ann}}, path: {{user: ann}}, allow: true}}]
  same-tenant: headers['x-tenant'] == principal.claims.tenant
  no-guest: principal.claims.kind != 'guest'
  here: client.inNetwork('127.0.0.0/8')
  there: client.inNetwork('10.0.0.0/8')
services: {{origin: {{http: ["http://127.0.0.1:{port}"]}}}}
defaults: {{auth: idp, scopes: ["orders:read"]}}
routes:
  GET /read: {{call: origin}}
  GET /write: {{call: origin, scopes: [orders:read, orders:write]}}
  GET /either: {{call: origin, scopes: {{any: [orders:write, admin]}}}}
  GET /anyone: {{call: origin, scopes: []}}
  GET /gold: {{call: origin, claims: {{plan: [gold, platinum], email_verified: true}}}}
  GET /users/{{user}}: {{call: origin, policy: [owner, here]}}
  GET /tenants: {{call: origin, policy: same-tenant}}
  GET /members: {{call: origin, policy: no-guest}}
  GET /here: {{call: origin, public: true, policy: here}}
  GET /there: {{call: origin, public: true, policy: there}}
"""
NOT_ALLOWED = "It is not allowed to you, or not in this way."


@pytest.fixture(scope="module")
def gateway(start_shared: Start, shared_origin: Origin, tmp_path_factory: pytest.TempPathFactory) -> Gateway:
    keys = tmp_path_factory.mktemp("keys") / "keys.json"
    keys.write_bytes(jwks(SIGNER))
    return start_shared(CONFIG.format(issuer=ISSUER, audience=AUDIENCE, keys=keys, port=shared_origin.port))


def ask(gateway: Gateway, path: str, *fields: str, **claims: Any) -> tuple[int, dict[str, str], str]:
    """Status, fields, and the detail of a problem. Without claims, without a token."""
    if claims:
        fields = (*fields, f"Authorization: Bearer {SIGNER.token(**claims).decode()}")
    head = "".join(f"{line}\r\n" for line in (f"GET {path} HTTP/1.1", "Host: x", *fields, ""))
    with Client(gateway.port) as client:
        status, answered, body = client.send(head.encode()).read_answer()
    return status, answered, json.loads(body)["detail"] if status != 200 else ""


@pytest.mark.parametrize(
    ("path", "fields", "claims"),
    [
        ("/read", [], {"scope": "orders:read orders:write"}),
        ("/write", [], {"scope": "orders:read orders:write"}),
        ("/either", [], {"scope": "admin"}),
        ("/anyone", [], {"sub": "ann"}),
        ("/gold", [], {"scope": "orders:read", "plan": "gold", "email_verified": True}),
        ("/users/ann?a=b", [], {"scope": "orders:read", "sub": "ann"}),
        ("/users/bob", [], {"scope": "orders:read admin", "sub": "ann"}),
        ("/users/%61nn", [], {"scope": "orders:read", "sub": "ann"}),
        ("/tenants", ["X-Tenant: acme"], {"scope": "orders:read", "tenant": "acme"}),
        ("/members", [], {"scope": "orders:read", "kind": "member"}),
        ("/here", [], {}),
    ],
)
def test_who_may_is_let_through(
    gateway: Gateway, behind: Origin, path: str, fields: list[str], claims: dict[str, Any]
) -> None:
    assert ask(gateway, path, *fields, **claims)[0] == 200
    assert len(behind.seen) == 1


@pytest.mark.parametrize(
    ("path", "fields", "claims", "detail"),
    [
        ("/read", [], {"scope": "other"}, "The scope orders:read is missing."),
        ("/read", [], {"scope": "orders:readonly ORDERS:READ"}, "The scope orders:read is missing."),
        ("/read", [], {"scope": {"orders:read": True}}, None),
        ("/write", [], {"scope": ""}, "The scopes orders:read and orders:write are missing."),
        ("/either", [], {"scope": "orders:read"}, "One of the scopes admin or orders:write is needed."),
        ("/gold", [], {"scope": "orders:read", "plan": "tin"},
         "The claims plan and email_verified are missing, or not as needed."),
        ("/gold", [], {"scope": "orders:read", "plan": "gold", "email_verified": "true"},
         "The claim email_verified is missing, or not as needed."),
        ("/users/bob", [], {"scope": "orders:read", "sub": "ann"}, NOT_ALLOWED),
        ("/users/ann%20", [], {"scope": "orders:read", "sub": "ann"}, NOT_ALLOWED),
        ("/tenants", ["X-Tenant: other"], {"scope": "orders:read", "tenant": "acme"}, NOT_ALLOWED),
        ("/tenants", ["X-Tenant: acme", "X-Tenant: acme"], {"scope": "orders:read", "tenant": "acme"}, NOT_ALLOWED),
        ("/tenants", ["X-Tenant: acme"], {"scope": "orders:read"}, NOT_ALLOWED),
        ("/tenants", [], {"scope": "orders:read", "tenant": "acme"}, NOT_ALLOWED),
        ("/members", [], {"scope": "orders:read"}, NOT_ALLOWED),
        ("/members", [], {"scope": "orders:read", "kind": "guest"}, NOT_ALLOWED),
        ("/there", [], {}, NOT_ALLOWED),
        ("/there", ["X-Forwarded-For: 10.0.0.1", "Forwarded: for=10.0.0.1"], {}, NOT_ALLOWED),
    ],
)  # fmt: skip
def test_who_may_not_is_told_why_and_reaches_nobody(
    gateway: Gateway, behind: Origin, path: str, fields: list[str], claims: dict[str, Any], detail: str | None
) -> None:
    status, _, told = ask(gateway, path, *fields, **claims)
    assert status == 403 if detail is not None else status in (401, 403)
    assert detail is None or told == detail
    assert not behind.seen


def test_bearers_are_told_which_scope_to_ask_for(gateway: Gateway, behind: Origin) -> None:
    challenge = ask(gateway, "/write", scope="orders:read")[1]["www-authenticate"]
    assert challenge == 'Bearer error="insufficient_scope", scope="orders:read orders:write"'
    assert "www-authenticate" not in ask(gateway, "/users/bob", scope="orders:read", sub="ann")[1]
    status, fields, _ = ask(gateway, "/read")
    assert (status, fields["www-authenticate"]) == (401, "Bearer")
    assert not behind.seen


def test_refusals_are_counted(gateway: Gateway, behind: Origin) -> None:
    def counted() -> list[float]:
        metrics, route = gateway.metrics(), 'castlegate_denied_total{route="GET /members",by="policy no-guest",because='
        return [metrics[f'{route}"false"}}'], metrics[f'{route}"undecided"}}']]

    before = counted()
    for claims in ({"kind": "guest"}, {"kind": "guest"}, {"a": 1}):
        assert ask(gateway, "/members", scope="orders:read", **claims)[0] == 403
    false, undecided = counted()
    assert [false - before[0], undecided - before[1]] == [2, 1]
    assert not behind.seen
