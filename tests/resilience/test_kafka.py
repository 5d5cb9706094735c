"""The guards of services behind Kafka."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from tests.conftest import Broker
from tests.resilience.conftest import ask, eventually
from tests.testbeds.gateway import Gateway
from tests.testbeds.kafka import RealKafka
from tests.testbeds.services import Service, start_plain
from tests.testbeds.topics import create_topics

START = Callable[[str], Gateway]
TOPIC = "guarded.script"
BEHIND = "behind.ask"
SHARED = "shared.ask"


@pytest.fixture(scope="module")
def service(broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    service = start_plain(broker.bootstrap, tmp_path_factory.mktemp("plain"), {"TOPICS": TOPIC})
    yield service
    service.program.terminate()


@pytest.fixture
def start_on(broker: Broker, tmp_path: Path) -> Iterator[START]:
    running: list[Gateway] = []

    def start(config: str) -> Gateway:
        running.append(Gateway(tmp_path, f'kafka: "{broker.bootstrap}"\n{config}'))
        running[-1].program.wait_until(lambda: running[-1].readiness()[0] == 200, "readiness")
        return running[-1]

    yield start
    for gateway in running:
        gateway.stop()


def told(*replies: object) -> bytes:
    return json.dumps({"replies": replies}).encode()


ANSWERS = told({"value": "yes"})
SILENT = told()


def outcome(answer: tuple[int, dict[str, str], bytes]) -> tuple[int, str, str]:
    problem = json.loads(answer[2])
    return answer[0], problem["type"].removeprefix("urn:castlegate:"), problem["outcome"]


def test_a_service_that_does_not_answer_is_left_alone(start_on: START, service: Service) -> None:
    gateway = start_on("""
services: {guarded: {kafka: plain, breaker: {least: 3, pause: 1s, trials: 1}}}
defaults: {public: true, timeout: 300ms}
routes: {POST /: {call: guarded.script}}
""")
    eventually(lambda: ask(gateway, "POST /", body=ANSWERS)[0] == 200)
    for _ in range(3):
        ask(gateway, "POST /", body=SILENT)
    refused = ask(gateway, "POST /", body=ANSWERS)
    if refused[0] == 504:  # the good ones before still outweighed
        refused = ask(gateway, "POST /", body=ANSWERS)
    eventually(lambda: outcome(ask(gateway, "POST /", body=SILENT))[1] == "breaker_open")
    handled = len(service.handled())
    assert outcome(ask(gateway, "POST /", body=ANSWERS)) == (503, "breaker_open", "not_sent")
    assert len(service.handled()) == handled
    eventually(lambda: ask(gateway, "POST /", body=ANSWERS)[0] == 200)
    assert ask(gateway, "POST /", body=ANSWERS)[0] == 200


def test_so_many_requests_wait_for_replies_and_no_more(start_on: START, service: Service) -> None:
    gateway = start_on("""
services: {guarded: {kafka: plain, concurrency: {limit: 1, queue: 0}}}
defaults: {public: true, timeout: 5s}
routes: {POST /: {call: guarded.script}}
""")
    from concurrent.futures import ThreadPoolExecutor

    eventually(lambda: ask(gateway, "POST /", body=ANSWERS)[0] == 200)
    slow = told({"value": "late", "delay_ms": 700})
    name = 'castlegate_concurrency_calls{service="guarded",state="under_way"}'
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(ask, gateway, "POST /", body=slow)
        eventually(lambda: gateway.metrics().get(name) == 1)
        assert outcome(ask(gateway, "POST /", body=ANSWERS)) == (503, "saturated", "not_sent")
        assert first.result()[0] == 200
    assert ask(gateway, "POST /", body=ANSWERS)[0] == 200


def test_brokers_that_come_back_in_time_get_the_request_after_all(
    start_real_kafka: Callable[[Mapping[str, str]], RealKafka], tmp_path: Path
) -> None:
    """A real Kafka: the embedded one forgets its topics."""
    own_broker = start_real_kafka({})
    create_topics(own_broker.bootstrap, {TOPIC: 4})
    config = f"""
kafka: "{own_broker.bootstrap}"
services: {{guarded: {{kafka: plain, retry: {{tries: 1000, longest_backoff: 200ms}}}}}}
defaults: {{public: true, timeout: 30s}}
routes: {{POST /: {{call: guarded.script}}, POST /once: {{call: guarded.script, retry: 1, timeout: 1s}}}}
"""
    with Gateway(tmp_path, config) as gateway:
        gateway.program.wait_until(lambda: gateway.readiness()[0] == 200, "readiness")
        own_broker.kill()
        eventually(lambda: outcome(ask(gateway, "POST /once", body=ANSWERS))[1] == "broker_unavailable", 30)
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(1) as threads:
            asked = threads.submit(ask, gateway, "POST /", body=ANSWERS)
            tried = 'castlegate_upstream_retries_total{service="guarded",reason="broker"}'
            eventually(lambda: gateway.metrics().get(tried, 0) >= 1)
            own_broker.restart()
            service = start_plain(own_broker.bootstrap, tmp_path, {"TOPICS": TOPIC})
            try:
                assert asked.result()[0] == 200
            finally:
                service.program.terminate()


def test_what_would_wait_for_longer_than_it_has_is_refused_at_once(start_on: START, broker: Broker) -> None:
    """A group that has read nothing for a while, and then has caught up. Nobody answers in either case."""
    create_topics(broker.bootstrap, {BEHIND: 2})
    producer = Producer({"bootstrap.servers": broker.bootstrap})
    for number in range(20):
        producer.produce(BEHIND, b"{}", partition=number % 2)
    assert producer.flush(10) == 0
    group = f"behind-{time.time_ns()}"
    consumer = Consumer({"bootstrap.servers": broker.bootstrap, "group.id": group, "enable.auto.commit": False})
    try:
        consumer.commit(offsets=[TopicPartition(BEHIND, each, 0) for each in range(2)], asynchronous=False)
        gateway = start_on(f"""
services: {{behind: {{kafka: {{dialect: plain, group: {{group: {group}, every: 200ms, horizon: 1s}}}}}}}}
defaults: {{public: true, timeout: 300ms}}
routes: {{POST /: {{call: behind.ask}}}}
""")
        refused = [(504, "timeout", "unknown")]

        def is_refused() -> bool:
            refused[:] = [outcome(ask(gateway, "POST /", body=b"{}"))]
            return refused == [(503, "behind", "not_sent")]

        eventually(is_refused, 20)
        metrics = gateway.metrics()
        assert metrics[f'castlegate_kafka_group_lag{{service="behind",topic="{BEHIND}"}}'] >= 20
        assert metrics[f'castlegate_kafka_unanswered{{service="behind",topic="{BEHIND}"}}'] >= 1
        assert metrics[f'castlegate_kafka_backlog_refused_total{{service="behind",topic="{BEHIND}"}}'] >= 1
        ends = [
            TopicPartition(BEHIND, each, consumer.get_watermark_offsets(TopicPartition(BEHIND, each), timeout=10)[1])
            for each in range(2)
        ]
        consumer.commit(offsets=ends, asynchronous=False)
        lag = f'castlegate_kafka_group_lag{{service="behind",topic="{BEHIND}"}}'
        eventually(lambda: gateway.metrics()[lag] == 0, 20)
        assert outcome(ask(gateway, "POST /", body=b"{}")) == (504, "timeout", "unknown")
    finally:
        consumer.close()


def test_services_that_read_one_topic_in_groups_of_their_own_have_each_a_lag_of_its_own_told_once(
    start_on: START, broker: Broker
) -> None:
    """One has read nothing, the other all."""
    create_topics(broker.bootstrap, {SHARED: 1})
    producer = Producer({"bootstrap.servers": broker.bootstrap})
    for _ in range(20):
        producer.produce(SHARED, b"{}", partition=0)
    assert producer.flush(10) == 0
    groups = {service: f"{service}-{time.time_ns()}" for service in ("slow", "quick")}
    for service, group in groups.items():
        consumer = Consumer({"bootstrap.servers": broker.bootstrap, "group.id": group, "enable.auto.commit": False})
        at = TopicPartition(SHARED, 0)
        end = consumer.get_watermark_offsets(at, timeout=10)[1]
        at.offset = 0 if service == "slow" else end
        consumer.commit(offsets=[at], asynchronous=False)
        consumer.close()
    kafka = "kafka: {{dialect: plain, group: {{group: {group}, every: 50ms, horizon: 1s}}, operations: {{ask: {{topic: {topic}}}}}}}"
    services = "".join(f"  {name}: {{{kafka.format(group=group, topic=SHARED)}}}\n" for name, group in groups.items())
    gateway = start_on(f"""
workers: 3
services:
{services}
defaults: {{public: true, timeout: 300ms}}
routes: {{POST /slow: {{call: slow.ask}}, POST /quick: {{call: quick.ask}}}}
""")

    def lag(service: str) -> float | None:
        return gateway.metrics().get(f'castlegate_kafka_group_lag{{service="{service}",topic="{SHARED}"}}')

    eventually(lambda: (lag("slow") or 0) > 0)
    assert (lag("slow"), lag("quick")) == (end, 0)
