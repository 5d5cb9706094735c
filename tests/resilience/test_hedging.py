"""A second try of a call that takes longer than most."""

import socket

import pytest
from tests.resilience.conftest import Start, Told, ask, eventually, first_does, is_slow, says
from tests.testbeds.gateway import Gateway
from tests.testbeds.wire import Client, Script


@pytest.fixture(scope="module")
def gateway(start_shared: Start, one: Told, other: Told) -> Gateway:
    first, second = f"http://127.0.0.1:{one.port}", f"http://127.0.0.1:{other.port}"
    return start_shared(f"""
services:
  fixed: {{http: ["{first}", "{second}"], hedge: 50ms, retry: 1}}
  poor: {{http: ["{first}", "{second}"], hedge: 50ms, repeats: {{least: 0, share: 0}}}}
  learning: {{http: ["{first}", "{second}"], hedge: {{percentile: 60}}}}
defaults: {{public: true, timeout: 3s}}
routes:
  ANY /fixed: {{call: fixed}}
  ANY /poor: {{call: poor}}
  ANY /learning: {{call: learning}}
  ANY /own: {{call: fixed, hedge: 2s}}
""")


def hedges(gateway: Gateway, service: str, what: str) -> float:
    return gateway.metrics()[f'castlegate_upstream_hedges_total{{service="{service}",what="{what}"}}']


def hangs(gone: list[bool]) -> Script:
    """Notes when the gateway closes the connection."""

    def script(connection: socket.socket, _request: bytes) -> bool:
        try:
            gone.append(connection.recv(1) == b"")
        except ConnectionResetError:
            gone.append(True)
        return False

    return script


def test_a_slow_instance_gives_way_and_its_connection_is_closed(gateway: Gateway, one: Told, other: Told) -> None:
    gone: list[bool] = []
    first_does(one, other, hangs(gone), says(200))
    assert ask(gateway, "GET /fixed")[0] == 200
    eventually(lambda: gone == [True])
    assert len(one.seen) == len(other.seen) == 1
    assert (hedges(gateway, "fixed", "sent"), hedges(gateway, "fixed", "won")) == (1, 1)


def test_one_that_answers_in_time_is_asked_alone(gateway: Gateway, one: Told, other: Told) -> None:
    before = hedges(gateway, "fixed", "sent")
    assert [ask(gateway, "GET /fixed")[0] for _ in range(6)] == [200] * 6
    assert (len(one.seen) + len(other.seen), hedges(gateway, "fixed", "sent")) == (6, before)


def test_what_is_not_idempotent_is_sent_once(gateway: Gateway, one: Told, other: Told) -> None:
    one.otherwise = other.otherwise = is_slow(0.2)
    assert ask(gateway, "POST /fixed", body=b"{}")[0] == 200
    assert len(one.seen) + len(other.seen) == 1


def test_a_failure_of_the_one_waits_for_the_other(gateway: Gateway, one: Told, other: Told) -> None:
    """The second fails at once: the first, which is slow, is still the answer."""
    first_does(one, other, is_slow(0.3), says(500, body=b"broken"))
    assert ask(gateway, "GET /fixed")[::2] == (200, b"ok")
    assert len(one.seen) == len(other.seen) == 1


def test_when_both_fail_an_answer_is_passed_on(gateway: Gateway, one: Told, other: Told) -> None:
    one.otherwise = other.otherwise = is_slow(0.1, says(503, body=b"both"))
    assert ask(gateway, "GET /fixed")[::2] == (503, b"both")


def test_without_budget_nothing_is_sent_twice(gateway: Gateway, one: Told, other: Told) -> None:
    one.otherwise = other.otherwise = is_slow(0.2)
    assert ask(gateway, "GET /poor")[0] == 200
    assert len(one.seen) + len(other.seen) == 1


def test_a_route_says_otherwise_than_its_service(gateway: Gateway, one: Told, other: Told) -> None:
    one.otherwise = other.otherwise = is_slow(0.3)
    assert ask(gateway, "GET /own")[0] == 200
    assert len(one.seen) + len(other.seen) == 1


def test_the_delay_is_learned_from_what_calls_take(gateway: Gateway, one: Told, other: Told) -> None:
    for _ in range(40):
        assert ask(gateway, "GET /learning")[0] == 200
    first_does(one, other, is_slow(2), says(200))
    assert ask(gateway, "GET /learning")[0] == 200
    assert hedges(gateway, "learning", "won") >= 1


def test_a_client_that_leaves_ends_both(gateway: Gateway, one: Told, other: Told) -> None:
    gone: list[bool] = []
    one.otherwise = other.otherwise = hangs(gone)
    with Client(gateway.port) as client:
        client.send(b"GET /fixed HTTP/1.1\r\nHost: h\r\n\r\n")
        eventually(lambda: len(one.seen) + len(other.seen) == 2)
    eventually(lambda: len(gone) == 2)


def test_a_body_that_is_long_comes_whole_from_the_winner(gateway: Gateway, one: Told, other: Told) -> None:
    body = b"x" * 1_000_000
    first_does(one, other, is_slow(2), says(200, body=body))
    assert ask(gateway, "GET /fixed")[2] == body
