"""Limits that several instances count together in a real Redis, which is killed, stopped and started anew."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.testbeds.certificates import Authority
from tests.testbeds.gateway import Gateway
from tests.testbeds.redis import RedisServer
from tests.testbeds.relay import Relay
from tests.testbeds.wire import Client, Origin

PASSWORD = "hunter2-hunter2"
GET = b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n"

Start = Callable[..., Gateway]


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path) as server:
        yield server


@pytest.fixture
def start(tmp_path: Path, origin: Origin) -> Iterator[Start]:
    """Starts an instance whose limits are in Redis."""
    started: list[Gateway] = []

    def begin(store: str, route: str = "limit: 50/h", more: str = "", env: dict[str, str] | None = None) -> Gateway:
        folder = tmp_path / f"instance-{len(started)}"
        folder.mkdir()
        text = f"""
{more}
limit_store: {{store: redis, {store}}}
services: {{origin: {{http: ["http://127.0.0.1:{origin.port}"]}}}}
defaults: {{public: true}}
routes: {{GET /x: {{call: origin, {route}}}}}
"""
        started.append(Gateway(folder, text, env))
        return started[-1]

    yield begin
    for gateway in started:
        gateway.stop()


def statuses(gateway: Gateway, times: int = 1) -> list[int]:
    with Client(gateway.port) as client:
        return [client.send(GET).read_answer()[0] for _ in range(times)]


def up(gateway: Gateway, workers: int = 1) -> None:
    gateway.program.wait_until(lambda: gateway.metrics()["castlegate_limit_store_up"] == workers, "Redis to be reached")


def load(gateways: list[Gateway], times: int) -> list[int]:
    """What clients of all of them are answered at once."""
    found: list[int] = []
    threads = [
        threading.Thread(target=lambda gateway=gateway: found.extend(statuses(gateway, times)))
        for gateway in gateways
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sorted(found)


def test_instances_admit_exactly_the_limit_together(redis: RedisServer, start: Start) -> None:
    store = f'url: "{redis.url}", timeout: 5s'
    gateways = [start(store, "limit: 200/h", "workers: 2"), start(store, "limit: 200/h")]
    up(gateways[0], 2)
    up(gateways[1])
    assert load(gateways, 50) == [200] * 200 + [429] * 200
    with Client(gateways[1].port) as client:
        status, fields, _ = client.send(GET).read_answer()
        assert (status, fields["ratelimit"]) == (429, f'"address";r=0;t={fields["retry-after"]}')
        assert 10 <= int(fields["retry-after"]) <= 18


def test_quotas_and_rates_are_counted_by_all_or_by_none(redis: RedisServer, start: Start) -> None:
    route = "limit: {rate: 5/h, name: rate}, quota: {daily: 3, monthly: 100, per: address}"
    gateways = [start(f'url: "{redis.url}", timeout: 5s', route) for _ in range(2)]
    for gateway in gateways:
        up(gateway)
    assert load(gateways, 2) == [200] * 3 + [429] * 13
    with Client(gateways[0].port) as client:
        status, fields, body = client.send(GET).read_answer()
        assert (status, b"quota" in body) == (429, True)
        assert fields["ratelimit-policy"] == '"rate";q=5;w=3600, "daily";q=3;w=86400, "monthly";q=100'


def test_who_waits_as_long_as_told_is_admitted(redis: RedisServer, start: Start) -> None:
    gateway = start(f'url: "{redis.url}", timeout: 5s', "limit: {rate: 1/s, burst: 1}")
    up(gateway)
    found = statuses(gateway, 2)
    while found[-1] == 200 and len(found) < 100:  # on a busy machine the second may be due when it comes
        found += statuses(gateway, 1)
    assert found[-1] == 429
    time.sleep(1)
    assert statuses(gateway, 1) == [200]


def test_lost_in_the_middle_of_load_each_instance_counts_for_itself(
    redis: RedisServer, start: Start, tmp_path: Path
) -> None:
    gateway = start(f'url: "{redis.url}", lost: local, timeout: 5s')
    up(gateway)
    killer = threading.Thread(target=redis.kill)
    killer.start()
    found = load([gateway], 60)
    killer.join()
    found += load([gateway], 60)
    assert set(found) == {200, 429}
    # What Redis admitted before its end, and what the instance's own memory did afterwards.
    assert 50 <= found.count(200) <= 100
    assert statuses(gateway, 1) == [429]
    with RedisServer(tmp_path, port=redis.port):
        up(gateway)
        assert load([gateway], 20) == [200] * 50 + [429] * 30, "a Redis that kept nothing"
        assert gateway.metrics()["castlegate_limit_store_failures_total"] >= 1
        gateway.program.wait_for_line("Redis is lost for limits, each instance counts for itself")
        gateway.program.wait_for_line("limits are counted in Redis again")


def test_lost_in_the_middle_of_load_requests_are_refused(redis: RedisServer, start: Start, tmp_path: Path) -> None:
    gateway = start(f'url: "{redis.url}", lost: refuse, timeout: 5s')
    up(gateway)
    killer = threading.Thread(target=redis.kill)
    killer.start()
    found = load([gateway], 60)
    killer.join()
    found += load([gateway], 10)
    assert set(found) <= {200, 429, 503}
    assert found.count(200) <= 50
    with Client(gateway.port) as client:
        began = time.monotonic()
        status, fields, body = client.send(GET).read_answer()
        assert time.monotonic() - began < 1
    assert (status, fields["retry-after"]) == (503, "1")
    assert json.loads(body)["type"] == "urn:castlegate:uncounted"
    with RedisServer(tmp_path, port=redis.port):
        up(gateway)
        assert statuses(gateway, 1) == [200]


def test_one_that_does_not_answer_holds_up_no_more_than_the_first(redis: RedisServer, start: Start) -> None:
    gateway = start(f'url: "{redis.url}", lost: refuse, timeout: 500ms')
    up(gateway)
    redis.freeze()
    began = time.monotonic()
    assert statuses(gateway, 1) == [503]
    assert time.monotonic() - began >= 0.5
    began = time.monotonic()
    assert load([gateway], 20) == [503] * 80
    assert time.monotonic() - began < 80 * 0.5 / 4
    redis.thaw()
    up(gateway)
    assert statuses(gateway, 1) == [200]


def test_one_that_is_slow_holds_up_nobody_for_longer_than_the_timeout(redis: RedisServer, start: Start) -> None:
    with Relay(redis.port) as relay:
        url = f'url: "redis://127.0.0.1:{relay.port}", connections: 1'
        gateway = start(f"{url}, lost: refuse, timeout: 900ms")
        up(gateway)
        relay.delay_s = 0.3  # each way: in time for one, too late for who waits for it to come back
        with Client(gateway.port) as first, Client(gateway.port) as second:
            first.send(GET)
            time.sleep(0.05)
            began = time.monotonic()
            second.send(GET)
            assert first.read_answer()[0] == 200
            assert second.read_answer()[0] == 503
            assert 0.85 <= time.monotonic() - began < 1.1
        relay.delay_s = 0.0
        gateway.program.wait_until(lambda: statuses(gateway) == [200], "Redis to be quick again")
        assert gateway.metrics()["castlegate_limit_store_failures_total"] == 0
        # With the route's own timeout, which is shorter.
        gateway = start(f"{url}, lost: refuse, timeout: 900ms", "timeout: 200ms, limit: 50/h")
        up(gateway)
        relay.delay_s = 0.3
        began = time.monotonic()
        assert statuses(gateway) == [503]
        assert time.monotonic() - began < 0.5


def test_a_redis_that_is_not_there_yet_is_found_when_it_is(redis: RedisServer, start: Start, tmp_path: Path) -> None:
    redis.kill()
    gateway = start(f'url: "{redis.url}", lost: refuse')
    assert statuses(gateway, 1) == [503]
    with RedisServer(tmp_path, port=redis.port):
        up(gateway)
        assert statuses(gateway, 1) == [200]


def test_password_and_tls_and_no_word_of_them(start: Start, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    with RedisServer(tmp_path, password=PASSWORD, tls=authority.issue("redis")) as redis:
        url = f'url: "rediss://127.0.0.1:{redis.port}", password: "${{REDIS_PASSWORD}}"'
        right = start(f"{url}, ca: {authority.file}, timeout: 5s", env={"REDIS_PASSWORD": PASSWORD})
        up(right)
        assert statuses(right, 1) == [200]
        wrong = start(f"{url}, ca: {authority.file}, timeout: 5s", env={"REDIS_PASSWORD": PASSWORD + "x"})
        wrong.program.wait_for_line("Redis is lost for limits")
        untrusted = start(f"{url}, timeout: 5s", env={"REDIS_PASSWORD": PASSWORD})
        untrusted.program.wait_for_line("Redis is lost for limits.*[Cc]ertificate")
        for gateway in (right, wrong, untrusted):
            assert not any(PASSWORD in line for line in gateway.program.lines)


def test_one_that_takes_nothing_is_lost_until_it_does(redis: RedisServer, start: Start) -> None:
    gateway = start(f"url: '{redis.url}', lost: refuse")
    up(gateway)
    command(redis, "CONFIG SET maxmemory 1")
    assert statuses(gateway) == [503]
    failures = "castlegate_limit_store_failures_total"
    gateway.program.wait_until(lambda: gateway.metrics()[failures] >= 3, "further tries")
    assert statuses(gateway) == [503]
    assert gateway.metrics()["castlegate_limit_store_up"] == 0
    assert "again" not in gateway.program.tail()
    command(redis, "CONFIG SET maxmemory 0")
    up(gateway)
    assert statuses(gateway) == [200]


def command(redis: RedisServer, text: str) -> None:
    with Client(redis.port) as client:
        assert client.send(f"{text}\r\n".encode()).read_until(b"\r\n") == b"+OK\r\n"
