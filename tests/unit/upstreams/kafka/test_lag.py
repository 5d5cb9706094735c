"""The lag of a service's group goes on being looked at, whatever happens, and its client never holds up the loop."""

import asyncio
import threading
from collections.abc import Iterator
from queue import SimpleQueue
from typing import Any, ClassVar

import msgspec
import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient
from tests.testbeds.embedded import EmbeddedBroker
from tests.testbeds.topics import create_topics

from castlegate.upstreams.kafka import lag
from castlegate.upstreams.kafka.client import ClientConfig, Clients, OnError
from castlegate.upstreams.kafka.lag import GroupLag
from castlegate.upstreams.kafka.settings import GroupSettings, Kafka

TOPIC = "lag.read"


class Unforeseen(Clients):
    """Fails twice before there is a client."""

    failures = 0

    def admin(self, on_error: OnError) -> ClientConfig:
        if self.failures < 2:
            self.failures += 1
            raise KeyError("nobody foresaw this")
        return super().admin(on_error)


class Ending(AdminClient):
    """Notes which threads its end held up."""

    threads: ClassVar[SimpleQueue[int]] = SimpleQueue()

    def __del__(self) -> None:
        self.threads.put(threading.get_ident())


@pytest.fixture
def group(embedded_broker: EmbeddedBroker) -> Iterator[str]:
    """One that has read nothing of one record."""
    create_topics(embedded_broker.bootstrap, {TOPIC: 1})
    settings: dict[str, Any] = {"bootstrap.servers": embedded_broker.bootstrap, "group.id": "lagging"}
    consumer = Consumer({**settings, "enable.auto.commit": False})
    consumer.commit(offsets=[TopicPartition(TOPIC, 0, 7)], asynchronous=False)
    yield "lagging"
    consumer.close()


async def test_it_is_looked_at_after_errors_that_nobody_foresaw_and_ends_beside_the_loop(
    embedded_broker: EmbeddedBroker, group: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lag, "AdminClient", Ending)
    kafka = msgspec.convert({"bootstrap": embedded_broker.bootstrap}, Kafka)
    clients = Unforeseen(kafka, client_id="lag", longest_timeout=1.0)
    settings = msgspec.convert({"group": group, "every": 0.01}, GroupSettings, strict=False)
    looking = GroupLag("read", settings, clients, asyncio.get_running_loop().time)
    backlog, looks = looking.of(TOPIC), asyncio.Event()
    monkeypatch.setattr(type(backlog), "saw", lambda *_: looks.set())
    await looking.start()
    await asyncio.wait_for(looks.wait(), 20)
    await looking.stop()
    assert [type(each.exc_info[1]) for each in caplog.records if each.exc_info] == [KeyError]
    del looking
    ended_by = await asyncio.to_thread(Ending.threads.get, timeout=20)
    assert ended_by != threading.get_ident()
    caplog.clear()
