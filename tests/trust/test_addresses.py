"""From where routes may be called."""

import pytest
from tests.testbeds.gateway import Gateway
from tests.testbeds.wire import Client, Origin
from tests.wire.conftest import Start

pytestmark = pytest.mark.usefixtures("behind")


@pytest.fixture(scope="module")
def gateway(start_shared: Start, shared_origin: Origin) -> Gateway:
    return start_shared(f"""
listen: {{address: "127.0.0.1:0", trusted_proxies: [127.0.0.1]}}
services: {{origin: {{http: ["http://127.0.0.1:{shared_origin.port}"]}}}}
defaults: {{public: true}}
routes:
  GET /inside: {{call: origin, addresses: {{allow: [10.0.0.0/8, "2001:db8::/32"], deny: [10.6.6.0/24]}}}}
  GET /denied: {{call: origin, addresses: {{deny: [192.0.2.7]}}}}
""")


def status(gateway: Gateway, path: str, client_address: str) -> int:
    with Client(gateway.port) as client:
        head = f"GET {path} HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: {client_address}\r\n\r\n"
        return client.send(head.encode()).read_answer()[0]


@pytest.mark.parametrize(
    ("path", "address", "expected"),
    [
        ("/inside", "10.1.2.3", 200),
        ("/inside", "2001:db8::1", 200),
        ("/inside", "::ffff:10.1.2.3", 200),
        ("/inside", "10.6.6.6", 403),
        ("/inside", "192.0.2.1", 403),
        ("/inside", "2001:db9::1", 403),
        ("/denied", "192.0.2.7", 403),
        ("/denied", "::ffff:192.0.2.7", 403),
        ("/denied", "192.0.2.8", 200),
    ],
)  # fmt: skip
def test_only_from_where_it_may_be_called(gateway: Gateway, path: str, address: str, expected: int) -> None:
    assert status(gateway, path, address) == expected


def test_what_a_client_in_front_of_the_proxy_claims_is_not_believed(gateway: Gateway, behind: Origin) -> None:
    assert status(gateway, "/inside", "10.1.2.3, 192.0.2.1") == 403
    assert behind.seen == []
