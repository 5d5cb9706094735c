"""So many calls of a service at once, and no more."""

import json
import socket
import threading
import time

import pytest
from tests.resilience.conftest import Start, Told, ask, eventually, holds
from tests.testbeds.gateway import Gateway
from tests.testbeds.wire import Client


@pytest.fixture
def gateway(start: Start, one: Told) -> Gateway:
    return start(f"""
services:
  tight: {{http: ["http://127.0.0.1:{one.port}"], concurrency: {{limit: 2, queue: 1, wait: 5s}}}}
  strict: {{http: ["http://127.0.0.1:{one.port}"], concurrency: {{limit: 1, queue: 0}}}}
  hasty: {{http: ["http://127.0.0.1:{one.port}"], concurrency: {{limit: 1, queue: 5, wait: 200ms}}}}
  learning: {{http: ["http://127.0.0.1:{one.port}"], concurrency: adaptive}}
defaults: {{public: true, timeout: 8s}}
routes:
  GET /tight: {{call: tight}}
  GET /strict: {{call: strict}}
  GET /hasty: {{call: hasty}}
  GET /learning: {{call: learning}}
""")


class Asking:
    """Requests under way, each in its thread."""

    def __init__(self, gateway: Gateway, line: str, number: int) -> None:
        self.answers: list[tuple[int, bytes]] = []
        self.threads = [threading.Thread(target=self._ask, args=(gateway, line)) for _ in range(number)]
        for thread in self.threads:
            thread.start()

    def join(self) -> list[int]:
        for thread in self.threads:
            thread.join()
        return sorted(status for status, _ in self.answers)

    def _ask(self, gateway: Gateway, line: str) -> None:
        status, _, body = ask(gateway, line)
        self.answers.append((status, body))


def state(gateway: Gateway, service: str, which: str) -> float:
    return gateway.metrics()[f'castlegate_concurrency_calls{{service="{service}",state="{which}"}}']


def test_beyond_the_limit_one_waits_and_the_next_is_refused(gateway: Gateway, one: Told) -> None:
    release = threading.Event()
    one.otherwise = holds(release)
    asking = Asking(gateway, "GET /tight", 4)
    eventually(lambda: len(asking.answers) == 1)
    status, body = asking.answers[0]
    assert (status, json.loads(body)["outcome"]) == (503, "not_sent")
    eventually(lambda: len(one.seen) == 2)
    assert (state(gateway, "tight", "under_way"), state(gateway, "tight", "waiting")) == (2, 1)
    release.set()
    assert asking.join() == [200, 200, 200, 503]
    eventually(lambda: state(gateway, "tight", "under_way") == 0)


def test_who_has_waited_long_enough_is_refused(gateway: Gateway, one: Told) -> None:
    release = threading.Event()
    one.otherwise = holds(release)
    asking = Asking(gateway, "GET /hasty", 3)
    eventually(lambda: len(asking.answers) == 2)
    assert [json.loads(body)["type"] for _, body in asking.answers] == ["urn:castlegate:saturated"] * 2
    release.set()
    assert asking.join() == [200, 503, 503]


def test_a_call_is_under_way_until_its_body_has_ended(gateway: Gateway, one: Told) -> None:
    release = threading.Event()

    def in_two_parts(connection: socket.socket, _request: bytes) -> bool:
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nha")
        release.wait(10)
        connection.sendall(b"lf")
        return True

    one.todo.append(in_two_parts)
    with Client(gateway.port) as client:
        client.send(b"GET /strict HTTP/1.1\r\nHost: h\r\n\r\n").read_until(b"ha")
        assert ask(gateway, "GET /strict")[0] == 503
        release.set()
        client.read_until(b"lf")
    eventually(lambda: ask(gateway, "GET /strict")[0] == 200)


def test_a_client_that_leaves_gives_its_place_back(gateway: Gateway, one: Told) -> None:
    release = threading.Event()

    def endless(connection: socket.socket, _request: bytes) -> bool:
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\npart")
        release.wait(10)
        return False

    one.todo.append(endless)
    with Client(gateway.port) as client:
        client.send(b"GET /strict HTTP/1.1\r\nHost: h\r\n\r\n").read_until(b"part")
    eventually(lambda: ask(gateway, "GET /strict")[0] == 200)
    release.set()


def test_who_leaves_while_waiting_is_not_sent(gateway: Gateway, one: Told) -> None:
    release = threading.Event()
    one.otherwise = holds(release)
    asking = Asking(gateway, "GET /tight", 2)
    eventually(lambda: len(one.seen) == 2)
    with Client(gateway.port) as client:
        client.send(b"GET /tight HTTP/1.1\r\nHost: h\r\n\r\n")
        eventually(lambda: state(gateway, "tight", "waiting") == 1)
    eventually(lambda: state(gateway, "tight", "waiting") == 0)
    release.set()
    assert asking.join() == [200, 200]
    assert len(one.seen) == 2


def test_an_adaptive_limit_finds_what_a_service_can_do_at_once(gateway: Gateway, one: Told) -> None:
    """A service that can do four things at once, each in 10 ms."""
    places = threading.Semaphore(4)

    def work(connection: socket.socket, _request: bytes) -> bool:
        with places:
            time.sleep(0.01)
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        return True

    one.otherwise = work
    until = time.monotonic() + 4
    refused = 0

    def keep_asking() -> None:
        nonlocal refused
        with Client(gateway.port) as client:
            while time.monotonic() < until:
                refused += client.send(b"GET /learning HTTP/1.1\r\nHost: h\r\n\r\n").read_answer()[0] == 503

    threads = [threading.Thread(target=keep_asking) for _ in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 8 <= state(gateway, "learning", "limit") < 36
    assert refused > 0


def test_when_a_reload_takes_a_limit_away_nothing_is_told_of_it(gateway: Gateway) -> None:
    assert state(gateway, "tight", "limit") == 2
    gateway.rewrite(gateway.path.read_text().replace(", concurrency: {limit: 2, queue: 1, wait: 5s}", ""))
    assert gateway.order("/reload")[0] == 200
    assert [state(gateway, "tight", which) for which in ("limit", "under_way", "waiting")] == [0, 0, 0]
    assert state(gateway, "strict", "limit") == 1
