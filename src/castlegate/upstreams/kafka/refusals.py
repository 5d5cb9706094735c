"""Which of librdkafka's settings an operator may give: any but those the gateway's promises hang on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

_BOOTSTRAP = "say it with 'bootstrap' of 'kafka'"
_INBOX = "the inbox reads one partition without a consumer group"
_ONCE = "the gateway's producers are idempotent and wait for all in-sync replicas"
_DEADLINES = "a record waits as long as the longest timeout of a route"
_CREATED = "topics are never created by asking for them"
_REPORTS = "the gateway needs its own callbacks"

_NOT_ALONE = "Failed to create"  # how librdkafka's words begin when a setting needs others beside it

_REFUSED: Mapping[str, str] = {
    "bootstrap.servers": _BOOTSTRAP,
    "metadata.broker.list": _BOOTSTRAP,
    "group.id": _INBOX,
    "group.instance.id": _INBOX,
    "group.protocol": _INBOX,
    "group.remote.assignor": _INBOX,
    "partition.assignment.strategy": _INBOX,
    "enable.auto.commit": _INBOX,
    "auto.commit.enable": _INBOX,
    "enable.auto.offset.store": _INBOX,
    "auto.offset.reset": "the inbox finds its place again by itself",
    "enable.partition.eof": _INBOX,
    "acks": _ONCE,
    "request.required.acks": _ONCE,
    "enable.idempotence": _ONCE,
    "enable.gapless.guarantee": _ONCE,
    "transactional.id": _ONCE,
    "max.in.flight": _ONCE,
    "max.in.flight.requests.per.connection": _ONCE,
    "retries": _ONCE,
    "message.send.max.retries": _ONCE,
    "message.timeout.ms": _DEADLINES,
    "delivery.timeout.ms": _DEADLINES,
    "allow.auto.create.topics": _CREATED,
    "delivery.report.only.error": _REPORTS,
    "dr_cb": _REPORTS,
    "dr_msg_cb": _REPORTS,
    "on_delivery": _REPORTS,
    "on_commit": _REPORTS,
    "error_cb": _REPORTS,
    "log_cb": _REPORTS,
    "logger": _REPORTS,
    "stats_cb": _REPORTS,
    "throttle_cb": _REPORTS,
    "oauth_cb": _REPORTS,
    "message.max.bytes": "say it with 'max_record' of 'kafka'",
    "queue.buffering.max.messages": "say it with 'max_queued' of 'kafka'",
    "linger.ms": "the gateway batches by itself, see 'linger_above' of 'kafka'",
    "queue.buffering.max.ms": "the gateway batches by itself, see 'linger_above' of 'kafka'",
    "partitioner": "keys go where Java and kafkajs clients put them",
}


def owned_by_gateway(given: Mapping[str, str | int | float | bool]) -> dict[str, str]:
    """Name to reason, of those that are not the operator's to set."""
    return {name: _REFUSED[name] for name in given if name in _REFUSED}


def refused_settings(given: Mapping[str, str | int | float | bool]) -> dict[str, str]:
    """The same, and those that librdkafka itself does not take, in its own words: they may repeat values."""
    refused = owned_by_gateway(given)
    for name, value in given.items():
        reason = "" if name in refused else _tried(_producer, {name: value})
        if reason and _NOT_ALONE not in reason:
            refused[name] = reason
    return refused


def refused_together(configs: Mapping[str, Mapping[str, Any]]) -> str:
    """What librdkafka has against settings that it takes one by one, in a client of each kind; nothing if all is well.

    `configs` are those of the gateway's clients, by kind: producer, consumer or admin.
    """
    for kind, config in configs.items():
        # With OIDC a client fetches its first token as soon as there is one, over the network.
        if config.get("sasl.oauthbearer.method") == "oidc":
            return ""
        if reason := _tried(_KINDS[kind], config):
            return reason
    return ""


def _tried(make: Callable[[dict[str, Any]], object], config: Mapping[str, Any]) -> str:
    """Why no client can be made with these settings. Without an address of a broker it connects to none."""
    from confluent_kafka import KafkaException  # slow to load, rarely wanted here

    silent = logging.Logger("silent", logging.CRITICAL + 1)
    try:
        make({**config, "logger": silent})
    except KafkaException as failure:
        words: str = failure.args[0].str()
        return f"librdkafka does not take it: {words.strip()}"
    except (TypeError, ValueError):
        return "librdkafka does not take this value for it"
    return ""


def _producer(config: dict[str, Any]) -> object:
    from confluent_kafka import Producer

    return Producer(config)


def _consumer(config: dict[str, Any]) -> object:
    from confluent_kafka import Consumer

    return Consumer(config)


def _admin(config: dict[str, Any]) -> object:
    from confluent_kafka.admin import AdminClient

    return AdminClient(config)


_KINDS = {"producer": _producer, "consumer": _consumer, "admin": _admin}
