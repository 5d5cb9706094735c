"""Answers as the request tells it to, well or badly: for tests of the `plain` dialect and of bad replies.

The request's JSON may hold `replies`, a list of objects, each a record to send back:

    value      JSON to answer; or `text`, or `hex` for any bytes; none of them is a null value
    headers    {name: value} or [[name, value], ...]; a value is text, {"hex": "ff"} or null
    id         the correlation id: left out the request's own; null none; text; {"hex": "ff"}; {"size": 1000000}
    delay_ms   when to send it, counted from the request's arrival
    times      how often

`{"replies": []}` answers nothing; a request without `replies` is answered with its own payload and headers.

Environment: BOOTSTRAP; LEDGER, a file that gets a line for each request; TOPICS (default `plain.script`);
CORRELATION_HEADER, REPLY_TOPIC_HEADER, REPLY_PARTITION_HEADER. Prints `ready` when it reads all partitions.
"""

import heapq
import itertools
import json
import os
import signal
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, Message, Producer, TopicPartition

Headers = list[tuple[str, str | bytes | None]]
Reply = Mapping[str, Any]  # as the request wrote it

CORRELATION = os.environ.get("CORRELATION_HEADER", "correlation-id")
REPLY_TOPIC = os.environ.get("REPLY_TOPIC_HEADER", "reply-topic")
REPLY_PARTITION = os.environ.get("REPLY_PARTITION_HEADER", "reply-partition")


class Responder:
    """Reads requests and keeps the replies that are due later in a heap."""

    def __init__(self, bootstrap: str, topics: Iterable[str], ledger: Path | None) -> None:
        self._ledger = ledger
        client = {"bootstrap.servers": bootstrap, "reconnect.backoff.max.ms": 500}  # back soon after a broker's fault
        self._producer = Producer({**client, "linger.ms": 0, "message.max.bytes": 20_000_000})
        self._consumer = Consumer({**client, "group.id": "plain", "enable.auto.commit": False})
        self._due: list[tuple[float, int, Message, Reply]] = []
        self._number = itertools.count()
        # By hand and from the start: no group to join, and no request missed that came before.
        self._consumer.assign(
            [
                TopicPartition(topic, partition, OFFSET_BEGINNING)
                for topic in topics
                for partition in self._consumer.list_topics(topic, timeout=10).topics[topic].partitions
            ]
        )

    def run(self) -> None:
        """Serve until the program is ended."""
        while True:
            message = self._consumer.poll(self._until_next())
            self._producer.poll(0)
            if message is not None and message.error() is None:
                self._take(message)
            while self._due and self._due[0][0] <= time.monotonic():
                _, _, request, reply = heapq.heappop(self._due)
                self._send(request, reply)

    def _until_next(self) -> float:
        return max(0.0, min(1.0, self._due[0][0] - time.monotonic())) if self._due else 1.0

    def _take(self, message: Message) -> None:
        now = time.monotonic()
        payload = _parsed(message.value())
        if self._ledger:
            with self._ledger.open("a") as ledger:
                ledger.write(json.dumps(_seen(message, payload)) + "\n")
        scripted = payload.get("replies") if isinstance(payload, dict) else None
        replies: list[Reply] = [{"value": _seen(message, payload)}] if scripted is None else scripted
        for reply in replies:
            for _ in range(reply.get("times", 1)):
                heapq.heappush(self._due, (now + reply.get("delay_ms", 0) / 1000, next(self._number), message, reply))

    def _send(self, request: Message, reply: Reply) -> None:
        asked = _received(request)
        reply_topic, reply_partition = asked.get(REPLY_TOPIC), asked.get(REPLY_PARTITION)
        if reply_topic is None:
            return
        headers: Headers = _headers(reply.get("headers", {}))
        identity = _identity(reply, asked.get(CORRELATION))
        if identity is not None:
            headers.append((CORRELATION, identity))
        self._producer.produce(
            reply_topic.decode(),
            _value(reply),
            partition=-1 if reply_partition is None else int(reply_partition),
            headers=headers,
        )
        self._producer.poll(0)


def _value(reply: Reply) -> bytes | None:
    if "value" in reply:
        return json.dumps(reply["value"]).encode()
    if "text" in reply:
        return str(reply["text"]).encode()
    return bytes.fromhex(reply["hex"]) if "hex" in reply else None


def _identity(reply: Reply, own: bytes | None) -> bytes | None:
    if "id" not in reply:
        return own
    wanted = reply["id"]
    if isinstance(wanted, dict) and "size" in wanted:
        return b"a" * int(wanted["size"])
    return _bytes(wanted)


def _headers(wanted: Any) -> Headers:
    pairs = wanted.items() if isinstance(wanted, dict) else wanted
    return [(name, _bytes(value)) for name, value in pairs]


def _bytes(value: Any) -> bytes | None:
    if isinstance(value, dict):
        return bytes.fromhex(value["hex"])
    return None if value is None else str(value).encode()


def _parsed(value: bytes | None) -> Any:
    try:
        return json.loads(value or b"null")
    except ValueError:
        return _text(value)


def _seen(message: Message, payload: Any) -> dict[str, Any]:
    headers = {name: _text(value) for name, value in _received(message).items()}
    return {
        "topic": message.topic(),
        "partition": message.partition(),
        "correlation_id": headers.get(CORRELATION),
        "headers": headers,
        "key": _text(message.key()),
        "payload": payload,
    }


def _received(message: Message) -> dict[str, bytes | None]:
    # Read as pairs of bytes, whatever the types allow for sending.
    return {name: value.encode() if isinstance(value, str) else value for name, value in _pairs(message.headers())}


def _pairs(headers: Any) -> Headers:
    return headers or []


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("utf-8", "backslashreplace")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    ledger_path = os.environ.get("LEDGER")
    responder = Responder(
        os.environ["BOOTSTRAP"],
        os.environ.get("TOPICS", "plain.script").split(","),
        Path(ledger_path) if ledger_path else None,
    )
    print("ready", flush=True)
    responder.run()
