"""A client that says exactly what it is told, one socket, no threads: for wire tests and for measuring."""

import itertools
import socket
import struct
from collections.abc import Sequence
from typing import Any, Self

from aiokafka.record.default_records import DefaultRecordBatchBuilder

from castlegate_broker.apis_data import FETCH, METADATA, PRODUCE
from castlegate_broker.codec import Message, message_reader, message_writer, skip_tags
from castlegate_broker.schema import Api

_NO_PRODUCER = -1


def batch(
    *values: bytes,
    producer_id: int = _NO_PRODUCER,
    epoch: int = 0,
    sequence: int = 0,
    timestamp: int = 1_000,
    compression: int = 0,
) -> bytes:
    """A record batch of values, one millisecond apart, as a producer sends it."""
    numbered = producer_id != _NO_PRODUCER
    builder = DefaultRecordBatchBuilder(
        2, compression, 0, producer_id, epoch if numbered else -1, sequence if numbered else -1, 1 << 30
    )
    for offset, value in enumerate(values):
        builder.append(offset, timestamp + offset, None, value, [])
    return bytes(builder.build())


def request_frame(api: Api, version: int, correlation_id: int, body: Message) -> bytes:
    """A request as it goes over the wire."""
    flexible = api.is_flexible(version)
    out = bytearray(struct.pack(">hhih", api.key, version, correlation_id, 3) + b"raw")
    if flexible:
        out.append(0)
    message_writer(api.request, version, flexible=flexible)(out, body)
    return struct.pack(">i", len(out)) + out


def response_body(api: Api, version: int, frame: bytes) -> tuple[int, Message]:
    """Correlation id and body of a response."""
    (correlation_id,) = struct.unpack_from(">i", frame)
    flexible = api.is_flexible(version)
    # ApiVersions answers in the old header in all versions (KIP-511).
    at = skip_tags(frame, 4) if flexible and api.key != 18 else 4
    body, end = message_reader(api.response, version, flexible=flexible)(frame, at)
    assert end == len(frame), f"{len(frame) - end} bytes left over"
    return correlation_id, body


class RawClient:
    """A connection to a broker."""

    def __init__(self, bootstrap: str, *, receive_buffer: int | None = None) -> None:
        host, _, port = bootstrap.rpartition(":")
        self.socket = socket.socket()
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(10)
        self.socket.connect((host, int(port)))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._ids = itertools.count(1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, api: Api, version: int, body: Message) -> int:
        """Send a request and return its correlation id."""
        correlation_id = next(self._ids)
        self.socket.sendall(request_frame(api, version, correlation_id, body))
        return correlation_id

    def receive(self, api: Api, version: int) -> tuple[int, Message]:
        """Receive the next response: its correlation id and body."""
        (size,) = struct.unpack(">i", self._exactly(4))
        return response_body(api, version, self._exactly(size))

    def ask(self, api: Api, version: int, body: Message) -> Message:
        """Send a request and receive its response."""
        sent = self.send(api, version, body)
        correlation_id, found = self.receive(api, version)
        assert correlation_id == sent
        return found

    def closed(self) -> bool:
        """Whether the broker hangs up without a further byte."""
        try:
            return self.socket.recv(1) == b""
        except ConnectionResetError:
            return True

    def create(self, topic: str) -> None:
        """Have a topic created by asking for it."""
        body = {"topics": [{"name": topic, "topic_id": bytes(16)}], **_METADATA_FLAGS}
        assert self.ask(METADATA, 12, body)["topics"][0]["error_code"] == 0

    def produce(self, topic: str, records: bytes, *, partition: int = 0, acks: int = 1) -> dict[str, Any]:
        """Write one batch; the answer for its partition."""
        answer = self.ask(PRODUCE, 9, produce_body(topic, records, partition=partition, acks=acks))
        found: dict[str, Any] = answer["topics"][0]["partitions"][0]
        return found

    def fetch(self, topic: str, offset: int, **limits: Any) -> dict[str, Any]:
        """Read from an offset on; the answer for its partition."""
        found: dict[str, Any]
        found = self.ask(FETCH, 12, fetch_body(topic, offset, **limits))["topics"][0]["partitions"][0]
        return found

    def _exactly(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            more = self.socket.recv(min(size - len(data), 1 << 20))
            if not more:
                raise EOFError(f"hung up after {len(data)} of {size} bytes")
            data += more
        return bytes(data)


_METADATA_FLAGS = {
    "allow_auto_topic_creation": True,
    "include_cluster_authorized_operations": False,
    "include_topic_authorized_operations": False,
}


def produce_body(topic: str, records: bytes, *, partition: int = 0, acks: int = 1) -> Message:
    """A produce request of one batch."""
    partitions = [{"index": partition, "records": [records]}]
    topics = [{"name": topic, "partitions": partitions}]
    return {"transactional_id": None, "acks": acks, "timeout_ms": 1_000, "topics": topics}


def fetch_body(
    topic: str,
    offset: int,
    *,
    max_wait_ms: int = 0,
    min_bytes: int = 1,
    max_bytes: int = 1 << 26,
    partition_max_bytes: int = 1 << 26,
    partitions: Sequence[int] = (0,),
) -> Message:
    """A fetch request for partitions of one topic."""
    wanted = [{"index": index, "offset": offset, "max_bytes": partition_max_bytes} for index in partitions]
    wanted = [{"current_leader_epoch": -1, "last_fetched_epoch": -1, **one} for one in wanted]
    return {
        "replica_id": -1,
        "max_wait_ms": max_wait_ms,
        "min_bytes": min_bytes,
        "max_bytes": max_bytes,
        "isolation_level": 0,
        "topics": [{"name": topic, "partitions": wanted}],
        "forgotten_topics": [],
        "rack_id": "",
    }
