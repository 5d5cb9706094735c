"""What goes over the wire, said by a client that says exactly what it is told."""

import socket
import struct
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.broker.raw import RawClient, batch, fetch_body, produce_body, request_frame
from tests.testbeds.embedded import EmbeddedBroker

from castlegate_broker.apis_admin import DELETE_TOPICS
from castlegate_broker.apis_data import API_VERSIONS, FETCH, INIT_PRODUCER_ID, METADATA, PRODUCE
from castlegate_broker.apis_groups import FIND_COORDINATOR, JOIN_GROUP
from castlegate_broker.errors import Code


@pytest.fixture
def client(embedded: EmbeddedBroker) -> Iterator[RawClient]:
    with RawClient(embedded.bootstrap) as found:
        yield found


@pytest.fixture
def topic(client: RawClient) -> str:
    name = f"topic-{uuid.uuid4().hex[:10]}"
    client.create(name)
    return name


def _versions(client: RawClient, version: int) -> dict[int, tuple[int, int]]:
    body = {"client_software_name": "raw", "client_software_version": "1"}
    answer = client.ask(API_VERSIONS, version, body)
    assert answer["error_code"] == 0
    return {one["api_key"]: (one["min_version"], one["max_version"]) for one in answer["api_keys"]}


def test_all_versions_of_api_versions_tell_the_same(client: RawClient) -> None:
    told = [_versions(client, version) for version in range(5)]
    assert all(one == told[0] for one in told)
    assert told[0][18] == (0, 4)
    # KAFKA-18659: or librdkafka compresses nothing.
    assert told[0][0][0] == 0


def test_a_version_of_api_versions_from_the_future_is_answered_in_version_0(client: RawClient) -> None:
    client.socket.sendall(struct.pack(">ihhih", 11, 18, 99, 1, 0) + b"\x00")
    _, answer = client.receive(API_VERSIONS, 0)
    assert answer["error_code"] == Code.UNSUPPORTED_VERSION
    assert {"api_key": 18, "min_version": 0, "max_version": 4} in answer["api_keys"]


def test_a_produce_wakes_a_waiting_fetch_at_once(embedded: EmbeddedBroker, client: RawClient, topic: str) -> None:
    with RawClient(embedded.bootstrap) as reader:
        reader.send(FETCH, 12, fetch_body(topic, 0, max_wait_ms=9_000))
        began = time.monotonic()
        client.produce(topic, batch(b"value"))
        _, answer = reader.receive(FETCH, 12)
    assert time.monotonic() - began < 1
    (found,) = answer["topics"][0]["partitions"]
    assert (found["high_watermark"], bytes(found["records"])[16:]) == (1, batch(b"value")[16:])


def test_a_waiting_fetch_waits_for_the_bytes_it_asked_for(
    embedded: EmbeddedBroker, client: RawClient, topic: str
) -> None:
    size = len(batch(b"value"))
    with RawClient(embedded.bootstrap) as reader:
        reader.send(FETCH, 12, fetch_body(topic, 0, max_wait_ms=9_000, min_bytes=3 * size))
        for _ in range(3):
            client.produce(topic, batch(b"value"))
        _, answer = reader.receive(FETCH, 12)
    assert len(answer["topics"][0]["partitions"][0]["records"]) == 3 * size


def test_a_fetch_that_gets_nothing_is_answered_when_its_time_is_up(client: RawClient, topic: str) -> None:
    began = time.monotonic()
    found = client.fetch(topic, 0, max_wait_ms=150)
    assert 0.14 < time.monotonic() - began < 5
    assert (found["error_code"], bytes(found["records"])) == (0, b"")


def test_a_fetch_is_answered_when_its_topic_is_deleted(embedded: EmbeddedBroker, client: RawClient, topic: str) -> None:
    with RawClient(embedded.bootstrap) as reader:
        reader.send(FETCH, 12, fetch_body(topic, 0, max_wait_ms=9_000))
        client.ask(DELETE_TOPICS, 5, {"names": [topic], "timeout_ms": 100})
        _, answer = reader.receive(FETCH, 12)
    assert answer["topics"][0]["partitions"][0]["error_code"] == Code.UNKNOWN_TOPIC_OR_PARTITION


def test_the_first_batch_is_given_even_if_it_is_too_large(client: RawClient, topic: str) -> None:
    data = batch(bytes(500))
    for _ in range(3):
        client.produce(topic, data)
    assert len(client.fetch(topic, 0, max_bytes=10)["records"]) == len(data)
    assert len(client.fetch(topic, 0, partition_max_bytes=2 * len(data))["records"]) == 2 * len(data)


@pytest.mark.parametrize("offset", [-1, 2])
def test_reading_out_of_range_is_told(client: RawClient, topic: str, offset: int) -> None:
    client.produce(topic, batch(b"value"))
    assert client.fetch(topic, offset, max_wait_ms=5_000)["error_code"] == Code.OFFSET_OUT_OF_RANGE


def test_requests_in_a_row_are_answered_in_order(client: RawClient, topic: str) -> None:
    sent = [client.send(PRODUCE, 9, produce_body(topic, batch(b"value"))) for _ in range(50)]
    sent.append(client.send(FETCH, 12, fetch_body(topic, 50, max_wait_ms=100)))
    sent.append(client.send(PRODUCE, 9, produce_body(topic, batch(b"value"))))
    apis = [(PRODUCE, 9)] * 50 + [(FETCH, 12), (PRODUCE, 9)]
    answers = [client.receive(api, version) for api, version in apis]
    assert [correlation_id for correlation_id, _ in answers] == sent
    offsets = [answer["topics"][0]["partitions"][0].get("base_offset") for _, answer in answers]
    assert offsets == [*range(50), None, 50]


def test_requests_may_come_in_pieces(client: RawClient, topic: str) -> None:
    for byte in request_frame(PRODUCE, 9, 7, produce_body(topic, batch(b"value"))):
        client.socket.sendall(bytes([byte]))
    assert client.receive(PRODUCE, 9)[0] == 7


def test_no_acknowledgement_is_no_answer(client: RawClient, topic: str) -> None:
    client.send(PRODUCE, 9, produce_body(topic, batch(b"value"), acks=0))
    assert client.fetch(topic, 0)["high_watermark"] == 1


def test_what_cannot_be_written_without_acknowledgement_is_told_by_hanging_up(client: RawClient) -> None:
    client.send(PRODUCE, 9, produce_body("no-such-topic", batch(b"value"), acks=0))
    assert client.closed()


def test_refused_batches_say_why(client: RawClient, topic: str) -> None:
    data = batch(b"value")
    cases = [
        (topic, data[:-1], Code.CORRUPT_MESSAGE),
        (topic, data + data, Code.INVALID_RECORD),
        (topic, batch(bytes(2 << 20)), Code.MESSAGE_TOO_LARGE),
        ("no-such-topic", data, Code.UNKNOWN_TOPIC_OR_PARTITION),
    ]
    for name, records, code in cases:
        answer = client.produce(name, records)
        assert answer["error_code"] == code
        assert answer["error_message"]
    assert client.produce(topic, data, acks=5)["error_code"] == Code.INVALID_REQUIRED_ACKS
    assert client.produce(topic, data, partition=1)["error_code"] == Code.UNKNOWN_TOPIC_OR_PARTITION


def test_a_numbered_batch_sent_twice_is_answered_with_its_offset(client: RawClient, topic: str) -> None:
    fresh = {"transactional_id": None, "transaction_timeout_ms": 0, "producer_id": -1, "producer_epoch": -1}
    got = client.ask(INIT_PRODUCER_ID, 4, fresh)
    client.produce(topic, batch(b"other"))
    data = batch(b"value", producer_id=got["producer_id"], epoch=got["producer_epoch"])
    assert [client.produce(topic, data)["base_offset"] for _ in range(2)] == [1, 1]
    gap = batch(b"value", producer_id=got["producer_id"], epoch=got["producer_epoch"], sequence=5)
    assert client.produce(topic, gap)["error_code"] == Code.OUT_OF_ORDER_SEQUENCE_NUMBER
    bumped = client.ask(INIT_PRODUCER_ID, 4, {**fresh, **{key: got[key] for key in ("producer_id", "producer_epoch")}})
    assert (bumped["producer_id"], bumped["producer_epoch"]) == (got["producer_id"], got["producer_epoch"] + 1)


def test_transactions_are_refused_clearly(client: RawClient) -> None:
    answer = client.ask(FIND_COORDINATOR, 3, {"key": "tx", "key_type": 1})
    assert answer["error_code"] == Code.TRANSACTIONAL_ID_AUTHORIZATION_FAILED
    assert "no transactions" in answer["error_message"]


def test_several_coordinators_are_found_at_once(client: RawClient, embedded: EmbeddedBroker) -> None:
    answer = client.ask(FIND_COORDINATOR, 4, {"key_type": 0, "keys": ["a", "b"]})
    found = [(one["key"], f"{one['host']}:{one['port']}") for one in answer["coordinators"]]
    assert found == [("a", embedded.bootstrap), ("b", embedded.bootstrap)]


def test_topics_are_found_by_their_id(client: RawClient, topic: str) -> None:
    flags = {
        "allow_auto_topic_creation": False,
        "include_cluster_authorized_operations": False,
        "include_topic_authorized_operations": False,
    }
    asked = {"topics": [{"name": topic, "topic_id": bytes(16)}], **flags}
    topic_id = client.ask(METADATA, 12, asked)["topics"][0]["topic_id"]
    asked = {"topics": [{"name": None, "topic_id": one} for one in (topic_id, b"?" * 16)], **flags}
    known, unknown = client.ask(METADATA, 12, asked)["topics"]
    assert (known["name"], unknown["error_code"]) == (topic, Code.UNKNOWN_TOPIC_ID)


def test_nothing_is_created_if_the_client_says_so(client: RawClient) -> None:
    asked = {
        "topics": [{"name": "never-made", "topic_id": bytes(16)}],
        "allow_auto_topic_creation": False,
        "include_cluster_authorized_operations": False,
        "include_topic_authorized_operations": False,
    }
    for _ in range(2):
        assert client.ask(METADATA, 12, asked)["topics"][0]["error_code"] == Code.UNKNOWN_TOPIC_OR_PARTITION


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n",
        struct.pack(">i", -1),
        struct.pack(">i", (32 << 20) + 1),
        struct.pack(">ihhi", 8, 999, 0, 1),
        struct.pack(">ihhih", 10, 1, 99, 1, -1),
        struct.pack(">ihhih", 10, 0, 9, 1, 500),
        struct.pack(">i", 0),
    ],
    ids=["HTTP", "negative size", "too large", "unknown API", "unknown version", "cut client id", "empty"],
)
def test_what_is_no_request_costs_only_its_own_connection(
    embedded: EmbeddedBroker, client: RawClient, data: bytes
) -> None:
    said = embedded.program.line_count
    with RawClient(embedded.bootstrap) as other:
        other.socket.sendall(data)
        assert other.closed()
    embedded.program.wait_for_line("closed the connection of 127.0.0.1", after=said)
    assert embedded.program.line_count == said + 1
    assert _versions(client, 3)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    key=st.sampled_from([*range(24), 32, 33, 37, 42, 44, 47, 60]),
    version=st.integers(0, 12),
    body=st.binary(max_size=200),
)
def test_arbitrary_requests_do_no_harm(
    embedded: EmbeddedBroker, client: RawClient, key: int, version: int, body: bytes
) -> None:
    said = embedded.program.line_count
    frame = struct.pack(">hhih", key, version, 1, -1) + body
    with RawClient(embedded.bootstrap) as other:
        other.socket.sendall(struct.pack(">i", len(frame)) + frame)
        other.socket.shutdown(socket.SHUT_WR)
        other.socket.recv(100)
    assert _versions(client, 3)
    assert "Traceback" not in "\n".join(embedded.program.lines[said - embedded.program.line_count :])


def test_a_client_that_leaves_while_it_waits_is_forgotten(embedded: EmbeddedBroker, client: RawClient) -> None:
    group = f"group-{uuid.uuid4().hex[:10]}"
    body = {
        "group_id": group,
        "session_timeout_ms": 6_000,
        "rebalance_timeout_ms": 400,
        "member_id": "",
        "group_instance_id": None,
        "protocol_type": "consumer",
        "protocols": [{"name": "range", "metadata": b""}],
        "reason": None,
    }
    first = client.ask(JOIN_GROUP, 3, body)
    with RawClient(embedded.bootstrap) as leaving:
        leaving.send(JOIN_GROUP, 3, body)
    again = client.ask(JOIN_GROUP, 3, {**body, "member_id": first["member_id"]})
    assert (again["error_code"], again["leader"]) == (0, first["member_id"])


def _resident_kib(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="resident memory is read from /proc")
def test_endless_writing_and_readers_that_do_not_read_are_held_in_bounded_memory() -> None:
    mib = 1 << 20
    broker = EmbeddedBroker(f"--retention-bytes={4 * mib}", f"--total-bytes={8 * mib}", "--partitions=4")
    data = batch(bytes(256 * 1024))
    try:
        with RawClient(broker.bootstrap) as writer:
            writer.create("endless")
            for index in range(200):
                assert writer.produce("endless", data, partition=index % 4)["error_code"] == 0
            before = _resident_kib(broker.pid)
            idle = [RawClient(broker.bootstrap, receive_buffer=4096) for _ in range(4)]
            oldest = writer.produce("endless", data)["log_start_offset"]
            for reader in idle:
                for _ in range(50):
                    reader.send(FETCH, 12, fetch_body("endless", oldest))
            for index in range(800):
                assert writer.produce("endless", data, partition=index % 4)["error_code"] == 0
            grown = _resident_kib(broker.pid) - before
            for reader in idle:
                reader.socket.close()
        # 200 MiB were written; an idle reader may hold one answer of at most 4 MiB.
        assert grown < 40 * 1024, f"grew by {grown} KiB"
    finally:
        broker.discard()
