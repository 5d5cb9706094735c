"""K9, K11, K13: what is too large, a topic that is missing, and more requests than may wait."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from confluent_kafka import Producer
from tests.faults.rig import Rig, gateway_for
from tests.testbeds.kafka import RealKafka
from tests.testbeds.topics import create_topics

SMALL = 4_000


@pytest.fixture
async def rig(real_kafka: RealKafka, tmp_path: Path, name: str) -> AsyncIterator[Rig]:
    topics = {f"{name}.script": 4}
    limited = {"max.message.bytes": str(SMALL)}
    await asyncio.to_thread(create_topics, real_kafka.bootstrap, topics, settings=limited)
    kafka = {"topics": {"partitions": 1}, "max_pending": 300}
    async with (
        gateway_for(real_kafka.bootstrap, tmp_path, name, kafka=kafka) as rig,
        rig.unharmed(spare=20),  # the producer that sends records alone is made when it is needed, and stays
    ):
        yield rig


async def test_what_gateway_or_topic_do_not_take_is_413_and_not_sent(rig: Rig) -> None:
    """K9."""
    for size in (SMALL + 1_000, 1_100_000):
        body = b'{"id":"large","x":"%s"}' % (b"x" * size)
        seen = await rig.ask(body=body)
        assert (seen.status, seen.outcome) == (413, "not_sent")
        assert seen.took < 2
    assert (await rig.ask("/events", body=b'"%s"' % (b"x" * 1_200_000))).status == 413
    assert "large" not in rig.executed()


async def test_small_requests_are_not_too_large_together(rig: Rig) -> None:
    """A broker refuses a batch over the topic's limit as a whole."""
    asked = [
        rig.ask(identity=f"small-{number}", body=b'{"id":"small-%d","x":"%s"}' % (number, b"x" * 1_000))
        for number in range(250)
    ]
    seen = await asyncio.gather(*asked)
    assert Counter((each.status, each.outcome) for each in seen) == {(200, "ok"): 250}
    executed = rig.executed()
    assert all(executed[each.id] == 1 for each in seen)


async def test_a_missing_topic_is_503_at_once_and_alarms(rig: Rig, real_kafka: RealKafka) -> None:
    """K11."""
    lost = f"{rig.name}.lost"
    seen = await rig.ask("/lost")
    assert (seen.status, seen.outcome, seen.fields["retry-after"]) == (503, "not_sent", "5")
    assert seen.took < 1
    assert lost not in seen.body.decode()
    assert rig.count("kafka_topic_missing", topic=lost) == 1
    assert (await rig.ask()).status == 200
    status, document = rig.gateway.readiness()
    assert (status, document["status"]) == (200, "degraded")
    assert lost in document["reason"]
    await asyncio.to_thread(create_topics, real_kafka.bootstrap, {lost: 1})
    await rig.until(lambda: rig.count("kafka_topic_missing", topic=lost) == 0, "the topic to be found", 10)
    assert rig.gateway.readiness()[1] == {"status": "ready", "reason": ""}


async def test_more_than_may_wait_are_shed_and_the_others_answered(rig: Rig) -> None:
    """K13: the pending table is full."""
    slow = [{"value": 1, "delay_ms": 1500}]
    waiting = [asyncio.create_task(rig.ask(replies=slow)) for _ in range(300)]
    await rig.until(lambda: rig.count("kafka_pending") == 300, "a full table")
    shed = await asyncio.gather(*(rig.ask(identity=f"shed-{number}") for number in range(20)))
    assert Counter((each.status, each.outcome) for each in shed) == {(503, "not_sent"): 20}
    assert all(each.fields["retry-after"] == "1" for each in shed)
    assert (await rig.ask("/http")).status == 200
    assert Counter(each.status for each in await asyncio.gather(*waiting)) == {200: 300}
    assert not [identity for identity in rig.executed() if identity.startswith("shed")]


async def test_a_flood_of_alien_replies_delays_and_loses_nothing(rig: Rig, real_kafka: RealKafka) -> None:
    """K13: the inbox lags behind and catches up."""
    producer = Producer({"bootstrap.servers": real_kafka.bootstrap, "queue.buffering.max.messages": 300_000})
    for number in range(200_000):
        producer.produce(f"{rig.name}.replies", b"x" * 100, headers=[("correlation-id", b"%032x" % number)])
    seen = await asyncio.gather(*(rig.ask(identity=f"during-{number}") for number in range(50)))
    assert Counter(each.status for each in seen) == {200: 50}
    assert await asyncio.to_thread(producer.flush, 30) == 0
    await rig.until(lambda: rig.replies().get("foreign") == 200_000, "all of them to be dropped")
    await rig.until(lambda: rig.count("kafka_reply_lag") == 0, "no lag", 5)
