"""A2 and A5: what is no token of the provider is refused, and costs nobody anything; a good one passes right after."""

from collections.abc import Iterator

import pytest
from tests.testbeds.gateway import Gateway
from tests.testbeds.tokens import ISSUER, jwks
from tests.testbeds.wire import Client, Origin, answer
from tests.trust.attacks import ATTACKS, Target
from tests.wire.conftest import Start

pytestmark = pytest.mark.usefixtures("behind")


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[Origin]:
    """A place of the attacker's."""
    with Origin() as elsewhere:
        yield elsewhere


@pytest.fixture(scope="module")
def target(elsewhere: Origin) -> Target:
    return Target(f"http://127.0.0.1:{elsewhere.port}")


@pytest.fixture(scope="module")
def provider(target: Target) -> Iterator[Origin]:
    keys = jwks(*target.published)
    head = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(keys)
    with Origin(answer(head + keys)) as provider:
        yield provider


@pytest.fixture(scope="module")
def gateway(start_shared: Start, shared_origin: Origin, provider: Origin) -> Gateway:
    gateway = start_shared(f"""
auth: {{idp: {{jwt: {{issuer: "{ISSUER}", audience: api, jwks: "http://127.0.0.1:{provider.port}/jwks"}}}}}}
services: {{origin: {{http: ["http://127.0.0.1:{shared_origin.port}"]}}}}
defaults: {{auth: idp}}
routes: {{GET /x: {{call: origin}}}}
""")
    gateway.program.wait_until(lambda: bool(provider.seen), "the keys to be fetched")
    return gateway


def ask(gateway: Gateway, token: bytes) -> tuple[int, dict[str, str], bytes]:
    with Client(gateway.port) as client:
        head = b"GET /x HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\r\n\r\n"
        return client.send(head % token).read_answer()


@pytest.mark.parametrize("name", ATTACKS)
def test_a2_what_is_no_token_of_the_provider_is_refused(
    gateway: Gateway, target: Target, elsewhere: Origin, provider: Origin, behind: Origin, name: str
) -> None:
    token = ATTACKS[name](target)
    status, fields, body = ask(gateway, token)
    assert status == 401, body
    assert fields["www-authenticate"].startswith("Bearer")
    assert len(token) < 16 or token not in body
    assert elsewhere.connections == 0
    assert behind.seen == []
    assert ask(gateway, target.rsa.token())[0] == 200
    assert len(provider.seen) <= 2, "fetched at the start, and once because of unknown keys"


@pytest.mark.parametrize("signer", ["rsa", "ec", "ed"])
def test_a5_good_keys_of_a_set_work_beside_bad_ones(gateway: Gateway, target: Target, signer: str) -> None:
    assert ask(gateway, getattr(target, signer).token())[0] == 200


def test_a5_bad_keys_are_told_once_and_counted(gateway: Gateway) -> None:
    gateway.program.wait_for_line("keys that cannot be used are skipped")
    assert len([line for line in gateway.program.lines if "are skipped" in line]) == 1
    name = 'castlegate_jwks_skipped_keys_total{issuer="%s",reason="%s"}'
    found = gateway.metrics()
    counts = {reason: found[name % (ISSUER, reason)] for reason in ("symmetric", "weak", "twice", "kind", "malformed")}
    assert counts == {"symmetric": 2, "weak": 1, "twice": 2, "kind": 2, "malformed": 1}


def test_a2_many_attacks_on_one_connection_hold_up_nobody(gateway: Gateway, target: Target) -> None:
    tokens = [make(target) for make in ATTACKS.values()]
    with Client(gateway.port, timeout_s=30) as client:
        for token in tokens * 3:
            client.send(b"GET /x HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\r\n\r\n" % token)
            assert client.read_answer()[0] == 401
    lag = (
        gateway.metrics()["castlegate_event_loop_lag_seconds_sum"]
        / gateway.metrics()["castlegate_event_loop_lag_seconds_count"]
    )
    assert lag < 0.1
