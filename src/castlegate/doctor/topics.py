"""Whether the topics that routes need are there, fit for their use, and permitted to the gateway."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Future
from typing import Any, NamedTuple

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AclOperation, AdminClient, ConfigResource  # type: ignore[attr-defined]  # exported, not declared

from castlegate.doctor.findings import Finding
from castlegate.upstreams.kafka.settings import Kafka
from castlegate.upstreams.kafka.topics import Owned, creation_command, inbox_topic

_PARTITIONS = 8  # in the command that is shown for a service's topic


class Need(NamedTuple):
    """A topic and what for."""

    topic: str
    routes: tuple[str, ...]
    written: bool  # requests and events; else replies are read from it
    owned: Owned | None = None  # as the gateway creates it; None: it belongs to a service
    only_one: bool = False  # services cannot be told a partition of it: it must have a single one
    read_back: bool = False  # what is written is read as well, by the gateway itself
    correlation: tuple[str, ...] = ()  # names of the header that holds the correlation id, where replies are read


class Seen(NamedTuple):
    """A need and what became of it."""

    need: Need
    finding: Finding
    partitions: int = 0  # 0 if it cannot be used


def look(admin: AdminClient, settings: Kafka, needs: Iterable[Need], within: float) -> list[Seen]:
    """Describe all of them, with what the gateway may do to each. Blocks."""
    wanted = {need.topic: need for need in needs}
    if not wanted:
        return []
    asked = admin.describe_topics(
        TopicCollection(list(wanted)), include_authorized_operations=True, request_timeout=within
    )
    return [_seen(wanted[topic], future, settings) for topic, future in asked.items()]


def limits(admin: AdminClient, settings: Kafka, seen: Iterable[Seen], within: float) -> list[Finding]:
    """Topics that take less than the gateway would send; nothing where the brokers do not tell. Blocks."""
    written = [each.need for each in seen if each.need.written and each.partitions]
    if not written:
        return []
    asked = admin.describe_configs(
        [ConfigResource(ConfigResource.Type.TOPIC, need.topic) for need in written], request_timeout=within
    )
    found = []
    for resource, future in asked.items():
        if future.exception() is not None:  # it may not be described, which is no right that the gateway needs
            continue
        most = int(future.result()["max.message.bytes"].value)
        if most < settings.max_record:
            says = (
                f"it takes {most} bytes (max.message.bytes), fewer than 'max_record' of 'kafka': {settings.max_record}"
            )
            advice = "larger ones are answered 413 by either; set both alike to have it known at once"
            found.append(Finding(f"topic {resource.name}", "note", says, advice))
    return found


def cleaned(admin: AdminClient, seen: Iterable[Seen], within: float) -> list[Finding]:
    """Topics of the gateway's own that forget what they are to keep, or keep what they are to forget. Blocks."""
    own = {each.need.topic: each.need.owned for each in seen if each.need.read_back and each.partitions}
    if not own:
        return []
    asked = admin.describe_configs(
        [ConfigResource(ConfigResource.Type.TOPIC, topic) for topic in own], request_timeout=within
    )
    found = []
    for resource, future in asked.items():
        owned = own[str(resource.name)]
        if future.exception() is not None or owned is None:
            continue
        wanted, policy = owned.configuration["cleanup.policy"], future.result()["cleanup.policy"].value
        if policy != wanted:
            says = f"its cleanup.policy is {policy}, not {wanted}"
            advice = f"kafka-configs.sh --alter --topic {resource.name} --add-config cleanup.policy={wanted}"
            found.append(Finding(f"topic {resource.name}", "wrong", says, advice))
    return found


def may_create(admin: AdminClient, within: float) -> bool | None:
    """Whether the gateway may create topics; None if the brokers do not tell. Blocks."""
    operations = admin.describe_cluster(include_authorized_operations=True, request_timeout=within).result()
    if operations.authorized_operations is None:
        return None
    return AclOperation.CREATE in operations.authorized_operations


def _seen(need: Need, future: Future[Any], settings: Kafka) -> Seen:
    check = f"topic {need.topic}"
    try:
        described = future.result()
    except KafkaException as failure:
        return Seen(need, _absent(check, need, failure.args[0], settings))
    partitions = len(described.partitions)
    wrong = _forbidden(check, need, described.authorized_operations)
    if wrong is not None:
        return Seen(need, wrong)
    leaderless = [each.id for each in described.partitions if each.leader is None or each.leader.id < 0]
    if leaderless:
        says = f"partitions without a leader: {', '.join(map(str, leaderless))}"
        return Seen(need, Finding(check, "wrong", says, "see which of its brokers are down"))
    if need.only_one and partitions > 1:
        says = f"it has {partitions} partitions: services answer to any of them, and one is read"
        command = creation_command(settings, need.topic, inbox_topic(settings, 1))
        advice = f"delete it and let the gateway create it, or: {command}"
        return Seen(need, Finding(check, "wrong", says, advice))
    told = f"{partitions} partition{'s' if partitions > 1 else ''}"
    return Seen(need, Finding(check, "well", f"{told}, {_purpose(need)}"), partitions)


def _absent(check: str, need: Need, error: KafkaError, settings: Kafka) -> Finding:
    if error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
        return Finding(check, "wrong", "the gateway may not even see it", _grant(need.topic, "Describe"))
    if error.code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
        return Finding(check, "wrong", error.str(), "see the broker's log")
    if need.owned is not None:
        command = creation_command(settings, need.topic, need.owned)
        if settings.topics.create:
            return Finding(check, "note", f"it is not there yet; the gateway creates it when it starts, as: {command}")
        return Finding(check, "wrong", "it does not exist, and 'create' of 'kafka.topics' is false", command)
    command = f"kafka-topics.sh --bootstrap-server {settings.bootstrap} --create --topic {need.topic}"
    harm = f"{', '.join(need.routes)} will be answered 503" if need.written else "replies cannot be read from it"
    says = f"it does not exist: {harm}"
    return Finding(check, "wrong", says, f"start its service, or create it: {command} --partitions {_PARTITIONS}")


def _forbidden(check: str, need: Need, allowed: list[AclOperation] | None) -> Finding | None:
    """What the gateway lacks; nothing if the brokers do not tell."""
    if allowed is None:
        return None
    needed = [(AclOperation.WRITE, "Write")] if need.written else []
    if need.read_back or not need.written:
        needed.append((AclOperation.READ, "Read"))
    for operation, name in needed:
        if operation not in allowed:
            return Finding(check, "wrong", f"the gateway may not {name.lower()} it", _grant(need.topic, name))
    return None


def _grant(topic: str, operation: str) -> str:
    return f"kafka-acls.sh --add --allow-principal User:NAME --operation {operation} --topic {topic}"


def _purpose(need: Need) -> str:
    if need.read_back:
        return "the gateway's own, may be written to and read"
    if need.written:
        return "may be written to"
    return "replies are read from it"
