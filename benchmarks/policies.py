"""What a decision costs: microseconds of one in the process, and what a request takes beside the plain route.

python -m benchmarks.policies [--rounds N] [--seconds N] [--json FILE] [--subjects ...]
"""

import json
import math
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from benchmarks.measure import CannotMeasure, Load, measure_all, parse_options, tell_failures
from benchmarks.peers.castlegate import castlegate
from benchmarks.services.origin import origin
from tests.testbeds.tokens import AUDIENCE, ISSUER, Signer, jwks

from castlegate.config.report import Report
from castlegate.headers import Headers
from castlegate.message import Request, Response
from castlegate.policies.authorize import AnyScope, Authorization, authorize
from castlegate.policies.named import NamedPolicy
from castlegate.policies.policy import Site
from castlegate.principal import Principal
from castlegate.routing.template import parse_key
from castlegate.telemetry.metrics import Registry
from castlegate.telemetry.trace import Trace

_SCOPE_US, _POLICY_US = 0.5, 20.0  # the aims
_TIMES = 20_000
_POLICIES = {
    "owner": "principal.subject == path.id || 'admin' in principal.scopes",
    "tenant": "headers['x-tenant'] == principal.claims.tenant && has(principal.claims.email)",
    "roles": "principal.claims.roles.exists(role, role == 'customer')",
    "office": "client.inNetwork('127.0.0.0/8') && now.getHours() >= 0",
}
_ASKED: dict[str, dict[str, Any]] = {
    "all of two scopes": {"scopes": ["orders:read", "orders:write"]},
    "any of two scopes": {"scopes": AnyScope(any=["admin", "orders:write"])},
    "a claim": {"claims": {"tenant": ["acme", "other"]}},
    **{f"policy {name}": {"policy": name} for name in _POLICIES},
}
_ROUTES = {
    "public": "public: true",
    "a token": "auth: idp",
    "scopes": "auth: idp, scopes: [orders:read, orders:write]",
    "scopes and a policy": "auth: idp, scopes: [orders:read], policy: owner",
}


def main() -> int:
    """Run it; 1 if it cannot be run, requests failed, or a decision takes longer than it may."""
    options = parse_options("What scopes, claims and policies cost.")
    decisions = {name: _decision(settings) for name, settings in _ASKED.items()}
    print(f"\n{'one decision, in the process':32} {'us':>8}\n")
    for name, cost in decisions.items():
        print(f"{name:32} {cost:8.2f}")
    try:
        with tempfile.TemporaryDirectory(prefix="castlegate-origin-") as name, origin(Path(name)) as port:
            signer = Signer("ES256", "bench")
            keys = Path(name) / "keys.json"
            keys.write_bytes(jwks(signer))
            variables = {"ORIGIN_PORT": str(port)}
            subjects = [castlegate(_config(keys, access), variables, name=name) for name, access in _ROUTES.items()]
            token = signer.token(sub="7", scope="orders:read orders:write", exp=4_000_000_000).decode()
            medians, _ = measure_all(subjects, Load(["/orders/7"], (64,), tokens=[token]), options, warm_up_s=3)
    except CannotMeasure as error:
        print(error, file=sys.stderr)
        return 1
    plain = medians.get(("public", 64))
    print(f"\n{'CPU us per request, medians':32} {'us':>8} {'more':>8}\n")
    for (name, _), sample in medians.items():
        print(f"{name:32} {sample.cpu_us:8.1f} {'' if plain is None else f'{sample.cpu_us - plain.cpu_us:+8.1f}'}")
    if options.json:
        requests = {name: sample.cpu_us for (name, _), sample in medians.items()}
        options.json.write_text(json.dumps({"decision_us": decisions, "request_us": requests}, indent=2) + "\n")
    slow = [name for name, cost in decisions.items() if cost > (_SCOPE_US if "scopes" in name else _POLICY_US)]
    if slow:
        print(f"slower than they may be: {', '.join(slow)}", file=sys.stderr)
    return tell_failures(medians) or bool(slow)


def _decision(settings: dict[str, Any]) -> float:
    """What the policy adds to the handler that it is around, in microseconds."""
    place, means = Report(Path()).place("routes", "GET /orders/{id}"), SimpleNamespace(registry=Registry())
    key: Any = parse_key("GET /orders/{id}", place)
    rules = {name: NamedPolicy(allow=text).rule() for name, text in _POLICIES.items()}
    site = Site("GET /orders/{id}", key, key.scope(), place, 0, {}, means, rules)  # type: ignore[arg-type]
    policy = authorize(Authorization(**settings), site)
    assert policy is not None
    request, answered = _request(), _nothing()

    def inner(_request: Request) -> Awaitable[Response]:
        return answered

    wrapped = policy.wrap(inner)
    assert wrapped(request) is answered, "it is to let the request pass"
    bare = min(_took(inner, request) for _ in range(5))
    cost = min(_took(wrapped, request) for _ in range(5)) - bare
    answered.close()
    return round(cost, 3)


def _took(handle: Callable[[Request], Any], request: Request) -> float:
    began = time.perf_counter()
    for _ in range(_TIMES):
        handle(request)
    return (time.perf_counter() - began) / _TIMES * 1e6


def _request() -> Request:
    fields = Headers.of([(b"accept", b"*/*"), (b"user-agent", b"bench"), (b"x-tenant", b"acme")])
    made = Request(b"1", Trace(b"", None), "127.0.0.1", b"http", b"h", b"GET", b"/orders/7", b"", fields, b"", math.inf)
    made.params = {"id": "7"}
    made.principal = Principal(
        subject="7",
        scheme="idp",
        scopes=frozenset(("openid", "orders:read", "orders:write")),
        claims={"tenant": "acme", "email": "7@example.com", "roles": ["reviewer", "customer"]},
    )
    return made


async def _nothing() -> Response:
    return Response(200)


def _config(keys: Path, access: str) -> str:
    head = Path(__file__).with_name("gateway_http.yaml").read_text().replace("public: true, ", "")
    auth = f'auth: {{idp: {{jwt: {{issuer: "{ISSUER}", audience: {AUDIENCE}, keys: "{keys}"}}}}}}\n'
    policies = f'policies: {{owner: "{_POLICIES["owner"]}"}}\n'
    return f"{auth}{policies}{head}  GET /orders/{{id}}: {{call: origin, {access}}}\n"


if __name__ == "__main__":
    sys.exit(main())
