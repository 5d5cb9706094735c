"""The test services really answer, each in its family's way, on each broker: asked by a bare Kafka client."""

import json
import time
import urllib.request
import uuid
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from tests.conftest import Broker
from tests.testbeds.services import Service, Shop
from tests.testbeds.topics import create_topics

NEST = ("kafka_correlationId", "kafka_replyTopic", "kafka_replyPartition")
FASTSTREAM = ("correlation_id", "reply_to", None)
PLAIN = ("correlation-id", "reply-topic", "reply-partition")
_INBOX = "testbeds.inbox"
_PARTITION = 2


class Record(NamedTuple):
    partition: int
    value: bytes | None
    headers: dict[str, bytes | None]

    @property
    def json(self) -> Any:
        return json.loads(self.value or b"")


class Client:
    """Sends requests and collects whatever comes to its inbox with their id."""

    def __init__(self, bootstrap: str) -> None:
        create_topics(bootstrap, {_INBOX: 4})
        self._producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 0})
        self._consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "testbeds", "enable.auto.commit": False})
        inbox = [TopicPartition(_INBOX, partition) for partition in range(4)]
        for partition in inbox:
            low_high = self._consumer.get_watermark_offsets(partition, timeout=10)
            assert low_high
            partition.offset = low_high[1]
        self._consumer.assign(inbox)

    def close(self) -> None:
        self._consumer.close()
        self._producer.close()

    def send(self, topic: str, payload: object, names: tuple[str, str, str | None], **headers: str) -> str:
        correlation_id = uuid.uuid4().hex
        written: list[tuple[str, str | bytes | None]] = [(names[0], correlation_id), (names[1], _INBOX)]
        if names[2]:
            written.append((names[2], str(_PARTITION)))
        self._producer.produce(topic, json.dumps(payload), headers=[*written, *headers.items()])
        self._producer.flush(10)
        return correlation_id

    def ask(
        self, topic: str, payload: object, names: tuple[str, str, str | None], count: int = 1, **headers: str
    ) -> list[Record]:
        correlation_id = self.send(topic, payload, names, **headers).encode()
        found: list[Record] = []
        deadline = time.monotonic() + 15
        while len(found) < count:
            assert time.monotonic() < deadline, f"{len(found)} of {count} replies from {topic}"
            message = self._consumer.poll(0.2)
            if message is None or message.error() is not None:
                continue
            pairs: Any = message.headers() or []
            record = Record(message.partition() or 0, message.value(), dict(pairs))
            if record.headers.get(names[0]) == correlation_id:
                found.append(record)
        return found


@pytest.fixture
def client(broker: Broker) -> Iterator[Client]:
    client = Client(broker.bootstrap)
    yield client
    client.close()


def test_nest_answers_on_the_partition_asked_for(client: Client, nest_service: Service) -> None:
    [reply] = client.ask("orders.get", {"id": "7"}, NEST)
    assert reply.json == {"id": "7", "item": "lamp", "quantity": 2}
    assert reply.partition == _PARTITION
    assert reply.headers["kafka_nest-is-disposed"] == b"\0"


def test_nest_writes_an_rpc_exception_into_a_header(client: Client, nest_service: Service) -> None:
    [reply] = client.ask("orders.get", {"id": "999"}, NEST)
    assert reply.value is None
    assert json.loads(reply.headers["kafka_nest-err"] or b"") == {"status": 404, "message": "no order 999"}


def test_nest_streams_values_and_disposes_of_the_last(client: Client, nest_service: Service) -> None:
    replies = client.ask("nest.stream", {"count": 3, "delay_ms": 20}, NEST, count=3)
    assert [reply.json["n"] for reply in replies] == [1, 2, 3]
    assert ["kafka_nest-is-disposed" in reply.headers for reply in replies] == [False, False, True]


def test_nest_sees_the_headers_of_the_request(client: Client, nest_service: Service) -> None:
    [reply] = client.ask("nest.echo", {"a": 1}, NEST, traceparent="00-ab")
    assert reply.json["payload"] == {"a": 1}
    assert reply.json["headers"]["traceparent"] == "00-ab"


def test_nest_writes_events_into_its_ledger(client: Client, nest_service: Service) -> None:
    correlation_id = client.send("nest.silent", {"seen": True}, NEST)
    [entry] = nest_service.wait_handled(correlation_id=correlation_id)
    assert entry["payload"] == {"seen": True}


def test_faststream_answers(client: Client, faststream_service: Service) -> None:
    [reply] = client.ask("fs.echo", {"a": 1}, FASTSTREAM, traceparent="00-ab")
    assert reply.json["payload"] == {"a": 1}
    assert reply.json["headers"]["traceparent"] == "00-ab"


def test_faststream_answers_nothing_with_an_empty_value(client: Client, faststream_service: Service) -> None:
    [reply] = client.ask("fs.none", {}, FASTSTREAM)
    assert reply.value == b""


def test_the_plain_responder_does_as_told(client: Client, plain_service: Service) -> None:
    told = {"replies": [{"text": "one", "times": 2, "headers": {"status": "abc"}}, {"value": 3, "delay_ms": 50}]}
    replies = client.ask("plain.script", told, PLAIN, count=3)
    assert [reply.value for reply in replies] == [b"one", b"one", b"3"]
    assert replies[0].headers["status"] == b"abc"


def test_the_shop_is_open(client: Client, shop: Shop) -> None:
    with urllib.request.urlopen(f"{shop.users_url}/users/1") as answer:
        assert json.load(answer)["name"] == "Ada"
    [order] = client.ask("orders.create", {"item": "lamp"}, NEST)
    assert order.json["item"] == "lamp"
    [stock] = client.ask("stock.check", {"sku": "chair"}, FASTSTREAM)
    assert stock.json == {"sku": "chair", "available": 4}
