"""What became of a record that could not be delivered, in the words of our errors.

librdkafka does not say whether a record of a failed report may have been written, so all of them are `unknown` but the
one that a broker refuses by its size. What `produce()` itself raises never left.
"""

from __future__ import annotations

from confluent_kafka import KafkaError

from castlegate.errors import CallFailed, Kind, Kinds, Outcome

_TOO_LARGE = (KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE, KafkaError.INVALID_MSG_SIZE)
_NO_TOPIC = (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION)
_FORBIDDEN = (
    KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.SASL_AUTHENTICATION_FAILED, KafkaError._AUTHENTICATION,
)  # fmt: skip

# What a look at the topics would explain.
TOPIC_KINDS = frozenset((Kinds.TOPIC_MISSING, Kinds.NOT_PERMITTED))
_DETAILS = {
    Kinds.RECORD_TOO_LARGE: "The message is larger than the broker takes.",
    Kinds.TOPIC_MISSING: "The service's topic does not exist.",
    Kinds.NOT_PERMITTED: "The gateway may not write to the service's topic.",
    Kinds.TIMEOUT: "The message could not be delivered in time.",
    Kinds.NOT_STORED: "The broker did not confirm the message.",
    Kinds.QUEUE_FULL: "Too many messages wait for the broker.",
}


def not_sent(kind: Kind) -> CallFailed:
    """Nothing of it left."""
    return CallFailed(kind, Outcome.NOT_SENT, _DETAILS.get(kind, ""))


def refused(error: KafkaError) -> CallFailed:
    """`produce()` raised."""
    return not_sent(_kind(error))


def undelivered(error: KafkaError) -> CallFailed:
    """A delivery report says that it failed."""
    kind = _kind(error)
    outcome = Outcome.NOT_SENT if kind is Kinds.RECORD_TOO_LARGE else Outcome.UNKNOWN
    return CallFailed(kind, outcome, _DETAILS.get(kind, ""))


def _kind(error: KafkaError) -> Kind:
    code = error.code()
    if code in _TOO_LARGE:
        return Kinds.RECORD_TOO_LARGE
    if code in _NO_TOPIC:
        return Kinds.TOPIC_MISSING
    if code in _FORBIDDEN:
        return Kinds.NOT_PERMITTED
    if code == KafkaError._MSG_TIMED_OUT:
        return Kinds.TIMEOUT
    return Kinds.QUEUE_FULL if code == KafkaError._QUEUE_FULL else Kinds.NOT_STORED
