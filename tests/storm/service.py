"""The service of a storm: answers what it is asked and keeps a ledger of every record it executed.

One line for each: topic, its incarnation, partition, offset, and the id that the request carries. It is written before
the answer leaves. Killed and started again it goes on behind what the ledger holds, so that no record is executed twice
by its own fault: an id that stands there twice was written twice.

Environment: BOOTSTRAP, LEDGER, TOPIC, INCARNATION (of the topic: told anew when it is deleted and made again).
"""

import json
import os
import signal
import sys
import time

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

_PARTITIONS_EVERY_S = 0.5


class Service:
    """Reads all partitions by hand."""

    def __init__(self, bootstrap: str, topic: str, incarnation: str, ledger: str) -> None:
        client = {"bootstrap.servers": bootstrap, "reconnect.backoff.max.ms": 300, "log_level": 0}
        # Else it would believe for 5 minutes what it once heard of a topic that was made anew since.
        fresh = {"topic.metadata.refresh.interval.ms": 500, "allow.auto.create.topics": False}
        self._producer = Producer({**client, **fresh, "linger.ms": 0, "enable.idempotence": True})
        self._consumer = Consumer(
            {**client, "group.id": "storm", "enable.auto.commit": False, "auto.offset.reset": "earliest",
             "fetch.wait.max.ms": 50}
        )  # fmt: skip
        self._topic = topic
        self._incarnation = incarnation
        self._next = _places(ledger, topic, incarnation)
        self._ledger = os.open(ledger, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._reading: set[int] = set()
        self._looked_at = 0.0

    def run(self) -> None:
        """Serve until the program is ended."""
        while True:
            if time.monotonic() - self._looked_at > _PARTITIONS_EVERY_S:
                self._look_for_partitions()
            messages = self._consumer.consume(1, 0.1) + self._consumer.consume(200, 0)
            fine = [message for message in messages if message.error() is None]
            if fine:
                os.write(self._ledger, "".join(self._line(message) for message in fine).encode())
                for message in fine:
                    self._answer(message)
            self._producer.poll(0)

    def _look_for_partitions(self) -> None:
        self._looked_at = time.monotonic()
        try:
            there = set(self._consumer.list_topics(self._topic, timeout=0.5).topics[self._topic].partitions)
        except KafkaException:
            return  # no broker just now
        fresh = sorted(there - self._reading)
        if not fresh:
            return
        self._consumer.incremental_assign(
            [TopicPartition(self._topic, each, self._next.get(each, 0)) for each in fresh]
        )
        first = not self._reading
        self._reading |= set(fresh)
        if first:
            print("ready", flush=True)

    def _line(self, message: Message) -> str:
        identity = json.loads(message.value() or b"{}").get("id", "-")
        return f"{self._topic} {self._incarnation} {message.partition()} {message.offset()} {identity}\n"

    def _answer(self, message: Message) -> None:
        headers = dict(message.headers() or [])
        reply_to, identity = headers.get("reply-topic"), headers.get("correlation-id")
        partition = headers.get("reply-partition")
        if not isinstance(reply_to, bytes) or identity is None:
            return
        while True:
            try:
                self._producer.produce(
                    reply_to.decode(),
                    message.value(),
                    partition=-1 if partition is None else int(partition),
                    headers=[("correlation-id", identity)],
                )
                return
            except BufferError:
                self._producer.poll(0.1)
            except KafkaException as failure:
                if failure.args[0].code() not in (KafkaError._UNKNOWN_PARTITION, KafkaError._UNKNOWN_TOPIC):
                    raise
                print(f"nobody can be told: {reply_to!r} {partition!r} is gone", flush=True)
                return


def _places(ledger: str, topic: str, incarnation: str) -> dict[int, int]:
    """The next offset of each partition."""
    places: dict[int, int] = {}
    if os.path.exists(ledger):
        with open(ledger) as lines:
            for line in lines:
                said = line.split()
                if line.endswith("\n") and said[:2] == [topic, incarnation]:
                    places[int(said[2])] = max(places.get(int(said[2]), 0), int(said[3]) + 1)
    return places


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    Service(os.environ["BOOTSTRAP"], os.environ["TOPIC"], os.environ["INCARNATION"], os.environ["LEDGER"]).run()
