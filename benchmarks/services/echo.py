"""The Kafka service behind the gateways: answers `bench.echo` in NestJS's way with what it was sent, and quickly.

Run: BOOTSTRAP=127.0.0.1:9092 python -m benchmarks.services.echo; the topic must exist.
"""

import os
import signal
import sys
from typing import Any

from confluent_kafka import OFFSET_END, Consumer, Message, Producer, TopicPartition

TOPIC = "bench.echo"
_BATCH = 500


def serve(bootstrap: str) -> None:
    """Answer until the program is ended."""
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 0, "queue.buffering.max.messages": 1_000_000})
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "bench-echo",
            "enable.auto.commit": False,
            "fetch.wait.max.ms": 500,
        }
    )
    partitions = consumer.list_topics(TOPIC, timeout=10).topics[TOPIC].partitions
    consumer.assign([TopicPartition(TOPIC, partition, _end(consumer, partition)) for partition in partitions])
    print("ready", flush=True)
    while True:
        first = consumer.poll(1)
        if first is None:
            continue
        # A batch with a timeout would wait for the full number: what is there already comes with 0.
        for message in (first, *consumer.consume(_BATCH, 0)):
            if message.error() is None:
                _answer(producer, message)
        producer.poll(0)


def _end(consumer: Consumer, partition: int) -> int:
    offsets = consumer.get_watermark_offsets(TopicPartition(TOPIC, partition), timeout=10)
    return offsets[1] if offsets else OFFSET_END


def _answer(producer: Producer, message: Message) -> None:
    pairs: Any = message.headers() or []  # pairs of bytes when received
    headers: dict[str, bytes] = dict(pairs)
    partition = headers.get("kafka_replyPartition")
    producer.produce(
        headers["kafka_replyTopic"].decode(),
        message.value(),
        partition=int(partition) if partition else -1,
        headers=[("kafka_correlationId", headers["kafka_correlationId"]), ("kafka_nest-is-disposed", b"\0")],
    )


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    serve(os.environ["BOOTSTRAP"])
