"""What aiokafka clients, and FastStream on top of them, see of any broker."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from faststream.kafka import KafkaBroker

_PATIENCE_S = 20.0


def _name(what: str) -> str:
    return f"{what}-{uuid.uuid4().hex[:10]}"


async def _topic(bootstrap: str, partitions: int = 1) -> str:
    name = _name("topic")
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        answer = await admin.create_topics([NewTopic(name, partitions, 1)])
        assert [error for _, error, *_ in answer.topic_errors] == [0]
    finally:
        await admin.close()
    return name


@asynccontextmanager
async def _producer(bootstrap: str, **settings: Any) -> AsyncIterator[AIOKafkaProducer]:
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, **settings)
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


@asynccontextmanager
async def _consumer(bootstrap: str, *topics: str, **settings: Any) -> AsyncIterator[AIOKafkaConsumer]:
    settings = {
        "auto_offset_reset": "earliest",
        "enable_auto_commit": False,
        "heartbeat_interval_ms": 100,
        "session_timeout_ms": 6_000,
        **settings,
    }
    consumer = AIOKafkaConsumer(*topics, bootstrap_servers=bootstrap, **settings)
    await consumer.start()
    try:
        yield consumer
    finally:
        await consumer.stop()


async def _read(consumer: AIOKafkaConsumer, count: int) -> list[bytes]:
    values: list[bytes] = []
    async with asyncio.timeout(_PATIENCE_S):
        while len(values) < count:
            for records in (await consumer.getmany(timeout_ms=500)).values():
                values += [record.value for record in records]
    return values


async def test_an_idempotent_producer_writes_keys_and_headers(bootstrap: str) -> None:
    topic = await _topic(bootstrap)
    async with _producer(bootstrap, enable_idempotence=True, compression_type="gzip") as producer:
        for number in range(50):
            sent = await producer.send_and_wait(topic, b"%d" % number, key=b"key", headers=[("h", b"\x00")])
            assert sent.offset == number
    async with _consumer(bootstrap) as consumer:
        consumer.assign([TopicPartition(topic, 0)])
        record = await asyncio.wait_for(consumer.getone(), _PATIENCE_S)
        assert (record.key, record.value, record.headers) == (b"key", b"0", (("h", b"\x00"),))
        assert await _read(consumer, 49) == [b"%d" % number for number in range(1, 50)]


async def test_members_share_partitions_and_take_over_from_those_who_leave(bootstrap: str) -> None:
    topic, group = await _topic(bootstrap, 4), _name("group")

    async def settle(holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(_PATIENCE_S):
            # aiokafka tells nobody when it has an assignment.
            while not holds():  # noqa: ASYNC110
                await asyncio.sleep(0.02)

    async with AsyncExitStack() as members:
        first = await members.enter_async_context(_consumer(bootstrap, topic, group_id=group))
        async with _consumer(bootstrap, topic, group_id=group) as second:
            await settle(lambda: (len(first.assignment()), len(second.assignment())) == (2, 2))
            assert first.assignment() | second.assignment() == {TopicPartition(topic, n) for n in range(4)}
        await settle(lambda: len(first.assignment()) == 4)


async def test_committed_offsets_survive_the_consumer(bootstrap: str) -> None:
    topic, group = await _topic(bootstrap), _name("group")
    partition = TopicPartition(topic, 0)
    async with _producer(bootstrap) as producer:
        for number in range(4):
            await producer.send_and_wait(topic, b"%d" % number)
    async with _consumer(bootstrap, topic, group_id=group) as consumer:
        await _read(consumer, 4)
        await consumer.commit({partition: (2, "half way")})
    async with _consumer(bootstrap, topic, group_id=group) as consumer:
        assert await _read(consumer, 2) == [b"2", b"3"]
        assert await consumer.committed(partition) == 2


async def test_positions_are_found_and_sought(bootstrap: str) -> None:
    topic = await _topic(bootstrap)
    partition = TopicPartition(topic, 0)
    async with _producer(bootstrap) as producer:
        for number in range(3):
            await producer.send_and_wait(topic, b"%d" % number, timestamp_ms=1_700_000_000_000 + number)
    async with _consumer(bootstrap) as consumer:
        consumer.assign([partition])
        assert await consumer.beginning_offsets([partition]) == {partition: 0}
        assert await consumer.end_offsets([partition]) == {partition: 3}
        found = await consumer.offsets_for_times({partition: 1_700_000_000_001})
        assert found[partition] == (1, 1_700_000_000_001)
        consumer.seek(partition, 2)
        assert await _read(consumer, 1) == [b"2"]


async def test_faststream_asks_and_answers(bootstrap: str) -> None:
    asked, answered = await _topic(bootstrap), await _topic(bootstrap)
    broker = KafkaBroker(bootstrap, logger=None)
    got: asyncio.Queue[str] = asyncio.Queue()

    @broker.subscriber(asked, group_id=_name("group"), auto_offset_reset="earliest")
    @broker.publisher(answered)
    async def answer(text: str) -> str:
        return f"re: {text}"

    @broker.subscriber(answered, auto_offset_reset="earliest")
    async def collect(text: str) -> None:
        await got.put(text)

    async with broker:
        await broker.start()
        await broker.publish("hello", asked)
        assert await asyncio.wait_for(got.get(), _PATIENCE_S) == "re: hello"
