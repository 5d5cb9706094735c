"""Topic settings: which names clients may use, which values they may have, and which of them do something here.

`max.message.bytes` and `retention.bytes` take effect; the others are remembered and described, so that code
written for a real cluster runs: nothing is compacted, and nothing expires by time.
"""

from collections.abc import Callable

from castlegate_broker.errors import Code, Refused
from castlegate_broker.settings import Settings

_LONG = 5
_INT = 3
_STRING = 2
_LIST = 7
_BOOLEAN = 1
_DOUBLE = 6

# Name -> (type number of DescribeConfigs, Kafka's default).
TOPIC_CONFIGS: dict[str, tuple[int, str]] = {
    "cleanup.policy": (_LIST, "delete"),
    "compression.type": (_STRING, "producer"),
    "delete.retention.ms": (_LONG, "86400000"),
    "file.delete.delay.ms": (_LONG, "60000"),
    "flush.messages": (_LONG, "9223372036854775807"),
    "flush.ms": (_LONG, "9223372036854775807"),
    "index.interval.bytes": (_INT, "4096"),
    "max.compaction.lag.ms": (_LONG, "9223372036854775807"),
    "max.message.bytes": (_INT, ""),
    "message.timestamp.after.max.ms": (_LONG, "3600000"),
    "message.timestamp.before.max.ms": (_LONG, "9223372036854775807"),
    "message.timestamp.type": (_STRING, "CreateTime"),
    "min.cleanable.dirty.ratio": (_DOUBLE, "0.5"),
    "min.compaction.lag.ms": (_LONG, "0"),
    "min.insync.replicas": (_INT, "1"),
    "preallocate": (_BOOLEAN, "false"),
    "retention.bytes": (_LONG, ""),
    "retention.ms": (_LONG, "604800000"),
    "segment.bytes": (_INT, "1073741824"),
    "segment.index.bytes": (_INT, "10485760"),
    "segment.jitter.ms": (_LONG, "0"),
    "segment.ms": (_LONG, "604800000"),
    "unclean.leader.election.enable": (_BOOLEAN, "false"),
}

_CHECKS: dict[int, Callable[[str], object]] = {_LONG: int, _INT: int, _DOUBLE: float}
_MAX_VALUE = 1_000


def check_configs(configs: dict[str, str]) -> None:
    """Raise `Refused` for a name that Kafka doesn't know or a value that is no number where one is due."""
    for name, value in configs.items():
        if name not in TOPIC_CONFIGS:
            raise Refused(Code.INVALID_CONFIG, f"Unknown topic config name: {name}")
        check = _CHECKS.get(TOPIC_CONFIGS[name][0], str)
        try:
            check(value)
        except ValueError:
            raise Refused(Code.INVALID_CONFIG, f"Invalid value {value[:100]} for configuration {name}") from None
        if len(value) > _MAX_VALUE:
            raise Refused(Code.INVALID_CONFIG, f"the value of {name} is longer than {_MAX_VALUE}")


def config_int(configs: dict[str, str], name: str, default: int) -> int:
    """A checked numeric setting."""
    value = configs.get(name)
    return default if value is None else int(value)


def default_value(name: str, settings: Settings) -> str:
    """What a topic that doesn't set it has."""
    if name == "max.message.bytes":
        return str(settings.max_message_bytes)
    if name == "retention.bytes":
        return str(settings.retention_bytes)
    return TOPIC_CONFIGS[name][1]
