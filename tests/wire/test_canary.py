"""A share of the calls goes to another service; copies of calls go to one whose answers nobody gets."""

import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
from tests.testbeds.gateway import Gateway
from tests.testbeds.processes import free_port
from tests.testbeds.wire import Client, Origin, answer
from tests.wire.conftest import Start


def named(name: bytes) -> Callable[[socket.socket, bytes], bool]:
    return answer(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n" + name)


def config(origin: Origin, other: int, said: str) -> str:
    return f"""
services:
  users: {{http: ["http://127.0.0.1:{origin.port}"], {said}}}
  next: {{http: {{instances: ["http://127.0.0.1:{other}"], pool: {{connections: 2}}}}}}
defaults: {{public: true}}
routes: {{"ANY /a/{{id}}": {{call: users}}}}
"""


def who(gateway: Gateway, times: int, target: str = "/a/x", fields: str = "") -> Counter[str]:
    asked: Counter[str] = Counter()
    with Client(gateway.port) as client:
        for _ in range(times):
            status, _, body = client.send(f"GET {target} HTTP/1.1\r\nHost: h\r\n{fields}\r\n".encode()).read_answer()
            assert status == 200
            asked[body.decode()] += 1
    return asked


def counted(gateway: Gateway, result: str, at_least: int = 1) -> float:
    name = f'castlegate_mirrored_total{{service="users",result="{result}"}}'
    end = time.monotonic() + 5
    while (count := gateway.metrics().get(name, 0)) < at_least and time.monotonic() < end:
        time.sleep(0.01)
    return count


@pytest.fixture
def new() -> Iterator[Origin]:
    with Origin(named(b"n")) as new:
        yield new


@pytest.fixture(autouse=True)
def old(origin: Origin) -> Origin:
    origin.script = named(b"o")
    return origin


def test_a_share_of_the_calls_goes_to_the_new_version(start: Start, old: Origin, new: Origin) -> None:
    asked = who(start(config(old, new.port, "canary: {service: next, percent: 30}")), 300)
    assert 50 < asked["n"] < 130  # five standard deviations on either side of 90


def test_who_was_sent_there_stays_there_and_when_the_share_grows(start: Start, old: Origin, new: Origin) -> None:
    def sent(percent: int) -> set[int]:
        canary = f'canary: {{service: next, percent: {percent}, key: "{{path.id}}"}}'
        gateway = start(config(old, new.port, canary))
        first = {number for number in range(60) if who(gateway, 1, f"/a/{number}")["n"]}
        assert first == {number for number in range(60) if who(gateway, 1, f"/a/{number}")["n"]}
        return first

    some, more = sent(20), sent(60)
    assert some < more


def test_a_field_sends_a_request_there(start: Start, old: Origin, new: Origin) -> None:
    gateway = start(config(old, new.port, 'canary: {service: next, headers: {X-Canary: "yes"}}'))
    assert who(gateway, 5, fields="x-canary: yes\r\n") == {"n": 5}
    assert who(gateway, 5, fields="x-canary: no\r\n") == {"o": 5}
    assert who(gateway, 5) == {"o": 5}


def test_the_shadow_gets_a_copy_and_the_client_the_answer(start: Start, old: Origin, new: Origin) -> None:
    gateway = start(config(old, new.port, "mirror: {service: next, methods: [GET, POST]}"))
    with Client(gateway.port) as client:
        post = b"POST /a/x?y=1 HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nX-A: b\r\n\r\nhi"
        assert client.send(post).read_answer()[2] == b"o"
    assert counted(gateway, "answered") == 1
    (copied,), (sent,) = new.seen, old.seen
    assert copied.replace(b":%d\r\n" % new.port, b":%d\r\n" % old.port) == sent


def test_unsafe_methods_are_copied_only_where_they_are_named(start: Start, old: Origin, new: Origin) -> None:
    gateway = start(config(old, new.port, "mirror: {service: next}"))
    with Client(gateway.port) as client:
        client.send(b"DELETE /a/x HTTP/1.1\r\nHost: h\r\n\r\n").read_answer()
    assert who(gateway, 1) == {"o": 1}
    assert counted(gateway, "answered") == 1
    assert [request.split(b" ")[0] for request in new.seen] == [b"GET"]


def test_a_shadow_that_is_not_there_is_counted_and_nothing_else(start: Start, old: Origin) -> None:
    gateway = start(config(old, free_port(), "mirror: {service: next}"))
    assert who(gateway, 5) == {"o": 5}
    assert counted(gateway, "connect", 5) == 5


def test_a_shadow_that_hangs_takes_no_more_than_it_may_and_delays_nobody(
    start: Start, old: Origin, new: Origin
) -> None:
    ends = threading.Event()

    def hang(_connection: socket.socket, _request: bytes) -> bool:
        ends.wait(10)
        return False

    new.script = hang
    gateway = start(config(old, new.port, "mirror: {service: next, concurrency: 2, timeout: 400ms}"))
    began = time.monotonic()
    assert who(gateway, 20) == {"o": 20}
    assert time.monotonic() - began < 5
    assert counted(gateway, "dropped", 10) >= 10
    assert counted(gateway, "timeout", 2) >= 2
    ends.set()


def test_a_shadow_that_answers_without_end_is_cut(start: Start, old: Origin, new: Origin) -> None:
    def endless(connection: socket.socket, _request: bytes) -> bool:
        connection.sendall(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        while True:
            connection.sendall(b"1000\r\n" + b"x" * 4096 + b"\r\n")

    new.script = endless
    gateway = start(config(old, new.port, "mirror: {service: next}"))
    assert who(gateway, 1) == {"o": 1}
    assert counted(gateway, "answered") == 1


def test_a_large_body_is_not_copied(start: Start, old: Origin, new: Origin) -> None:
    gateway = start(config(old, new.port, "mirror: {service: next, methods: [POST], body: 10B}"))
    with Client(gateway.port) as client:
        assert (
            client.send(b"POST /a/x HTTP/1.1\r\nHost: h\r\nContent-Length: 11\r\n\r\n" + b"x" * 11).read_answer()[2]
            == b"o"
        )
    assert counted(gateway, "too_large") == 1
    assert new.seen == []
