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
  GET /proxies: {{call: origin, addresses: {{allow: [127.0.0.1]}}}}
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
        ("/inside", "10.1.2.3:4567", 200),
        ("/inside", "[2001:db8::1]", 200),
        ("/inside", "[2001:db8::1]:4567", 200),
        ("/denied", "192.0.2.7:4567", 403),
        ("/denied", "[::ffff:192.0.2.7]:4567", 403),
    ],
)  # fmt: skip
def test_only_from_where_it_may_be_called(gateway: Gateway, path: str, address: str, expected: int) -> None:
    assert status(gateway, path, address) == expected


def test_what_a_client_in_front_of_the_proxy_claims_is_not_believed(gateway: Gateway, behind: Origin) -> None:
    assert status(gateway, "/inside", "10.1.2.3, 192.0.2.1") == 403
    assert behind.seen == []


@pytest.mark.parametrize("address", ["unknown", "_hidden", "10.1.2.3x", "fe80::1%eth0", "10.1.2.3:x", "[10.1.2.3"])
def test_whom_a_proxy_hides_does_not_pass_for_the_proxy(gateway: Gateway, behind: Origin, address: str) -> None:
    assert status(gateway, "/proxies", "") == 200
    behind.seen.clear()
    assert status(gateway, "/proxies", address) == 403
    assert behind.seen == []


def test_clients_of_ipv4_are_the_same_on_a_socket_of_ipv6(start: Start, origin: Origin) -> None:
    gateway = start(f"""
listen: {{address: "[::]:0", trusted_proxies: [127.0.0.1]}}
services: {{origin: {{http: ["http://127.0.0.1:{origin.port}"]}}}}
routes: {{GET /x: {{call: origin, public: true, addresses: {{allow: [192.0.2.1]}}}}}}
""")
    assert status(gateway, "/x", "192.0.2.1") == 200
    assert b"\r\nx-forwarded-for: 192.0.2.1, 127.0.0.1\r\n" in origin.seen[0]
