"""A responder in the test's own process, under its control: it answers when it is told to."""

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress

from confluent_kafka import Consumer, KafkaException, Message, Producer, TopicPartition

Headers = Sequence[tuple[str, str | bytes | None]]
Answer = Callable[["Echo", Message], None]


def asked(message: Message) -> dict[str, bytes]:
    """The headers of a request."""
    headers = dict(message.headers() or [])
    return {name: value for name, value in headers.items() if isinstance(value, bytes)}


class Echo:
    """Reads every partition of one topic from its beginning and hands requests of the `plain` dialect to `answer`."""

    def __init__(self, bootstrap: str, topic: str, answer: Answer | None = None) -> None:
        quick = {"bootstrap.servers": bootstrap, "log_level": 0, "reconnect.backoff.max.ms": 200}
        self.seen: list[Message] = []
        self.held = threading.Event()  # while set, requests are seen and not answered
        self._topic = topic
        self._answer = answer or Echo.answer
        self._producer = Producer({**quick, "linger.ms": 0, "message.max.bytes": 20_000_000})
        self._consumer = Consumer(
            {**quick, "group.id": "echo", "enable.auto.commit": False, "auto.offset.reset": "earliest",
             "fetch.wait.max.ms": 50}
        )  # fmt: skip
        self._stopping = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def answer(self, message: Message, value: bytes | None = None, headers: Headers | None = None) -> None:
        """Answer one request, with its own value if nothing else is said."""
        request = asked(message)
        self.send(
            request["reply-topic"].decode(),
            int(request["reply-partition"]) if "reply-partition" in request else -1,
            [*(headers or []), ("correlation-id", request["correlation-id"])],
            message.value() if value is None else value,
        )

    def send(self, topic: str, partition: int, headers: Headers, value: bytes | None) -> None:
        """Any record to any place."""
        with suppress(KafkaException):  # a partition that is no more, as any service may meet
            self._producer.produce(topic, value, partition=partition, headers=list(headers))
        self._producer.poll(0)

    def flush(self) -> None:
        """Wait until all of it is stored."""
        assert self._producer.flush(10) == 0

    def stop(self) -> None:
        """End; nothing of it stays."""
        self._stopping = True
        self._thread.join()
        self._producer.purge()
        self._producer.flush(2)
        self._consumer.close()
        del self._producer, self._consumer

    def _run(self) -> None:
        partitions: list[int] = []
        while not self._stopping and not partitions:
            try:
                partitions = list(self._consumer.list_topics(self._topic, timeout=1).topics[self._topic].partitions)
            except KafkaException:
                continue
        self._consumer.assign([TopicPartition(self._topic, number, 0) for number in partitions])
        while not self._stopping:
            message = self._consumer.poll(0.05)
            self._producer.poll(0)
            if message is None or message.error() is not None:
                continue
            self.seen.append(message)
            if not self.held.is_set() and "reply-topic" in asked(message):
                self._answer(self, message)
