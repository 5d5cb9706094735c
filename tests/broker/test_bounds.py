"""What a broker holds is bounded: by count where things are many, by bytes where they are large."""

import asyncio
from typing import Any

import pytest
from tests.broker.raw import RawClient, batch, fetch_body

from castlegate_broker.apis_data import FETCH
from castlegate_broker.coordinator import Coordinator
from castlegate_broker.errors import Code, Refused
from castlegate_broker.offsets import Committed
from castlegate_broker.server import Broker
from castlegate_broker.settings import Settings
from castlegate_broker.topics import Topics


def _topics(**bounds: Any) -> Topics:
    return Topics(Settings(**bounds))


def _refused(topics: Topics, name: str, partitions: int) -> Code:
    with pytest.raises(Refused) as refused:
        topics.create(name, partitions, {})
    return refused.value.code


def test_topics_and_partitions_are_counted_and_freed_when_deleted() -> None:
    topics = _topics(max_topics=2, max_partitions=4)
    first = topics.create("a", 3, {})
    assert _refused(topics, "b", 2) is Code.INVALID_PARTITIONS
    topics.create("b", 1, {})
    assert _refused(topics, "c", 1) is Code.POLICY_VIOLATION
    with pytest.raises(Refused):
        topics.grow("b", 2)
    topics.delete(first)
    topics.create("c", 3, {})


def test_all_partitions_together_stay_within_the_total() -> None:
    total = 1 << 20
    topics = _topics(total_bytes=total)
    topic = topics.create("topic", 8, {})
    data = memoryview(batch(bytes(20_000)))
    for number in range(1_000):
        topics.append(topic, topic.partitions[number % 8], data)
        assert topics.cost <= total
        assert topics.cost == sum(partition.log.cost for partition in topic.partitions)
    assert all(partition.log.end == 125 for partition in topic.partitions)
    topics.delete(topic)
    assert topics.cost == 0


def test_small_records_count_with_what_it_takes_to_hold_them() -> None:
    topics = _topics(retention_bytes=100_000)
    topic = topics.create("topic", 1, {})
    data = memoryview(batch(b""))
    for _ in range(10_000):
        topics.append(topic, topic.partitions[0], data)
    log = topic.partitions[0].log
    assert log.end - log.start < 100_000 / (len(data) + 200)


def test_a_topic_may_keep_less_than_the_broker_but_not_more() -> None:
    topics = _topics(retention_bytes=50_000)
    less = topics.create("less", 1, {"retention.bytes": "10000"})
    more = topics.create("more", 1, {"retention.bytes": "900000000"})
    assert [one.partitions[0].log.retention_bytes for one in (less, more)] == [10_000, 50_000]
    topics.configure(less, {"retention.bytes": "20000"})
    assert less.partitions[0].log.retention_bytes == 20_000


async def test_beyond_the_bound_the_oldest_group_without_members_is_forgotten() -> None:
    coordinator = Coordinator(Settings(max_groups=2))
    for name in ("a", "b", "c"):
        with coordinator.at_work(name) as (entry, _):
            entry.offsets.commit("topic", 0, Committed(1, 0, ""))
    assert [name for name, _ in coordinator] == ["b", "c"]


async def test_a_group_with_neither_members_nor_offsets_is_nothing() -> None:
    coordinator = Coordinator(Settings())
    with pytest.raises(Refused), coordinator.at_work("ghosts") as (entry, now):
        entry.group.heartbeat("nobody", None, 1, now)
    assert list(coordinator) == []


async def test_connections_are_counted() -> None:
    async with Broker(Settings(port=0, max_connections=2)) as broker:
        address = f"127.0.0.1:{broker.port}"

        def connect() -> bool:
            with RawClient(address) as first, RawClient(address) as second, RawClient(address) as third:
                refused = third.closed()
                first.create("a")
                second.create("b")
            return refused

        assert await asyncio.to_thread(connect)


async def test_a_waiting_fetch_leaves_nothing_behind_when_its_client_goes() -> None:
    async with Broker(Settings(port=0)) as broker:
        topic = broker.topics.create("topic", 1, {})
        partition = topic.partitions[0]

        def wait_and_go(waiting: asyncio.Event, loop: asyncio.AbstractEventLoop) -> None:
            with RawClient(f"127.0.0.1:{broker.port}") as client:
                client.send(FETCH, 12, fetch_body("topic", 0, max_wait_ms=60_000))
                asyncio.run_coroutine_threadsafe(waiting.wait(), loop).result(10)

        watched = asyncio.Event()
        going = asyncio.create_task(asyncio.to_thread(wait_and_go, watched, asyncio.get_running_loop()))
        async with asyncio.timeout(10):
            while not partition.watchers:  # noqa: ASYNC110 - the broker tells nobody
                await asyncio.sleep(0.005)
            watched.set()
            await going
            while partition.watchers:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
