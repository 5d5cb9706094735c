"""Requests about places in a log: offsets by time, the end of an epoch, deleting records before an offset."""

from collections.abc import Callable, Mapping

from castlegate_broker.apis_data import DELETE_RECORDS, LIST_OFFSETS, OFFSET_FOR_LEADER_EPOCH
from castlegate_broker.batch import LEADER_EPOCH
from castlegate_broker.codec import Message
from castlegate_broker.errors import Refused
from castlegate_broker.log import Found, PartitionLog
from castlegate_broker.request import Answer, Handler, Request
from castlegate_broker.schema import Api
from castlegate_broker.topics import Topics

_LATEST = -1
_EARLIEST = -2
_MAX_TIMESTAMP = -3


class PositionHandlers:
    """Handlers of places in logs."""

    def __init__(self, topics: Topics) -> None:
        self._topics = topics

    def table(self) -> Mapping[Api, Handler]:
        """Which API is handled by what."""
        return {
            LIST_OFFSETS: self.list_offsets,
            OFFSET_FOR_LEADER_EPOCH: self.offset_for_leader_epoch,
            DELETE_RECORDS: self.delete_records,
        }

    def list_offsets(self, request: Request) -> Answer:
        """First, next, or first offset not older than a time."""
        return {"topics": self._each(request, self._list_offset)}

    def _list_offset(self, name: str, wanted: Message) -> Message:
        found = _find(self._topics.partition(name, wanted["index"]).log, wanted["timestamp"])
        if found is None:
            return {"leader_epoch": -1}
        return {"offset": found.offset, "timestamp": found.timestamp, "leader_epoch": LEADER_EPOCH}

    def offset_for_leader_epoch(self, request: Request) -> Answer:
        """There is one epoch, and it ends where the log does (KIP-320)."""
        return {"topics": self._each(request, self._epoch_end)}

    def _epoch_end(self, name: str, wanted: Message) -> Message:
        log = self._topics.partition(name, wanted["index"]).log
        if wanted["leader_epoch"] != LEADER_EPOCH:
            return {}
        return {"leader_epoch": LEADER_EPOCH, "end_offset": log.end}

    def delete_records(self, request: Request) -> Answer:
        """Make an offset the first (KIP-107); -1 is the end."""
        return {"topics": self._each(request, self._delete_records)}

    def _delete_records(self, name: str, wanted: Message) -> Message:
        partition = self._topics.partition(name, wanted["index"])
        offset = partition.log.end if wanted["offset"] == -1 else wanted["offset"]
        self._topics.delete_records(partition, offset)
        return {"low_watermark": partition.log.start}

    def _each(self, request: Request, handle: Callable[[str, Message], Message]) -> list[Message]:
        """Ask `handle` for each partition, and turn what it refuses into an error code."""
        topics = []
        for topic in request.body["topics"]:
            partitions = []
            for wanted in topic["partitions"]:
                try:
                    found = handle(topic["name"], wanted)
                except Refused as refused:
                    found = {"error_code": refused.code}
                partitions.append({"index": wanted["index"], **found})
            topics.append({"name": topic["name"], "partitions": partitions})
        return topics


def _find(log: PartitionLog, timestamp: int) -> Found | None:
    if timestamp == _LATEST:
        return Found(log.end, -1)
    if timestamp == _EARLIEST:
        return Found(log.start, -1)
    if timestamp == _MAX_TIMESTAMP:
        return log.latest_timestamp()
    return log.first_not_older(timestamp)
