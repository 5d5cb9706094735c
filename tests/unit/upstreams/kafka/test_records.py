"""Headers that every record carries, settings that are refused, failures in our words."""

import time
from typing import Any

import pytest
from confluent_kafka import KafkaError
from tests.kafka.calls import REQUEST_ID, TRACE, make_call

from castlegate.errors import Kind, Kinds, Outcome
from castlegate.telemetry.trace import Trace
from castlegate.upstreams.kafka.client import ClientLog, Clients, RateLimit
from castlegate.upstreams.kafka.context import Forwarding, add_context, as_utf8, said_by_endpoint
from castlegate.upstreams.kafka.delivery import refused, undelivered
from castlegate.upstreams.kafka.dialects.dialect import SentHeaders
from castlegate.upstreams.kafka.refusals import refused_settings, refused_together
from castlegate.upstreams.kafka.settings import Kafka, OwnedTopics
from castlegate.upstreams.kafka.topics import creation_command, inbox_topic


def test_every_record_carries_trace_request_id_and_deadline() -> None:
    headers: SentHeaders = []
    add_context(headers, make_call(deadline=12.5), 10.0, 12.5)
    sent = dict(headers)
    deadline = sent.pop("x-deadline-ms")
    assert sent == {"traceparent": TRACE.traceparent, "tracestate": b"vendor=1", "x-request-id": REQUEST_ID}
    assert isinstance(deadline, bytes)
    assert abs(int(deadline) / 1000 - (time.time() + 2.5)) < 1


@pytest.mark.parametrize("state", [None, b"\xff"])
def test_a_tracestate_that_is_none_or_not_ascii_is_left_out(state: bytes | None) -> None:
    headers: SentHeaders = []
    trace = Trace(TRACE.traceparent, state)
    add_context(headers, make_call(deadline=1.0, trace=trace), 0.0, 1.0)
    assert "tracestate" not in dict(headers)


def test_only_listed_fields_of_the_client_are_forwarded_and_none_of_ours() -> None:
    forwarding = Forwarding(["X-Tenant", "accept-language", "x-tenant", "X-Deadline-Ms", "traceparent"])
    fields = [
        (b"x-tenant", b"a"), (b"x-tenant", b"b"), (b"cookie", b"s"), (b"x-deadline-ms", b"1"), (b"accept-language", b"\xe9")
    ]  # fmt: skip
    call = make_call(deadline=0.0, client_headers=fields)
    assert forwarding.of(call) == [("x-tenant", b"a, b"), ("accept-language", "é".encode())]
    assert not Forwarding([])


def test_values_travel_as_utf8() -> None:
    assert as_utf8(b"plain") == b"plain"
    assert as_utf8("é".encode()) == "é".encode()
    assert as_utf8(b"\xe9") == "é".encode()
    assert said_by_endpoint(make_call(deadline=0.0, headers=[(b"x-a", b"\xe9")])) == [("x-a", "é".encode())]


@pytest.mark.parametrize(
    "name",
    ["bootstrap.servers", "group.id", "acks", "enable.idempotence", "linger.ms", "partitioner", "message.timeout.ms",
     "error_cb", "auto.offset.reset", "message.max.bytes", "allow.auto.create.topics"],
)  # fmt: skip
def test_settings_that_the_gateway_depends_on_are_refused(name: str) -> None:
    assert list(refused_settings({name: "x"})) == [name]


def test_settings_that_librdkafka_does_not_take_are_refused_in_its_words() -> None:
    reasons = refused_settings({"sasl.pasword": "x", "socket.timeout.ms": 5, "security.protocol": "x"})
    assert list(reasons) == ["sasl.pasword", "socket.timeout.ms", "security.protocol"]
    assert 'No such configuration property: "sasl.pasword"' in reasons["sasl.pasword"]
    assert "outside allowed range 10..300000" in reasons["socket.timeout.ms"]


def test_settings_that_do_not_go_together_are_refused_by_the_client_that_they_fail() -> None:
    lone: dict[str, str | int | float | bool] = {"security.protocol": "sasl_plaintext", "sasl.mechanism": "PLAIN"}
    assert refused_settings(lone) == {}
    reason = refused_together(_offline(lone))
    assert "sasl.username and sasl.password must be set" in reason
    whole = {**lone, "sasl.username": "u", "sasl.password": "p", "debug": "all"}
    assert refused_together(_offline(whole)) == ""
    assert "fetch.max.bytes" in refused_together(_offline({"fetch.max.bytes": 10}))


def _offline(given: dict[str, str | int | float | bool]) -> dict[str, dict[str, Any]]:
    return Clients(Kafka(bootstrap="a:1", librdkafka=given), client_id="c", longest_timeout=1).offline()


def test_settings_for_security_and_tuning_are_taken() -> None:
    given: dict[str, str | int | float | bool] = {
        "security.protocol": "SASL_SSL", "sasl.mechanism": "SCRAM-SHA-512", "sasl.username": "u", "sasl.password": "p",
        "ssl.ca.location": "/etc/ca.pem", "compression.type": "lz4", "socket.keepalive.enable": True,
        "fetch.max.bytes": 2_000_000, "client.rack": "a", "debug": "broker",
    }  # fmt: skip
    assert refused_settings(given) == {}


def test_what_operators_give_goes_over_our_defaults_and_under_our_promises() -> None:
    settings = Kafka(bootstrap="a:1", librdkafka={"reconnect.backoff.max.ms": 9, "acks": "0"}, max_record=5000)
    config = Clients(settings, client_id="c", longest_timeout=12.5, on_partitions=lambda: None).producer(
        "x", 0.5, lambda _: None
    )
    assert config["reconnect.backoff.max.ms"] == 9
    assert (config["acks"], config["message.timeout.ms"], config["message.max.bytes"]) == ("all", 12500, 5000)


def test_the_command_that_makes_an_inbox() -> None:
    settings = Kafka(bootstrap="b:9092", topics=OwnedTopics(replication=3, retention=60.0))
    assert creation_command(settings, "castlegate.replies", inbox_topic(settings, 8)) == (
        "kafka-topics.sh --bootstrap-server b:9092 --create --topic castlegate.replies --partitions 8"
        " --replication-factor 3 --config cleanup.policy=delete --config retention.ms=60000"
    )


@pytest.mark.parametrize(
    ("code", "kind", "outcome"),
    [
        (KafkaError.MSG_SIZE_TOO_LARGE, Kinds.RECORD_TOO_LARGE, Outcome.NOT_SENT),
        (KafkaError._MSG_TIMED_OUT, Kinds.TIMEOUT, Outcome.UNKNOWN),
        (KafkaError.UNKNOWN_TOPIC_OR_PART, Kinds.TOPIC_MISSING, Outcome.UNKNOWN),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, Kinds.NOT_PERMITTED, Outcome.UNKNOWN),
        (KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND, Kinds.NOT_STORED, Outcome.UNKNOWN),
        (KafkaError._PURGE_INFLIGHT, Kinds.NOT_STORED, Outcome.UNKNOWN),
    ],
)
def test_a_failed_report_leaves_open_what_happened_but_for_the_size(code: int, kind: Kind, outcome: Outcome) -> None:
    failed = undelivered(KafkaError(code))
    assert (failed.kind, failed.outcome) == (kind, outcome)
    assert refused(KafkaError(code)).outcome is Outcome.NOT_SENT


def test_lines_of_a_kind_are_written_once_in_a_while_and_the_others_counted() -> None:
    limit = RateLimit(every=1000)
    assert [limit.admit("a"), limit.admit("a"), limit.admit("b")] == [0, None, 0]
    quick = RateLimit(every=0)
    assert [quick.admit("a"), quick.admit("a")] == [0, 0]


def test_librdkafkas_log_is_ours_but_for_settings_of_other_clients(caplog: pytest.LogCaptureFixture) -> None:
    changed: list[None] = []
    client_log = ClientLog(lambda: changed.append(None))
    client_log.log(30, "%s [%s] %s", "CONFWARN", "c", "fetch.max.bytes will be ignored by this producer instance")
    client_log.log(40, "%s [%s] %s", "FAIL", "c", "connection refused")
    client_log.log(40, "%s [%s] %s", "FAIL", "c", "connection refused")
    assert caplog.messages == ["FAIL [c] connection refused"]


def test_a_topic_that_has_changed_is_told_of_by_librdkafkas_log() -> None:
    changed: list[None] = []
    client_log = ClientLog(lambda: changed.append(None))
    for facility in ("FAIL", "PARTCNT", "PARTCNT", "GETPID"):
        client_log.log(20, "%s [%s] ", facility, "client", "text")
    assert len(changed) == 2, "each time, however few of its lines are written"
