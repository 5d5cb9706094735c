"""When a call is tried again, and when it must not be."""

import json
import threading
import time

import pytest
from tests.resilience.conftest import Start, Told, ask, closes, first_does, is_slow, says
from tests.testbeds.gateway import Gateway
from tests.testbeds.processes import free_port


@pytest.fixture(scope="module")
def gateway(start_shared: Start, one: Told, other: Told) -> Gateway:
    first, second = f"http://127.0.0.1:{one.port}", f"http://127.0.0.1:{other.port}"
    nobody = f"http://127.0.0.1:{free_port()}"
    return start_shared(f"""
services:
  plain: {{http: ["{first}"]}}
  pair: {{http: ["{first}", "{second}"], retry: {{tries: 3, status: [503], on: [connect, no_answer, timeout], backoff: 1ms}}}}
  lone: {{http: ["{first}"], retry: {{tries: 3, status: [502, 503], on: [connect, no_answer, reset], backoff: 1ms}}}}
  keyed: {{http: ["{first}"], retry: {{tries: 2, status: [503], idempotency_key: Idempotency-Key, backoff: 1ms}}}}
  quick: {{http: ["{first}", "{second}"], retry: {{per_try: 200ms, tries: 2, backoff: 1ms}}}}
  gets: {{http: ["{first}"], retry: {{status: [503], methods: [GET], backoff: 1ms}}}}
  poor: {{http: ["{first}"], retry: {{tries: 9, status: [503], backoff: 1ms}}, repeats: {{share: 0, least: 0}}}}
  absent: {{http: ["{nobody}", "{first}"], retry: 2, repeats: {{share: 0, least: 0}}}}
defaults: {{public: true, timeout: 2s}}
routes:
  ANY /plain: {{call: plain}}
  ANY /pair: {{call: pair}}
  ANY /lone: {{call: lone}}
  ANY /keyed: {{call: keyed}}
  ANY /quick: {{call: quick}}
  ANY /gets: {{call: gets}}
  ANY /poor: {{call: poor}}
  ANY /absent: {{call: absent}}
  ANY /own: {{call: plain, retry: {{tries: 2, status: [500], backoff: 0ms}}}}
  ANY /once: {{call: lone, retry: 1}}
""")


def retries(gateway: Gateway, service: str, reason: str) -> float:
    return gateway.metrics()[f'castlegate_upstream_retries_total{{service="{service}",reason="{reason}"}}']


def test_without_settings_an_answer_is_an_answer(gateway: Gateway, one: Told) -> None:
    one.todo.append(says(503))
    assert ask(gateway, "GET /plain")[0] == 503
    assert len(one.seen) == 1


def test_without_settings_one_that_had_no_answer_is_sent_once_more(gateway: Gateway, one: Told) -> None:
    one.todo.extend([closes, says(200)])
    assert ask(gateway, "GET /plain")[0] == 200
    one.todo.extend([closes, closes, says(200)])
    status, _, body = ask(gateway, "GET /plain")
    assert (status, json.loads(body)["outcome"]) == (502, "unknown")
    assert len(one.seen) == 4


def test_a_status_is_tried_again_on_another_instance(gateway: Gateway, one: Told, other: Told) -> None:
    first_does(one, other, says(503), says(200))
    assert ask(gateway, "GET /pair")[0] == 200
    assert len(one.seen) == len(other.seen) == 1
    assert retries(gateway, "pair", "status") == 1


def test_the_last_answer_is_passed_on_when_no_try_is_left(gateway: Gateway, one: Told) -> None:
    one.otherwise = says(503, body=b"still not")
    assert ask(gateway, "GET /lone")[::2] == (503, b"still not")
    assert len(one.seen) == 3


@pytest.mark.parametrize("failure", [closes, says(503)], ids=["no answer", "503"])
def test_what_may_have_been_executed_is_not_repeated(gateway: Gateway, one: Told, failure: object) -> None:
    one.todo.append(failure)  # type: ignore[arg-type]
    status = ask(gateway, "POST /lone", body=b"{}")[0]
    assert status in (502, 503)
    assert len(one.seen) == 1


def test_with_a_key_that_the_service_honours_it_is(gateway: Gateway, one: Told) -> None:
    one.todo.extend([says(503), says(201)])
    assert ask(gateway, "POST /keyed", "Idempotency-Key: 7", body=b'{"amount": 1}')[0] == 201
    assert [request.endswith(b'{"amount": 1}') for request in one.seen] == [True, True]
    assert all(b"idempotency-key: 7" in request.lower() for request in one.seen)


def test_and_without_the_key_it_is_not(gateway: Gateway, one: Told) -> None:
    one.todo.append(says(503))
    assert ask(gateway, "POST /keyed", body=b"{}")[0] == 503
    assert len(one.seen) == 1


def test_nor_with_a_key_that_is_empty(gateway: Gateway, one: Told) -> None:
    one.todo.append(says(503))
    assert ask(gateway, "POST /keyed", "Idempotency-Key:", body=b"{}")[0] == 503
    assert len(one.seen) == 1


def test_only_the_methods_that_are_said(gateway: Gateway, one: Told) -> None:
    one.todo.extend([says(503), says(200), says(503)])
    assert ask(gateway, "GET /gets")[0] == 200
    assert ask(gateway, "PUT /gets", body=b"{}")[0] == 503


def test_a_try_that_is_too_slow_gives_way_to_one_elsewhere(gateway: Gateway, one: Told, other: Told) -> None:
    first_does(one, other, is_slow(10), says(200))
    assert ask(gateway, "GET /quick")[0] == 200
    assert len(one.seen) == len(other.seen) == 1
    assert retries(gateway, "quick", "timeout") == 1


def test_one_that_cannot_be_repeated_has_all_the_time(gateway: Gateway, one: Told, other: Told) -> None:
    """A try of its own time limit would only be given up sooner."""
    one.otherwise = other.otherwise = is_slow(0.4)
    assert ask(gateway, "POST /quick", body=b"{}")[0] == 200


def test_a_retry_after_is_waited_for(gateway: Gateway, one: Told) -> None:
    one.todo.extend([says(503, "retry-after: 1\r\n"), says(200)])
    began = time.monotonic()
    assert ask(gateway, "GET /lone")[0] == 200
    assert time.monotonic() - began >= 1


def test_a_retry_after_beyond_the_deadline_is_passed_on(gateway: Gateway, one: Told) -> None:
    one.todo.append(says(503, "retry-after: 30\r\n"))
    status, fields, _ = ask(gateway, "GET /lone")
    assert (status, fields["retry-after"]) == (503, "30")
    assert len(one.seen) == 1


def test_a_route_says_otherwise_than_its_service(gateway: Gateway, one: Told) -> None:
    one.todo.extend([says(500), says(200)])
    assert ask(gateway, "GET /own")[0] == 200
    one.todo.extend([says(503), says(200)])
    assert ask(gateway, "GET /once")[0] == 503


def test_without_budget_nothing_is_repeated(gateway: Gateway, one: Told) -> None:
    one.todo.append(says(503))
    assert ask(gateway, "GET /poor")[0] == 503
    assert gateway.metrics()['castlegate_upstream_repeats_refused_total{service="poor"}'] >= 1


def test_passing_over_an_instance_that_was_not_reached_needs_none(gateway: Gateway) -> None:
    assert [ask(gateway, "POST /absent", body=b"{}")[0] for _ in range(4)] == [200] * 4


def test_a_storm_of_failures_is_not_made_a_multiple(gateway: Gateway, one: Told) -> None:
    """40 clients whose every request fails: three tries each would be 120 at once."""
    one.otherwise = is_slow(0.3, says(503))
    threads = [threading.Thread(target=ask, args=(gateway, "GET /lone")) for _ in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 40 < len(one.seen) <= 40 + 2 * 8


def test_a_client_that_leaves_during_a_pause_ends_the_tries(start: Start, one: Told) -> None:
    from tests.testbeds.wire import Client

    gateway = start(f"""
services: {{s: {{http: ["http://127.0.0.1:{one.port}"], retry: {{tries: 5, status: [503]}}}}}}
defaults: {{public: true}}
routes: {{GET /: {{call: s}}}}
""")
    one.todo.append(says(503, "retry-after: 2\r\n"))
    with Client(gateway.port) as client:
        client.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        gateway.program.wait_until(lambda: len(one.seen) == 1, "the first try")
    gateway.wait_logged(1)
    assert len(one.seen) == 1
