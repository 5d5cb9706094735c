"""Limits that several instances count together over a Kafka topic: how far they overshoot, and when Kafka is lost."""

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import msgspec
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from tests.conftest import Broker
from tests.testbeds.gateway import Gateway
from tests.testbeds.wire import Client, Origin

GET = b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n"

Start = Callable[..., Gateway]


@pytest.fixture
def start(tmp_path: Path, origin: Origin) -> Iterator[Start]:
    """Starts an instance whose limits are told over a topic."""
    started: list[Gateway] = []

    def begin(broker: Broker, topic: str, route: str, store: str = "", more: str = "") -> Gateway:
        folder = tmp_path / f"instance-{len(started)}"
        folder.mkdir()
        text = f"""
{more}
kafka: {{bootstrap: "{broker.bootstrap}"}}
limit_store: {{store: kafka, topic: {topic}{store}}}
services: {{origin: {{http: ["http://127.0.0.1:{origin.port}"]}}}}
defaults: {{public: true}}
routes: {{GET /x: {{call: origin, {route}}}}}
"""
        started.append(Gateway(folder, text))
        up(started[-1], 2 if "workers: 2" in more else 1)
        return started[-1]

    yield begin
    for gateway in started:
        gateway.stop()


@pytest.fixture
def topic() -> str:
    return f"limits-{uuid4().hex[:8]}"


def up(gateway: Gateway, workers: int = 1) -> None:
    gateway.program.wait_until(
        lambda: gateway.metrics()["castlegate_limit_store_up"] == workers, "Kafka to be reached", 30
    )


def heard(gateway: Gateway) -> float:
    return gateway.metrics()['castlegate_limit_heard_total{result="ok"}']


def statuses(gateway: Gateway, times: int = 1, request: bytes = GET) -> list[int]:
    with Client(gateway.port) as client:
        return [client.send(request).read_answer()[0] for _ in range(times)]


def in_turns(gateways: list[Gateway], times: int, turns: int) -> list[int]:
    """What clients of one after the other are answered, each when it has heard of what the others have admitted."""
    found: list[int] = []
    admitted = dict.fromkeys(gateways, 0)
    for turn in range(turns):
        gateway = gateways[turn % len(gateways)]
        others = sum(admitted.values()) - admitted[gateway]
        gateway.program.wait_until(lambda: heard(gateway) == others, "news of the others")  # noqa: B023
        answers = statuses(gateway, times)
        admitted[gateway] += answers.count(200)
        found += answers
    return found


def test_what_the_others_have_told_is_subtracted(broker: Broker, topic: str, start: Start) -> None:
    gateways = [start(broker, topic, "limit: 20/h", more=f"workers: {workers}") for workers in (1, 2)]
    assert in_turns(gateways, 6, 6) == [200] * 20 + [429] * 16
    with Client(gateways[0].port) as client:
        status, fields, _ = client.send(GET).read_answer()
    assert (status, fields["ratelimit"]) == (429, f'"address";r=0;t={fields["retry-after"]}')


def test_instances_overshoot_by_no_more_than_what_comes_before_they_hear_of_it(
    broker: Broker, topic: str, start: Start
) -> None:
    """Which the guide says: requests to the others within `every` and the way through Kafka, here with much to spare."""
    limit, each, pace_s, late_s = 200, 250, 0.01, 0.5
    gateways = [start(broker, topic, f"limit: {limit}/h", ", every: 50ms") for _ in range(2)]
    found: list[int] = []

    def drive(gateway: Gateway) -> None:
        with Client(gateway.port) as client:
            for _ in range(each):
                found.append(client.send(GET).read_answer()[0])
                time.sleep(pace_s)  # a pace, not a wait for anything

    threads = [threading.Thread(target=drive, args=(gateway,)) for gateway in gateways]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    admitted = found.count(200)
    assert set(found) == {200, 429}
    assert limit <= admitted <= limit + late_s / pace_s
    assert admitted < 1.5 * limit
    for gateway in gateways:
        assert statuses(gateway) == [429]


def test_quotas_count_together(broker: Broker, topic: str, start: Start, tmp_path: Path) -> None:
    route = "quota: {daily: 10, per: address}"
    gateways = [start(broker, topic, route, more=f"state: {tmp_path / name}") for name in ("one", "two")]
    assert in_turns(gateways, 4, 4) == [200] * 10 + [429] * 6


def test_a_request_that_one_limit_refuses_is_told_of_by_none(broker: Broker, topic: str, start: Start) -> None:
    gateways = [start(broker, topic, "limit: [{rate: 3/h, name: few}, {rate: 100/h, name: many}]") for _ in range(2)]
    assert statuses(gateways[0], 10) == [200] * 3 + [429] * 7
    gateways[1].program.wait_until(lambda: heard(gateways[1]) >= 6, "news of the other")
    assert statuses(gateways[1]) == [429]
    told = 'castlegate_limit_told_total{result="ok"}'
    assert gateways[0].metrics()[told] == 6


def test_the_topic_tells_nothing_of_callers(broker: Broker, topic: str, start: Start) -> None:
    gateway = start(broker, topic, 'limit: {rate: 5/h, per: "{header.x-key}"}')
    statuses(gateway, 1, b"GET /x HTTP/1.1\r\nHost: h\r\nX-Key: key-of-ann\r\n\r\n")
    gateway.program.wait_until(lambda: gateway.metrics()['castlegate_limit_told_total{result="ok"}'] == 1, "the record")
    content = b"".join(records(broker, topic))
    assert content
    for secret in (b"key-of-ann", b"127.0.0.1", b"GET /x", b"x-key"):
        assert secret not in content


def records(broker: Broker, topic: str) -> list[bytes]:
    consumer = Consumer({"bootstrap.servers": broker.bootstrap, "group.id": "look", "enable.partition.eof": True})
    consumer.assign([TopicPartition(topic, 0, 0)])
    found: list[bytes] = []
    while (message := consumer.poll(10)) is not None and message.error() is None:
        found.append(message.value() or b"")  # type: ignore[arg-type]
    consumer.close()
    return found


def test_records_that_nobody_of_us_wrote_change_nothing(broker: Broker, topic: str, start: Start) -> None:
    gateway = start(broker, topic, "limit: 3/h")
    ids, used = [b"i" * 16, b"w" * 16], ["r", b"k" * 16, 1, 1, 0]
    wrong: list[object] = [
        {}, [*ids, 1, 0], [*ids, 0, 0, []], [b"i", *ids[1:], 1, 0, []], [*ids, 1, 0, [["r", b"k", 1, 1, 0]]],
        [*ids, 1, 0, [["r", b"k" * 16, 2**62, 2**62, 0]]], [*ids, 1, 0, [["x", b"k" * 16, 1, 1]]],
        [*ids, 1, 0, [used] * 2001], [*ids, 1, -1, [used]], [*ids, 1, 0, [["q", b"k" * 16, -5, 1]]],
    ]  # fmt: skip
    producer = Producer({"bootstrap.servers": broker.bootstrap})
    for value in (None, b"", b"\xff" * 100, b"\x91" * 10_000, *[msgspec.msgpack.encode(each) for each in wrong]):
        producer.produce(topic, value, b"key", 0)
    assert producer.flush(10) == 0
    unreadable = 'castlegate_limit_heard_total{result="unreadable"}'
    gateway.program.wait_until(lambda: gateway.metrics()[unreadable] == 4 + len(wrong), "all of them to be read")
    assert statuses(gateway, 4) == [200] * 3 + [429]
    up(gateway)


def test_while_kafka_is_lost_each_counts_for_itself_and_makes_good_for_it_afterwards(
    own_broker: Broker, topic: str, start: Start
) -> None:
    gateways = [start(own_broker, topic, "limit: 50/h") for _ in range(2)]
    assert in_turns(gateways, 5, 2) == [200] * 10
    for gateway in gateways:
        gateway.program.wait_until(lambda: heard(gateway) == 5, "news of the other")  # noqa: B023
    own_broker.kill()
    for gateway in gateways:
        gateway.program.wait_until(lambda: gateway.metrics()["castlegate_limit_store_up"] == 0, "the loss")  # noqa: B023
        gateway.program.wait_for_line("Kafka is lost for limits, each instance counts for itself until it is back")
        assert statuses(gateway, 41) == [200] * 40 + [429]
    own_broker.restart()
    for gateway in gateways:
        up(gateway)
        gateway.program.wait_for_line("limits are counted in Kafka again")
        gateway.program.wait_until(lambda: heard(gateway) == 45, "news of the other")  # noqa: B023
        with Client(gateway.port) as client:
            status, fields, _ = client.send(GET).read_answer()
        # One in 72 seconds: what both admitted while they did not hear of each other comes first.
        assert status == 429
        assert 39 * 72 <= int(fields["retry-after"]) <= 41 * 72


def test_while_kafka_is_lost_requests_are_refused_if_so_said(own_broker: Broker, topic: str, start: Start) -> None:
    gateway = start(own_broker, topic, "limit: 50/h", ", lost: refuse")
    assert statuses(gateway, 5) == [200] * 5
    own_broker.freeze()
    gateway.program.wait_until(lambda: gateway.metrics()["castlegate_limit_store_up"] == 0, "the loss")
    with Client(gateway.port) as client:
        status, fields, body = client.send(GET).read_answer()
    assert (status, fields["retry-after"]) == (503, "1")
    assert json.loads(body)["type"] == "urn:castlegate:uncounted"
    own_broker.thaw()
    up(gateway)
    assert statuses(gateway) == [200]


def test_a_worker_that_is_replaced_and_a_reload_go_on_hearing(broker: Broker, topic: str, start: Start) -> None:
    one, two = (start(broker, topic, "limit: 30/h", more="workers: 1") for _ in range(2))
    assert in_turns([one, two], 5, 2) == [200] * 10
    one.program.wait_until(lambda: heard(one) == 5, "news of the other")
    one.rewrite(one.path.read_text().replace("workers: 1", "workers: 1\nwatch: false"))
    one.rewrite(one.path.read_text().replace("public: true", "public: true, timeout: 77s"))
    one.program.send_signal(signal.SIGHUP)
    one.program.wait_until(lambda: one.workers()[0]["version"] == 2, "the reload")
    assert statuses(two, 5) == [200] * 5
    one.program.wait_until(lambda: heard(one) == 10, "news of the other")
    assert statuses(one, 20).count(200) == 15


def test_what_was_told_while_a_worker_stood_still_is_heard_afterwards(broker: Broker, topic: str, start: Start) -> None:
    one, two = (start(broker, topic, "limit: 30/h") for _ in range(2))
    worker = one.workers()[0]["pid"]
    os.kill(worker, signal.SIGSTOP)
    try:
        told = 'castlegate_limit_told_total{result="ok"}'
        for number in (5, 10):
            assert statuses(two, 5) == [200] * 5
            two.program.wait_until(lambda: two.metrics()[told] == number, "both records")  # noqa: B023
    finally:
        os.kill(worker, signal.SIGCONT)
    one.program.wait_until(lambda: heard(one) == 10, "news of the other")
    assert statuses(one, 30).count(200) == 20


def test_a_topic_that_is_deleted_is_made_anew_and_counting_goes_on(
    own_broker: Broker, topic: str, start: Start
) -> None:
    gateways = [start(own_broker, topic, "limit: 30/h") for _ in range(2)]
    assert in_turns(gateways, 5, 2) == [200] * 10
    gateways[0].program.wait_until(lambda: heard(gateways[0]) == 5, "news of the other")
    admin = AdminClient({"bootstrap.servers": own_broker.bootstrap})
    admin.delete_topics([topic])[topic].result(10)
    assert statuses(gateways[1], 5) == [200] * 5
    gateways[0].program.wait_until(lambda: heard(gateways[0]) == 10, "news of the other")
    assert statuses(gateways[0], 30).count(200) == 15
