"""Committed offsets of one group. In Kafka they are a topic; here they are a table that goes with the broker."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from castlegate_broker.errors import Code, Refused

_MAX_METADATA = 4096


@dataclass(frozen=True, slots=True)
class Committed:
    """Where a group goes on in one partition."""

    offset: int
    leader_epoch: int
    metadata: str


NEVER_COMMITTED = Committed(-1, -1, "")


class Offsets:
    """Committed offsets by topic and partition; there are no more than there are partitions."""

    __slots__ = ("_topics",)

    def __init__(self) -> None:
        self._topics: dict[str, dict[int, Committed]] = {}

    def __bool__(self) -> bool:
        return bool(self._topics)

    def __iter__(self) -> Iterator[tuple[str, Iterable[int]]]:
        return ((name, partitions.keys()) for name, partitions in self._topics.items())

    def commit(self, topic: str, index: int, committed: Committed) -> None:
        """Keep an offset; raises `Refused`."""
        if len(committed.metadata) > _MAX_METADATA:
            raise Refused(Code.OFFSET_METADATA_TOO_LARGE)
        self._topics.setdefault(topic, {})[index] = committed

    def find(self, topic: str, index: int) -> Committed:
        """The committed offset, or `NEVER_COMMITTED`."""
        return self._topics.get(topic, {}).get(index, NEVER_COMMITTED)

    def forget(self, topic: str, index: int) -> None:
        """Drop the offset of one partition."""
        partitions = self._topics.get(topic, {})
        partitions.pop(index, None)
        if not partitions:
            self._topics.pop(topic, None)

    def forget_topic(self, topic: str) -> None:
        """Drop the offsets of a deleted topic."""
        self._topics.pop(topic, None)
