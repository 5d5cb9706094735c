"""A service that fails is left alone for a while, and its callers are told so at once."""

import contextlib
import json
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from tests.resilience.conftest import Start, Told, ask, closes, eventually, is_slow, says
from tests.testbeds.gateway import Gateway
from tests.testbeds.wire import Client

BREAKER = "{least: 4, share: 50, pause: 400ms, longest_pause: 800ms, trials: 2}"


@pytest.fixture
def gateway(start: Start, one: Told, other: Told) -> Gateway:
    first, second = f"http://127.0.0.1:{one.port}", f"http://127.0.0.1:{other.port}"
    return start(f"""
services:
  lone: {{http: ["{first}"], breaker: {BREAKER}, retry: 1}}
  routes: {{http: ["{first}"], retry: 1, breaker: {{per: operation, least: 4, pause: 30s}}}}
  pair:
    http: ["{first}", "{second}"]
    retry: 1
    ejection: off
    breaker: {{per: instance, least: 4, pause: 300ms, longest_pause: 300ms, trials: 2}}
defaults: {{public: true, timeout: 1s}}
routes:
  ANY /lone: {{call: lone}}
  GET /a: {{call: routes}}
  GET /b: {{call: routes}}
  ANY /pair: {{call: pair}}
""")


def gauge(gateway: Gateway, service: str, of: str) -> float:
    return gateway.metrics().get(f'castlegate_breaker_open{{service="{service}",of="{of}"}}', 0.0)


def services(gateway: Gateway) -> dict[str, Any]:
    with urllib.request.urlopen(f"http://127.0.0.1:{gateway.admin}/services", timeout=5) as answer:
        found: dict[str, Any] = json.loads(answer.read())
        return found


def reload(gateway: Gateway, before: str, after: str) -> None:
    text = gateway.path.read_text()
    assert before in text
    gateway.path.write_text(text.replace(before, after))
    request = urllib.request.Request(f"http://127.0.0.1:{gateway.admin}/reload", method="POST")
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.status == 200


def break_it(gateway: Gateway, one: Told) -> None:
    one.otherwise = says(500)
    assert [ask(gateway, "GET /lone")[0] for _ in range(4)] == [500] * 4


def test_while_it_is_open_calls_are_refused_at_once_and_not_sent(gateway: Gateway, one: Told) -> None:
    break_it(gateway, one)
    status, fields, body = ask(gateway, "POST /lone", body=b"{}")
    problem = json.loads(body)
    assert (status, problem["outcome"], problem["type"]) == (503, "not_sent", "urn:castlegate:breaker_open")
    assert int(fields["retry-after"]) >= 1
    assert len(one.seen) == 4
    metrics = gateway.metrics()
    assert services(gateway)["lone"]["open_breakers"] == {"service": 1}
    assert gauge(gateway, "lone", "service") == 1
    assert metrics['castlegate_breaker_opened_total{service="lone",of="service"}'] == 1
    assert metrics['castlegate_breaker_refused_total{service="lone"}'] == 1


@pytest.mark.parametrize("failure", [closes, is_slow(5)], ids=["no answer", "timeout"])
def test_no_answer_is_a_failure(gateway: Gateway, one: Told, failure: object) -> None:
    one.otherwise = failure  # type: ignore[assignment]
    threads = [threading.Thread(target=ask, args=(gateway, "GET /lone")) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ask(gateway, "GET /lone")[0] == 503
    assert len(one.seen) == 4


def begins(connection: Any, _request: bytes) -> bool:
    connection.sendall(b"HTTP/1.1 200 Told\r\ncontent-length: 100\r\n\r\nabc")
    return True


def cuts(connection: Any, request: bytes) -> bool:
    begins(connection, request)
    return False


def leave_after(gateway: Gateway, path: str, piece: bytes) -> None:
    """A client that takes an answer up to some bytes of its body, or as much as there is."""
    with Client(gateway.port) as client:
        client.send(f"GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n".encode())
        with contextlib.suppress(EOFError, ConnectionResetError):
            client.read_until(piece)


def test_an_answer_whose_body_breaks_off_is_a_failure(gateway: Gateway, one: Told) -> None:
    one.otherwise = cuts
    for _ in range(4):
        leave_after(gateway, "/lone", b"nothing like it")
    assert ask(gateway, "GET /lone")[0] == 503


def test_one_whose_client_leaves_is_none(gateway: Gateway, one: Told) -> None:
    one.otherwise = begins
    for _ in range(8):
        leave_after(gateway, "/lone", b"abc")
    one.otherwise = says(200)
    assert [ask(gateway, "GET /lone")[0] for _ in range(4)] == [200] * 4


def test_an_instance_whose_bodies_break_off_is_not_chosen(gateway: Gateway, one: Told, other: Told) -> None:
    one.otherwise = cuts
    for _ in range(40):
        leave_after(gateway, "/pair", b"nothing like it")
        if gauge(gateway, "pair", f"127.0.0.1:{one.port}"):
            return
    pytest.fail("it was never taken out")


def test_what_a_client_does_wrong_is_none(gateway: Gateway, one: Told) -> None:
    one.otherwise = says(404)
    assert [ask(gateway, "GET /lone")[0] for _ in range(8)] == [404] * 8


def test_after_its_pause_it_closes_when_trials_go_well(gateway: Gateway, one: Told) -> None:
    break_it(gateway, one)
    one.otherwise = says(200)
    eventually(lambda: ask(gateway, "GET /lone")[0] == 200)
    eventually(lambda: ask(gateway, "GET /lone")[0] == 200)
    assert [ask(gateway, "GET /lone")[0] for _ in range(5)] == [200] * 5
    eventually(lambda: gauge(gateway, "lone", "service") == 0)


def test_only_so_many_trials_at_once(gateway: Gateway, one: Told) -> None:
    break_it(gateway, one)
    one.seen.clear()
    one.otherwise = is_slow(0.5)
    time.sleep(0.45)  # the pause
    answers: list[int] = []
    threads = [threading.Thread(target=lambda: answers.append(ask(gateway, "GET /lone")[0])) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [200] * 2 + [503] * 4
    assert len(one.seen) == 2


def test_a_trial_that_fails_opens_it_for_longer(gateway: Gateway, one: Told) -> None:
    break_it(gateway, one)
    eventually(lambda: ask(gateway, "GET /lone")[0] == 500)
    began = time.monotonic()
    eventually(lambda: ask(gateway, "GET /lone")[0] == 500)
    assert time.monotonic() - began >= 0.7


def test_a_trial_whose_client_leaves_gives_its_place_back(gateway: Gateway, one: Told) -> None:
    break_it(gateway, one)
    one.seen.clear()
    one.otherwise = is_slow(5)

    def leave() -> None:
        with Client(gateway.port) as client:
            seen = len(one.seen)
            client.send(b"GET /lone HTTP/1.1\r\nHost: h\r\n\r\n")
            eventually(lambda: len(one.seen) > seen)

    time.sleep(0.45)  # the pause
    for _ in range(3):
        leave()
    one.otherwise = says(200)
    eventually(lambda: ask(gateway, "GET /lone")[0] == 200)


def test_each_route_has_its_own_if_that_is_said(gateway: Gateway, one: Told) -> None:
    one.otherwise = lambda connection, request: says(500 if b" /a " in request else 200)(connection, request)
    for _ in range(20):
        ask(gateway, "GET /a")
        ask(gateway, "GET /b")
    assert (ask(gateway, "GET /a")[0], ask(gateway, "GET /b")[0]) == (503, 200)


def test_an_instance_that_fails_is_not_chosen_and_comes_back(gateway: Gateway, one: Told, other: Told) -> None:
    one.otherwise = says(500)
    name = f"127.0.0.1:{one.port}"
    eventually(lambda: ask(gateway, "GET /pair")[0] and gauge(gateway, "pair", name) == 1)
    eventually(lambda: {ask(gateway, "GET /pair")[0] for _ in range(4)} == {200})
    outs = {each["instance"]: each["out"] for each in services(gateway)["pair"]["instances"]}
    assert [out["by"] for out in outs[name]] in (["breaker"], [])  # its pause may be over already
    one.otherwise = says(200)
    eventually(lambda: ask(gateway, "GET /pair")[0] == 200 and gauge(gateway, "pair", name) == 0)
    one.seen.clear()
    assert [ask(gateway, "GET /pair")[0] for _ in range(10)] == [200] * 10
    assert len(one.seen) >= 1


def test_when_no_instance_is_left_calls_are_refused(gateway: Gateway, one: Told, other: Told) -> None:
    one.otherwise = other.otherwise = says(500)
    eventually(lambda: ask(gateway, "GET /pair")[0] == 503)
    status, _, body = ask(gateway, "GET /pair")
    assert status in (500, 503)
    assert status == 500 or json.loads(body)["type"] == "urn:castlegate:breaker_open"


def test_it_stays_open_over_a_reload_that_does_not_change_it(gateway: Gateway, one: Told) -> None:
    one.otherwise = says(500)
    for _ in range(6):
        ask(gateway, "GET /a")
    assert ask(gateway, "GET /a")[0] == 503
    reload(gateway, "timeout: 1s", "timeout: 3s")
    assert ask(gateway, "GET /a")[0] == 503
    assert len(one.seen) < 8


@pytest.mark.parametrize(
    ("route", "of", "before", "after"),
    [
        ("/lone", "service", f"breaker: {BREAKER}, ", ""),
        ("/a", "GET /a", "GET /a: {call: routes}", ""),
    ],
    ids=["the breaker", "the route"],
)
def test_what_a_reload_takes_away_is_no_longer_told_of(
    gateway: Gateway, one: Told, route: str, of: str, before: str, after: str
) -> None:
    service = "lone" if of == "service" else "routes"
    one.otherwise = says(500)
    for _ in range(4):
        ask(gateway, f"GET {route}")
    assert gauge(gateway, service, of) == 1
    reload(gateway, before, after)
    assert gauge(gateway, service, of) == 0
    assert "open_breakers" not in services(gateway).get(service, {})


def test_an_instance_that_goes_is_no_longer_told_of(start: Start, one: Told, other: Told, tmp_path: Path) -> None:
    urls = [f"http://127.0.0.1:{each.port}" for each in (one, other)]
    (tmp_path / "found.json").write_text(json.dumps(urls))
    gateway = start("""
services:
  found: {http: {file: found.json}, retry: 1, ejection: off, breaker: {per: instance, least: 2, pause: 1h, longest_pause: 1h}}
defaults: {public: true, timeout: 1s}
routes: {GET /: {call: found}}
""")
    name = f"127.0.0.1:{one.port}"
    one.otherwise = says(500)
    eventually(lambda: ask(gateway, "GET /")[0] and gauge(gateway, "found", name) == 1)
    (tmp_path / "found.json").write_text(json.dumps(urls[1:]))
    eventually(lambda: gauge(gateway, "found", name) == 0)
    assert "open_breakers" not in services(gateway)["found"]


def test_a_call_that_ends_after_a_reload_without_breakers_takes_nothing_out(
    start: Start, one: Told, other: Told
) -> None:
    breaker = ", breaker: {per: instance, least: 1, pause: 1h, longest_pause: 1h}"
    urls = json.dumps([f"http://127.0.0.1:{each.port}" for each in (one, other)])
    gateway = start(f"""
services: {{pair: {{http: {urls}, retry: 1, ejection: off{breaker}}}}}
defaults: {{public: true, timeout: 8s}}
routes: {{GET /: {{call: pair}}}}
""")
    release = threading.Event()

    def fails_late(connection: Any, request: bytes) -> bool:
        release.wait(8)
        return says(500)(connection, request)

    one.otherwise = fails_late
    threads: list[threading.Thread] = []

    def has_one() -> bool:
        threads.append(threading.Thread(target=ask, args=(gateway, "GET /")))
        threads[-1].start()
        return bool(one.seen)

    eventually(has_one)
    reload(gateway, breaker, "")
    release.set()
    for thread in threads:
        thread.join()
    one.otherwise = says(200)
    one.seen.clear()
    eventually(lambda: ask(gateway, "GET /")[0] == 200 and bool(one.seen))
