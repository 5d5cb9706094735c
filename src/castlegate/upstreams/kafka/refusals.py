"""Which of librdkafka's settings an operator may give: any but those the gateway's promises hang on."""

from __future__ import annotations

from collections.abc import Mapping

_BOOTSTRAP = "say it with 'bootstrap' of 'kafka'"
_INBOX = "the inbox reads one partition without a consumer group"
_ONCE = "the gateway's producers are idempotent and wait for all in-sync replicas"
_DEADLINES = "a record waits as long as the longest timeout of a route"
_CREATED = "topics are never created by asking for them"
_REPORTS = "the gateway needs its own callbacks"

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
    """The same, and those that librdkafka itself does not take. Values are not repeated: they may be secrets."""
    refused = owned_by_gateway(given)
    for name, value in given.items():
        if name not in refused and (reason := _unacceptable(name, value)):
            refused[name] = reason
    return refused


def refused_together(given: Mapping[str, str | int | float | bool]) -> str | None:
    """What librdkafka has against settings that it takes one by one, such as a file that is not there."""
    from confluent_kafka import KafkaException, Producer

    if "sasl.oauthbearer.method" in given:
        return None  # it would ask for a token at once
    try:
        Producer({**{name: _as_text(value) for name, value in given.items()}, "log_level": 0})
    except KafkaException as error:
        text: str = error.args[0].str()
        return text.removeprefix("Failed to create producer: ")
    return None


def _unacceptable(name: str, value: str | float) -> str | None:
    """What librdkafka has against it, on its own."""
    from confluent_kafka import KafkaException, Producer  # slow to load, rarely wanted here

    try:
        # Without an address of a broker it connects to none; told to log nothing, it does not complain of that.
        Producer({name: _as_text(value), "log_level": 0})
    except KafkaException as error:
        text = error.args[0].str()
        if "No such configuration property" in text:
            return "librdkafka has no such setting"
        if "Invalid value" in text:
            return "librdkafka does not take this value for it"
    except (TypeError, ValueError):
        return "librdkafka does not take this value for it"
    return None


def _as_text(value: str | float) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
