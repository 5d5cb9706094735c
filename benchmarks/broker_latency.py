"""How long the embedded broker takes from a record's arrival to its leaving in a fetch that waits for it.

Measured from outside, so that sockets and the client's own work are in it: the raw rows send bytes made before on
one socket and stop the clock when the whole response has come on another; the other rows are confluent-kafka's
`produce` to `poll`. Run `python -m benchmarks.broker_latency`, with nothing else on the machine.
"""

import argparse
import statistics
import sys
import time
import uuid
from collections.abc import Callable

from confluent_kafka import Consumer, Producer, TopicPartition
from tests.broker.raw import RawClient, batch, fetch_body
from tests.testbeds.embedded import EmbeddedBroker
from tests.testbeds.topics import create_topics

from castlegate_broker.apis_data import FETCH

_TARGET_MS = 1.0
_WARM_UP = 50
_SETTLE_S = 0.002  # so that the fetch does wait when the record comes
_SIZES = (100, 10_000, 500_000)


def main() -> int:
    """Measure and print; 1 if the median of the raw row of small records misses the target."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=1_000, help="measurements per row (default: 1000)")
    rounds = parser.parse_args().rounds
    broker = EmbeddedBroker()
    try:
        rows = [(f"raw sockets, {size:,} B", _raw(broker.bootstrap, size, rounds)) for size in _SIZES]
        rows += [(f"confluent-kafka, {size:,} B", _confluent(broker.bootstrap, size, rounds)) for size in _SIZES]
    finally:
        broker.discard()
    print(f"{'produce to a waiting fetch':<30}{'median ms':>12}{'p99 ms':>10}")
    for name, times in rows:
        print(f"{name:<30}{statistics.median(times):>12.3f}{_p99(times):>10.3f}")
    return 0 if statistics.median(rows[0][1]) < _TARGET_MS else 1


def _raw(bootstrap: str, size: int, rounds: int) -> list[float]:
    topic = f"raw-{uuid.uuid4().hex[:8]}"
    data = batch(bytes(size))
    with RawClient(bootstrap) as writer, RawClient(bootstrap) as reader:
        writer.create(topic)

        def once(offset: int) -> float:
            reader.send(FETCH, 12, fetch_body(topic, offset, max_wait_ms=5_000))
            time.sleep(_SETTLE_S)
            began = time.perf_counter()
            writer.produce(topic, data)
            _, answer = reader.receive(FETCH, 12)
            took = time.perf_counter() - began
            assert len(answer["topics"][0]["partitions"][0]["records"]) == len(data)
            return took

        return _measure(once, rounds)


def _confluent(bootstrap: str, size: int, rounds: int) -> list[float]:
    topic = f"confluent-{uuid.uuid4().hex[:8]}"
    create_topics(bootstrap, {topic: 1})
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 0})
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": topic, "fetch.wait.max.ms": 5_000})
    consumer.assign([TopicPartition(topic, 0, 0)])
    value = bytes(size)

    def once(_round: int) -> float:
        time.sleep(_SETTLE_S)
        began = time.perf_counter()
        producer.produce(topic, value)
        message = consumer.poll(10)
        took = time.perf_counter() - began
        assert message is not None
        assert message.error() is None
        producer.poll(0)
        return took

    try:
        return _measure(once, rounds)
    finally:
        consumer.close()
        producer.flush(5)


def _measure(once: Callable[[int], float], rounds: int) -> list[float]:
    """Milliseconds of each round after the first few."""
    return [once(number) * 1_000 for number in range(_WARM_UP + rounds)][_WARM_UP:]


def _p99(times: list[float]) -> float:
    return statistics.quantiles(times, n=100)[98]


if __name__ == "__main__":
    sys.exit(main())
