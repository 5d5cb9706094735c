"""What browsers are told: CORS, preflights, fields that make them careful."""

import pytest
from tests.testbeds.gateway import Gateway
from tests.testbeds.wire import Client, Origin, answer
from tests.wire.conftest import Start

APP = "https://app.example.com"
DRESSED = (
    b"HTTP/1.1 200 OK\r\nConnection: close\r\nAccess-Control-Allow-Origin: *\r\n"
    b"X-Frame-Options: SAMEORIGIN\r\ncontent-length: 2\r\n\r\nok"
)


@pytest.fixture(scope="module")
def gateway(start_shared: Start, shared_origin: Origin) -> Gateway:
    return start_shared(f"""
services: {{origin: {{http: ["http://127.0.0.1:{shared_origin.port}"]}}}}
defaults: {{public: true, limits: {{body: 100B}}}}
routes:
  GET /plain: {{call: origin}}
  GET /open: {{call: origin, cors: ["*"]}}
  GET /data: &data
    call: origin
    secure: true
    cors:
      origins: [{APP}, "https://*.preview.example.com", "http://localhost:*"]
      credentials: true
      headers: [content-type, X-Tenant]
      expose: [x-total]
      max_age: 5m
      private_network: true
  POST /data: *data
  ANY /any/{{rest...}}: {{call: origin, cors: [{APP}]}}
""")


@pytest.fixture(autouse=True)
def dressed(behind: Origin) -> None:
    """The service has its own opinion of fields for browsers."""
    behind.script = answer(DRESSED)


def ask(
    gateway: Gateway, method: str, path: str, fields: dict[str, str], body: bytes = b""
) -> tuple[int, dict[str, str]]:
    lines = "".join(f"{name}: {value}\r\n" for name, value in {"Host": "shop.example", **fields}.items())
    with Client(gateway.port) as client:
        client.send(f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode() + body)
        status, found, _ = client.read_answer()
        return status, found


def test_a_page_of_an_allowed_origin_may_read_the_answer(gateway: Gateway) -> None:
    _, fields = ask(gateway, "GET", "/data", {"Origin": APP})
    assert fields["access-control-allow-origin"] == APP
    assert fields["access-control-allow-credentials"] == "true"
    assert fields["access-control-expose-headers"] == "x-total"
    assert fields["vary"] == "origin"


ALLOWED = ["https://pr-12.preview.example.com", "http://localhost:5173", "http://localhost"]
REFUSED = [
    "https://evil.example.com",
    "https://app.example.com.evil.com",
    "https://app.example.com:8443",
    "http://app.example.com",
    "https://preview.example.com",
    "https://a.b.preview.example.com",
    "https://evil.com/.preview.example.com",
    "https://evilpreview.example.com",
    "http://localhost:5173.evil.com",
    "http://localhost:x",
    "null",
    "",
]


@pytest.mark.parametrize("origin_of_page", ALLOWED)
def test_patterns_take_one_label_and_any_port(gateway: Gateway, origin_of_page: str) -> None:
    assert ask(gateway, "GET", "/data", {"Origin": origin_of_page})[1]["access-control-allow-origin"] == origin_of_page


@pytest.mark.parametrize("origin_of_page", REFUSED)
def test_other_pages_may_not_read_whatever_the_service_says(gateway: Gateway, origin_of_page: str) -> None:
    status, fields = ask(gateway, "GET", "/data", {"Origin": origin_of_page})
    assert status == 200
    assert not [name for name in fields if name.startswith("access-control-")]
    assert fields["vary"] == "origin"


def test_without_cors_what_the_service_says_stands(gateway: Gateway) -> None:
    assert ask(gateway, "GET", "/plain", {"Origin": APP})[1]["access-control-allow-origin"] == "*"


def test_an_open_route_is_open_to_every_page_but_never_with_credentials(gateway: Gateway) -> None:
    _, fields = ask(gateway, "GET", "/open", {"Origin": "https://any.example"})
    assert fields["access-control-allow-origin"] == "*"
    assert "access-control-allow-credentials" not in fields


def test_a_preflight_is_answered_here_and_never_reaches_the_service(gateway: Gateway, behind: Origin) -> None:
    asked = {
        "Origin": APP,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "x-tenant",
        "Access-Control-Request-Private-Network": "true",
    }
    status, fields = ask(gateway, "OPTIONS", "/data", asked)
    assert status == 204
    assert fields["access-control-allow-origin"] == APP
    assert fields["access-control-allow-methods"] == "POST"
    assert fields["access-control-allow-headers"] == "content-type, x-tenant"
    assert fields["access-control-max-age"] == "300"
    assert fields["access-control-allow-private-network"] == "true"
    assert behind.seen == []


def test_a_preflight_of_another_page_allows_nothing(gateway: Gateway, behind: Origin) -> None:
    asked = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    status, fields = ask(gateway, "OPTIONS", "/data", asked)
    assert status == 204
    assert not [name for name in fields if name.startswith("access-control-")]
    assert behind.seen == []


def test_a_preflight_for_a_method_without_a_route_allows_nothing(gateway: Gateway) -> None:
    status, fields = ask(gateway, "OPTIONS", "/data", {"Origin": APP, "Access-Control-Request-Method": "DELETE"})
    assert status == 405
    assert "access-control-allow-origin" not in fields


def test_a_route_for_any_method_answers_preflights_itself(gateway: Gateway, behind: Origin) -> None:
    asked = {"Origin": APP, "Access-Control-Request-Method": "DELETE"}
    assert ask(gateway, "OPTIONS", "/any/x", asked)[1]["access-control-allow-methods"] == "DELETE"
    assert behind.seen == []


def test_a_refusal_of_the_edge_can_be_read_by_the_page_too(gateway: Gateway) -> None:
    status, fields = ask(gateway, "POST", "/data", {"Origin": APP, "Content-Length": "1000"})
    assert status == 413
    assert fields["access-control-allow-origin"] == APP
    assert fields["x-content-type-options"] == "nosniff"


def test_browsers_are_told_to_be_careful_unless_the_service_says_something_itself(gateway: Gateway) -> None:
    _, fields = ask(gateway, "GET", "/data", {})
    assert fields["x-content-type-options"] == "nosniff"
    assert fields["x-frame-options"] == "SAMEORIGIN"  # the service's own
    assert fields["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert fields["referrer-policy"] == "no-referrer"
    assert "strict-transport-security" not in fields  # over plain HTTP browsers must ignore it (RFC 6797 §8.1)
