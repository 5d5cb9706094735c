"""No other spelling of a path, and no other route, leads past who may call: what is shut stays shut."""

import pytest
from tests.testbeds.gateway import Gateway
from tests.testbeds.wire import Client, Origin
from tests.wire.conftest import Start

CONFIG = """
auth:
  ours: {{jwt: {{issuer: "https://idp.example.com", audience: api, secret: correct-horse-battery-staple-and-more}}}}
services: {{origin: {{http: ["http://127.0.0.1:{port}"]}}}}
routes:
  ANY /admin/{{rest...}}: {{call: origin, auth: ours}}
  GET /{{tenant}}/info: {{call: origin, public: true}}
  ANY /api/{{rest...}}: {{call: origin, auth: ours}}
  GET /api/{{id}}/info: {{call: origin, public: true}}
  GET /files/{{name}}: {{call: origin, public: true}}
  ANY /inside/{{rest...}}: {{call: origin, public: true, addresses: {{allow: [10.0.0.0/8]}}}}
  GET /{{first}}/{{second}}/shown: {{call: origin, public: true}}
  ANY /{{rest...}}: {{call: origin, public: true}}
"""


@pytest.fixture(scope="module")
def gateway(start_shared: Start, shared_origin: Origin) -> Gateway:
    return start_shared(CONFIG.format(port=shared_origin.port))


def ask(gateway: Gateway, path: str, method: str = "GET") -> int:
    with Client(gateway.port) as client:
        return client.send(f"{method} {path} HTTP/1.1\r\nHost: h\r\n\r\n".encode()).read_answer()[0]


@pytest.mark.parametrize(
    "path",
    [
        "/admin%2Fsecret/info", "/admin%2fsecret%2fmore/info", "/api/a%2Fb/info", "/api%2Fa/info", "/admin%3Bx%2Fy/info",
        "/inside%2Fa/b/shown",
    ],
)  # fmt: skip
def test_an_encoded_slash_is_no_way_past_who_may_call(gateway: Gateway, behind: Origin, path: str) -> None:
    """Servers of WSGI and ASGI take it for a plain one: what they see must be what was asked for."""
    assert ask(gateway, path) == 400
    assert behind.seen == []


def test_an_encoded_slash_stays_where_it_leads_to_nothing_that_is_shut(gateway: Gateway, behind: Origin) -> None:
    for path in ("/files/a%2Fb", "/shop%2Fa/info", "/api/a/info"):
        assert ask(gateway, path) == 200, path
    assert len(behind.seen) == 3


HALF_SHUT = """
auth: {{ours: {{jwt: {{issuer: "https://idp.example.com", audience: api, secret: correct-horse-battery-staple-and-more}}}}}}
services: {{origin: {{http: ["http://127.0.0.1:{port}"]}}}}
defaults: {{auth: ours}}
routes:
  GET /orders/{{id}}: {{call: origin}}
  ANY /users/{{id}}: {{call: origin}}
  ANY /{{rest...}}: {{call: origin, public: true}}
  ANY www.example.com/{{rest...}}: {{call: origin, public: true}}
"""


def test_a_configuration_that_looks_shut_and_is_not_is_warned_of(start: Start, origin: Origin) -> None:
    gateway = start(HALF_SHUT.format(port=origin.port))
    assert ask(gateway, "/orders/1") == 401
    assert ask(gateway, "/orders/1", "DELETE") == 200
    assert ask(gateway, "http://www.example.com/users/1") == 200
    warnings = gateway.path.with_name("castlegate.log").read_text().split("\n")
    for route, way in (
        ("GET /orders/{id}", "POST, PUT, PATCH and DELETE of this path go to 'ANY /{rest...}', which is open"),
        ("ANY /users/{id}", "on the host www.example.com GET, HEAD, POST, PUT, PATCH and DELETE of this path go to"),
    ):
        assert any(f"route '{route}': {way}" in line for line in warnings), warnings
