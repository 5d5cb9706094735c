"""Events: an acknowledgement is never less than a stored record (CASES K15), a failure never says more than is known."""

import asyncio
from collections.abc import Iterator
from uuid import uuid4

import pytest
from confluent_kafka import Consumer, TopicPartition
from tests.conftest import Broker
from tests.kafka.calls import failure, running
from tests.testbeds.topics import create_topics

from castlegate.errors import CallFailed, Kinds, Outcome
from castlegate.upstreams.kafka.events import Ack


@pytest.fixture
def topic(broker: Broker) -> Iterator[str]:
    name = f"events-{uuid4().hex[:8]}"
    create_topics(broker.bootstrap, {name: 2})
    return name  # type: ignore[return-value]  # nothing to clean up


def stored(bootstrap: str, topic: str, partitions: int = 2) -> dict[tuple[int, int], bytes | None]:
    """Every record of a topic: partition and offset to value."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "reader", "log_level": 0,
                         "enable.partition.eof": True, "auto.offset.reset": "earliest"})  # fmt: skip
    consumer.assign([TopicPartition(topic, number, 0) for number in range(partitions)])
    found: dict[tuple[int, int], bytes | None] = {}
    at_end = 0
    while at_end < partitions:
        message = consumer.poll(5)
        assert message is not None
        if message.error() is not None:
            at_end += 1
        else:
            found[message.partition() or 0, message.offset() or 0] = message.value()
    consumer.close()
    return found


async def test_an_acknowledged_event_stands_where_the_ack_says(broker: Broker, topic: str) -> None:
    async with running(broker.bootstrap, lambda rig: rig.engine.publisher(topic)) as rig:
        publisher = rig.engine.publisher(topic)
        deadline = rig.timer.now() + 10
        values = [b"%d" % number for number in range(50)]
        acks = await asyncio.gather(
            *(publisher.publish(b"k%d" % (n % 5), value, [("ce_id", b"1")], deadline) for n, value in enumerate(values))
        )
        assert {ack.topic for ack in acks} == {topic}
        found = await asyncio.to_thread(stored, broker.bootstrap, topic)
        assert {(ack.partition, ack.offset): value for ack, value in zip(acks, values, strict=True)} == found
        assert rig.count("castlegate_kafka_events_total", topic=topic, outcome="stored") == 50


async def test_a_publisher_that_comes_with_a_later_configuration_works_too(broker: Broker, topic: str) -> None:
    async with running(broker.bootstrap) as rig:
        assert rig.engine.state.ready
        publisher = rig.engine.publisher(topic)
        await rig.until(lambda: rig.engine.gates.settled)
        assert isinstance(await publisher.publish(None, b"1", [], rig.timer.now() + 5), Ack)


async def test_an_event_for_a_missing_topic_or_too_large_or_too_late_is_not_sent(broker: Broker, topic: str) -> None:
    def prepare(rig: object) -> None: ...

    async with running(broker.bootstrap, max_record=10_000) as rig:
        publisher, nowhere = rig.engine.publisher(topic), rig.engine.publisher(f"{topic}-missing")
        await rig.until(lambda: rig.engine.gates.settled)
        later = rig.timer.now() + 5
        for asked, kind in (
            (nowhere.publish(None, b"1", [], later), Kinds.TOPIC_MISSING),
            (publisher.publish(None, b"x" * 10_001, [], later), Kinds.RECORD_TOO_LARGE),
            (publisher.publish(b"k" * 9_000, b"x" * 9_000, [], later), Kinds.RECORD_TOO_LARGE),
            (publisher.publish(None, b"1", [], rig.timer.now() - 1), Kinds.TIMEOUT),
        ):
            refused = await failure(asked)
            assert (refused.kind, refused.outcome) == (kind, Outcome.NOT_SENT)
        assert await asyncio.to_thread(stored, broker.bootstrap, topic) == {}
        assert rig.count("castlegate_kafka_events_total", topic=topic, outcome="failed") == 3


async def test_through_an_outage_no_event_is_acknowledged_that_is_not_stored(own_broker: Broker) -> None:
    create_topics(own_broker.bootstrap, {"events": 2})
    async with running(own_broker.bootstrap, lambda rig: rig.engine.publisher("events"), longest_timeout=5) as rig:
        publisher = rig.engine.publisher("events")
        acknowledged: dict[tuple[int, int], bytes] = {}
        refused: list[CallFailed] = []
        going = True

        async def publish(name: int) -> None:
            number = 0
            while going:
                number += 1
                value = b"%d.%d" % (name, number)
                try:
                    ack = await publisher.publish(None, value, [], rig.timer.now() + 1.5)
                    acknowledged[ack.partition, ack.offset] = value
                except CallFailed as failed:
                    refused.append(failed)
                    await asyncio.sleep(0.01)

        async with asyncio.TaskGroup() as tasks:
            for name in range(4):
                tasks.create_task(publish(name))
            await rig.until(lambda: len(acknowledged) >= 100)
            own_broker.freeze()
            await rig.until(lambda: [f for f in refused if f.outcome is Outcome.UNKNOWN])
            await rig.until(lambda: [f for f in refused if f.kind is Kinds.BROKER_UNAVAILABLE])
            own_broker.thaw()
            many = len(acknowledged) + 100
            await rig.until(lambda: len(acknowledged) >= many)
            going = False
        found = await asyncio.to_thread(stored, own_broker.bootstrap, "events")
        assert acknowledged.items() <= found.items()
        assert {f.outcome for f in refused if f.kind is Kinds.BROKER_UNAVAILABLE} == {Outcome.NOT_SENT}
        unknown = sum(f.outcome is Outcome.UNKNOWN for f in refused)
        assert len(found) <= len(acknowledged) + unknown, "what was refused as not sent is nowhere"
