"""A record through the inbox and back, sent and read by the same means as the gateway's own.

It goes to every partition of an inbox topic under a correlation id of its own, so that each gateway that runs takes it
for another one's reply and drops it.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from typing import NamedTuple

from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME, KafkaError, KafkaException, Message, Producer
from confluent_kafka.admin import AdminClient

from castlegate.doctor.findings import Finding
from castlegate.doctor.topics import Need
from castlegate.telemetry.metrics import Registry
from castlegate.upstreams.kafka.client import Clients
from castlegate.upstreams.kafka.dialects.dialect import SentHeaders
from castlegate.upstreams.kafka.inbox import Counters, Events, Inbox, Received
from castlegate.upstreams.kafka.settings import Kafka
from castlegate.upstreams.kafka.topics import Order, Refused, Topics, Unreachable

_SKEW_S = 1.0  # that is worth a note
_PURGE_S = 0.5
_STEP_S = 0.01
_ROUNDS = 2


class _Stored(NamedTuple):
    """What the broker acknowledged."""

    error: KafkaError | None
    appended: float | None  # by the broker's clock, in seconds since 1970, where the topic has that
    now: float


def round_trip(
    admin: AdminClient, settings: Kafka, clients: Clients, need: Need, partitions: int, within: float
) -> list[Finding]:
    """For one inbox topic. Blocks for up to about three times `within`."""
    check = f"round trip through {need.topic}"
    tag = os.urandom(8).hex().encode()
    came: queue.Queue[bytes | str] = queue.Queue()
    assigned = threading.Event()
    inbox = _inbox(clients, tag, came, assigned)
    inbox.correlation = {need.topic: need.correlation}
    try:
        order = Topics(admin, settings).place(Order(need.topic, tuple(range(partitions))), within)
    except (Unreachable, Refused) as failure:
        return [
            Finding(check, "wrong", f"the ends of its partitions cannot be read: {failure}", "see the broker's log")
        ]
    inbox.start()
    try:
        inbox.read([order])
        if not assigned.wait(within):
            return [Finding(check, "wrong", f"it could not be read within {within:g} s", "see the broker's log")]
        return _probe(check, clients, need, tag, partitions, came, within)
    finally:
        inbox.stop()
        inbox.join()


def _inbox(clients: Clients, tag: bytes, came: queue.Queue[bytes | str], assigned: threading.Event) -> Inbox:
    registry = Registry()

    def deliver(batch: list[Received]) -> None:
        for correlation_id, _, _ in batch:
            came.put(correlation_id)
        inbox.finished()

    events = Events(
        deliver=deliver,
        unidentified=lambda _count: None,  # replies of others
        assigned=lambda _order: assigned.set(),
        misplaced=lambda topic, partition: came.put(f"the place in {topic}/{partition} was lost"),
        lost=lambda _topic, reason: came.put(reason),
        error=lambda _error: None,  # told by what fails because of it
    )
    counters = Counters(
        registry.counter("foreign", "").child(), registry.gauge("lag", "").child(), registry.histogram("r", "").child()
    )
    inbox = Inbox(clients, tag, events, counters)
    return inbox


def _probe(
    check: str,
    clients: Clients,
    need: Need,
    tag: bytes,
    partitions: int,
    came: queue.Queue[bytes | str],
    within: float,
) -> list[Finding]:
    config = clients.producer("doctor", 0.0, lambda _error: None)
    producer = Producer({**config, "message.timeout.ms": max(1000, round(within * 1000))})
    stored: list[_Stored] = []
    took = 0.0
    try:
        # The first record of a producer waits for connections and for its id: the second round is the one to measure.
        for number in range(_ROUNDS):
            ids = {b"%b%08x%08x" % (tag, number, partition): partition for partition in range(partitions)}
            began = time.monotonic()
            _send(producer, need, ids, stored)
            missing, lost = _await(producer, stored, ids, came, began + within)
            took = time.monotonic() - began
            if failed := next((each.error for each in stored if each.error is not None), None):
                return [_refused(check, failed)]
            if missing:
                where = ", ".join(map(str, sorted(missing)))
                why = f": {lost}" if lost else ""
                says = f"what was written to partition {where} did not come back within {within:g} s{why}"
                return [Finding(check, "wrong", says, "see the logs of the brokers that lead these partitions")]
    except KafkaException as failure:
        return [_refused(check, failure.args[0])]
    finally:
        producer.purge()
        producer.flush(_PURGE_S)
    return [Finding(check, "well", f"a record to each partition came back within {took * 1000:.0f} ms"), _clock(stored)]


def _send(producer: Producer, need: Need, ids: dict[bytes, int], stored: list[_Stored]) -> None:
    """A record with each of the ids, to its partition."""

    def on_report(error: KafkaError | None, message: Message) -> None:
        kind, milliseconds = message.timestamp()
        appended = milliseconds / 1000 if kind == TIMESTAMP_LOG_APPEND_TIME else None
        stored.append(_Stored(error, appended, time.time()))

    for correlation_id, partition in ids.items():
        headers: SentHeaders = [(name, correlation_id) for name in need.correlation]
        producer.produce(need.topic, b"castlegate doctor", partition=partition, headers=headers, on_delivery=on_report)


def _await(
    producer: Producer, stored: list[_Stored], ids: dict[bytes, int], came: queue.Queue[bytes | str], end: float
) -> tuple[set[int], str]:
    """The partitions that nothing came back from, and what the inbox said of that."""
    missing, lost = set(ids.values()), ""
    while missing and time.monotonic() < end and not any(each.error is not None for each in stored):
        producer.poll(0)
        try:
            got = came.get(timeout=_STEP_S)
        except queue.Empty:
            continue
        if isinstance(got, bytes):
            missing.discard(ids.get(got, -1))
        else:
            lost = got
    producer.flush(max(0.0, end - time.monotonic()))
    return missing, lost


def _refused(check: str, error: KafkaError) -> Finding:
    if error.code() in (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED):
        says = "not tried: the gateway may not write to its inbox, and need not; the services must"
        return Finding(check, "note", says)
    if error.code() == KafkaError.INVALID_TIMESTAMP:
        return Finding("clock", "wrong", f"far from the broker's: {error.str()}", "set both by NTP")
    return Finding(check, "wrong", f"a record was not taken: {error.str()}", "see the broker's log")


def _clock(stored: list[_Stored]) -> Finding:
    """How far the broker's clock is from ours: records that it stamps say so."""
    apart = [each.appended - each.now for each in stored if each.appended is not None]
    if not apart:
        says = "not measured: the brokers do not stamp the records of the inbox"
        advice = "to have it measured, create the inbox topics with --config message.timestamp.type=LogAppendTime"
        return Finding("clock", "skipped", says, advice)
    skew = max(apart, key=abs)
    if abs(skew) < _SKEW_S:
        return Finding("clock", "well", f"within {_SKEW_S:g} s of the broker's")
    which = "ahead of" if skew > 0 else "behind"
    says = f"the broker's is {abs(skew):.1f} s {which} this machine's: deadlines that services are told are off by that"
    return Finding("clock", "wrong", says, "set both by NTP")
