"""Rates, quotas and concurrency through the gateway: who is admitted, how many exactly, and what clients are told."""

import json
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.testbeds.gateway import Gateway
from tests.testbeds.wire import OK, Client, Origin, answer
from tests.trust.conftest import CLOSING


def config(origin: Origin, route: str, more: str = "") -> str:
    return f"""
{more}
services: {{origin: {{http: ["http://127.0.0.1:{origin.port}"]}}}}
defaults: {{public: true}}
routes: {{GET /x: {{call: origin, {route}}}}}
"""


ROUTES = """
services: {{origin: {{http: ["http://127.0.0.1:{port}"]}}}}
defaults: {{public: true, limit: 5/h}}
routes:
  GET /exact: {{call: origin, limit: 20/h}}
  GET /told: {{call: origin, limit: {{rate: 2/min, burst: 3, name: gentle}}}}
  GET /waited: {{call: origin, limit: {{rate: 1/s, burst: 1}}}}
  GET /default: {{call: origin}}
  GET /other: {{call: origin, limit: 2/h}}
  GET /plain: {{call: origin, limit: []}}
  GET /shops/{{id}}/{{item}}: {{call: origin, limit: {{rate: 2/h, per: "{{path.id}}"}}}}
  GET /tenants: {{call: origin, limit: {{rate: 1/h, per: "{{header.x-tenant}}-{{query.q?}}"}}}}
  GET /all: {{call: origin, limit: {{rate: 2/h, per: route}}}}
  GET /a: {{call: origin, limit: {{rate: 3/h, name: both}}}}
  GET /b: {{call: origin, limit: {{rate: 3/h, name: both}}}}
  GET /two: {{call: origin, limit: [{{rate: 5/h, per: route}}, {{rate: 2/h, per: "{{query.who}}"}}]}}
"""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """One with a route for each test that wants no gateway of its own."""
    with Origin(answer(CLOSING)) as origin:
        gateway = Gateway(tmp_path_factory.mktemp("gateway"), ROUTES.format(port=origin.port))
        yield gateway
        gateway.stop()


@pytest.fixture
def client(gateway: Gateway) -> Iterator[Client]:
    with Client(gateway.port) as client:
        yield client


Answer = tuple[int, dict[str, str], bytes]


def ask(client: Client, path: str = "/x", fields: str = "") -> Answer:
    return client.send(f"GET {path} HTTP/1.1\r\nHost: h\r\n{fields}\r\n".encode()).read_answer()


def statuses(client: Client, times: int, path: str = "/x", fields: str = "") -> list[int]:
    return [ask(client, path, fields)[0] for _ in range(times)]


def test_exactly_the_limit_is_admitted(gateway: Gateway, client: Client) -> None:
    with Client(gateway.port) as other:
        assert statuses(client, 15, "/exact") == [200] * 15
        assert statuses(other, 10, "/exact") == [200] * 5 + [429] * 5
    assert gateway.metrics()['castlegate_limited_total{route="GET /exact",limit="address"}'] == 5
    assert gateway.metrics()['castlegate_limit_keys{of="rates"}'] >= 1


def test_clients_are_told_what_is_left_and_when_to_come_back(client: Client) -> None:
    status, fields, _ = ask(client, "/told")
    assert (status, fields["ratelimit-policy"]) == (200, '"gentle";q=2;w=60')
    assert fields["ratelimit"] == '"gentle";r=2;t=30'
    assert [ask(client, "/told")[1]["ratelimit"].split(";")[1] for _ in range(2)] == ["r=1", "r=0"]
    status, fields, body = ask(client, "/told")
    assert status == 429
    assert fields["ratelimit-policy"] == '"gentle";q=2;w=60'
    assert 25 <= int(fields["retry-after"]) <= 30
    assert fields["ratelimit"] == f'"gentle";r=0;t={fields["retry-after"]}'
    problem = json.loads(body)
    assert (problem["type"], problem["status"]) == ("urn:castlegate:limited", 429)
    assert "2 requests in a minute" in problem["detail"]
    assert "ratelimit" not in ask(client, "/plain")[1]


def test_who_waits_as_long_as_told_is_admitted(client: Client) -> None:
    answers = [ask(client, "/waited")]
    while answers[-1][0] == 200 and len(answers) < 100:  # on a busy machine the second may be due when it comes
        answers.append(ask(client, "/waited"))
    status, fields, _ = answers[-1]
    assert (status, fields["retry-after"]) == (429, "1")
    time.sleep(1)
    assert ask(client, "/waited")[0] == 200


def test_addresses_are_those_that_trusted_proxies_vouch_for(tmp_path: Path, origin: Origin) -> None:
    listen = "listen: {address: '127.0.0.1:0', trusted_proxies: [127.0.0.1]}"
    gateway = Gateway(tmp_path, config(origin, "limit: 2/h", listen))
    with Client(gateway.port) as client:
        for address in ("192.0.2.1", "192.0.2.2", "2001:db8:0:1::1"):
            assert statuses(client, 3, fields=f"X-Forwarded-For: {address}\r\n") == [200, 200, 429]
        # Of IPv6 whoever has one address has the 2^64 of its network; an embedded one of IPv4 is that.
        assert statuses(client, 1, fields="X-Forwarded-For: 2001:db8:0:1:ffff::2\r\n") == [429]
        assert statuses(client, 1, fields="X-Forwarded-For: 2001:db8:0:2::1\r\n") == [200]
        assert statuses(client, 1, fields="X-Forwarded-For: ::ffff:192.0.2.1\r\n") == [429]
        # What a client adds in front of the proxy's word is the client's word.
        assert statuses(client, 1, fields="X-Forwarded-For: 203.0.113.9, 192.0.2.1\r\n") == [429]
    gateway.stop()


def test_without_trusted_proxies_a_client_cannot_choose_its_address(tmp_path: Path, origin: Origin) -> None:
    gateway = Gateway(tmp_path, config(origin, "limit: 1/h"))
    with Client(gateway.port) as client:
        assert [ask(client, fields=f"X-Forwarded-For: 192.0.2.{n}\r\n")[0] for n in range(3)] == [200, 429, 429]
    gateway.stop()


def test_limits_are_per_what_the_route_says(client: Client) -> None:
    assert [ask(client, f"/shops/1/{n}")[0] for n in range(3)] == [200, 200, 429]
    assert ask(client, "/shops/2/0")[0] == 200
    assert [ask(client, "/tenants", f"X-Tenant: {who}\r\n")[0] for who in "aab"] == [200, 429, 200]
    assert ask(client, "/tenants")[0] == 400
    assert statuses(client, 3, "/all") == [200, 200, 429]
    assert [ask(client, path)[0] for path in ("/a", "/b", "/a", "/b", "/a")] == [200, 200, 200, 429, 429]


def test_what_one_limit_refuses_no_other_counts(client: Client) -> None:
    assert statuses(client, 10, "/two?who=a") == [200, 200] + [429] * 8
    assert ask(client, "/two")[0] == 400, "the second cannot be judged"
    assert statuses(client, 3, "/two?who=b") == [200, 200, 429]
    status, fields, _ = ask(client, "/two?who=c")
    assert status == 200
    assert re.fullmatch(r'"route";r=0;t=7[12]\d, "limit";r=1;t=1800', fields["ratelimit"])
    # Both refuse it: what is told is when neither would.
    assert 1790 <= int(ask(client, "/two?who=a")[1]["retry-after"]) <= 1800


def test_defaults_hold_where_a_route_says_nothing(client: Client) -> None:
    assert statuses(client, 6, "/default") == [200] * 5 + [429]
    assert statuses(client, 3, "/other") == [200, 200, 429]
    assert statuses(client, 6, "/plain") == [200] * 6


def test_two_workers_admit_exactly_the_limit_together(tmp_path: Path, origin: Origin) -> None:
    gateway = Gateway(tmp_path, config(origin, "limit: 300/day", "workers: 2"))
    found: list[int] = []

    def load() -> None:
        with Client(gateway.port) as client:
            found.extend(statuses(client, 60))

    threads = [threading.Thread(target=load) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [200] * 300 + [429] * 300
    served = [worker["pid"] for worker in gateway.workers()]
    assert len(served) == 2
    gateway.stop()


def test_a_worker_that_dies_takes_no_count_along(tmp_path: Path, origin: Origin) -> None:
    gateway = Gateway(tmp_path, config(origin, "limit: 10/h"))
    with Client(gateway.port) as client:
        assert statuses(client, 8) == [200] * 8
    kill_worker(gateway)
    with Client(gateway.port) as client:
        assert statuses(client, 3) == [200, 200, 429]
    gateway.stop()


def kill_worker(gateway: Gateway, slot: int = 0) -> None:
    """And wait for the next."""
    pid = gateway.workers()[slot]["pid"]
    os.kill(pid, signal.SIGKILL)
    gateway.program.wait_until(lambda: gateway.workers()[slot]["pid"] not in (pid, None), "another worker")
    gateway.program.wait_until(lambda: gateway.workers()[slot]["ready"], "it to serve")


def test_a_reload_keeps_the_counts_of_limits_that_did_not_change(tmp_path: Path, origin: Origin) -> None:
    gateway = Gateway(tmp_path, config(origin, "limit: 3/h"))
    with Client(gateway.port) as client:
        assert statuses(client, 4) == [200, 200, 200, 429]
        gateway.rewrite(config(origin, "limit: 3/h, timeout: 3s"))
        gateway.program.send_signal(signal.SIGHUP)
        gateway.program.wait_until(lambda: gateway.workers()[0]["version"] == 2, "the reload")
        assert statuses(client, 1) == [429]
        gateway.rewrite(config(origin, "limit: 4/h"))
        gateway.program.send_signal(signal.SIGHUP)
        gateway.program.wait_until(lambda: gateway.workers()[0]["version"] == 3, "the reload")
        assert statuses(client, 5) == [200, 200, 200, 200, 429]
    for more in ("limit_store: {entries: 10}", "state: elsewhere"):
        gateway.rewrite(config(origin, "limit: 4/h", more))
        gateway.program.send_signal(signal.SIGHUP)
        name = more.replace(": {", ".").partition(":")[0]
        gateway.program.wait_for_line(f"'{name}' cannot be changed by a reload")
    gateway.stop()


# Concurrency.


class Holding:
    """A service that answers when it is told to."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.arrived = threading.Semaphore(0)

    def __call__(self, connection: socket.socket, _request: bytes) -> bool:
        self.arrived.release()
        self.go_on.wait(10)
        connection.sendall(OK)
        return True


def test_no_more_at_once_than_may_be_and_the_next_when_one_has_ended(tmp_path: Path, origin: Origin) -> None:
    held = origin.script = Holding()
    gateway = Gateway(tmp_path, config(origin, "concurrency: 2", "workers: 2"))
    clients = [Client(gateway.port) for _ in range(2)]
    for client in clients:
        client.send(b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n")
        assert held.arrived.acquire(timeout=5)
    for _ in range(4):  # of either worker
        with Client(gateway.port) as more:
            status, fields, body = ask(more)
        assert (status, fields["retry-after"]) == (503, "1")
        assert json.loads(body)["type"] == "urn:castlegate:crowded"
        assert fields["ratelimit-policy"] == '"concurrency";q=2;qu="concurrent-requests"'
        assert fields["ratelimit"] == '"concurrency";r=0'
    held.go_on.set()
    for client in clients:
        assert client.read_answer()[0] == 200
        client.socket.close()
    wait_for(lambda: asked(gateway) == 200)
    assert gateway.metrics()['castlegate_limited_total{route="GET /x",limit="concurrency"}'] == 4
    gateway.stop()


def asked(gateway: Gateway) -> int:
    with Client(gateway.port) as client:
        return ask(client)[0]


def wait_for(predicate: Any, timeout_s: float = 5.0) -> None:
    end = time.monotonic() + timeout_s
    while not predicate():
        assert time.monotonic() < end
        time.sleep(0.01)


GONE = 'castlegate_requests_total{route="GET /x",status="499"}'


def test_slots_of_clients_that_disappear_are_free_again(tmp_path: Path, origin: Origin) -> None:
    held = origin.script = Holding()
    gateway = Gateway(tmp_path, config(origin, "concurrency: {most: 1, per: address}"))
    for number in range(3):
        with Client(gateway.port) as client:
            client.send(b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n")
            assert held.arrived.acquire(timeout=5)
            assert asked(gateway) == 503
        # The slot is free when the gateway has seen the client's end: the next one is held by the service again.
        gone = number + 1
        wait_for(lambda gone=gone: gateway.metrics().get(GONE) == gone)
    held.go_on.set()
    wait_for(lambda: asked(gateway) == 200)
    gateway.stop()


def test_slots_of_a_worker_that_dies_are_free_again(tmp_path: Path, origin: Origin) -> None:
    held = origin.script = Holding()
    gateway = Gateway(tmp_path, config(origin, "concurrency: 1"))
    with Client(gateway.port) as client:
        client.send(b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n")
        assert held.arrived.acquire(timeout=5)
        kill_worker(gateway)
    held.go_on.set()
    assert asked(gateway) == 200
    gateway.stop()
