"""Requests of producers: write batches, get a producer id."""

import itertools
from collections.abc import Mapping

from castlegate_broker.apis_data import INIT_PRODUCER_ID, PRODUCE
from castlegate_broker.codec import Message
from castlegate_broker.errors import Code, Malformed, Refused
from castlegate_broker.request import Answer, Handler, Request
from castlegate_broker.schema import Api
from castlegate_broker.topics import Topics

_ACKS = (-1, 0, 1)
_MAX_EPOCH = 0x7FFF


class ProduceHandlers:
    """Handlers for producers. With one replica, in memory, all kinds of acknowledgement mean the same."""

    def __init__(self, topics: Topics) -> None:
        self._topics = topics
        self._producer_ids = itertools.count(1)

    def table(self) -> Mapping[Api, Handler]:
        """Which API is handled by what."""
        return {PRODUCE: self.produce, INIT_PRODUCER_ID: self.init_producer_id}

    def produce(self, request: Request) -> Answer:
        """Append batches. With acks=0 there is no response, and an error can only be told by hanging up."""
        acks = request.body["acks"]
        topics = [
            {
                "name": topic["name"],
                "partitions": [self._append(topic["name"], one, acks) for one in topic["partitions"]],
            }
            for topic in request.body["topics"]
        ]
        if acks != 0:
            return {"topics": topics}
        for topic in topics:
            for partition in topic["partitions"]:
                if "error_message" in partition:
                    raise Malformed(f"records with acks=0 that were refused: {partition['error_message']}")
        return None

    def _append(self, name: str, wanted: Message, acks: int) -> Message:
        index = wanted["index"]
        try:
            if acks not in _ACKS:
                raise Refused(Code.INVALID_REQUIRED_ACKS)
            partition = self._topics.partition(name, index)
            topic = self._topics.find(name)
            if topic is None or wanted["records"] is None:
                raise Refused(Code.INVALID_RECORD, "no records")
            appended = self._topics.append(topic, partition, wanted["records"])
        except Refused as refused:
            return {"index": index, "error_code": refused.code, "error_message": str(refused)}
        return {
            "index": index,
            "error_code": Code.NONE,
            "base_offset": appended.base_offset,
            "log_start_offset": partition.log.start,
        }

    def init_producer_id(self, request: Request) -> Answer:
        """Give a new id, or the next epoch of the one that the producer has (KIP-360)."""
        body = request.body
        if body["transactional_id"] is not None:
            return {"error_code": Code.TRANSACTIONAL_ID_AUTHORIZATION_FAILED}
        if body["producer_id"] >= 0 and 0 <= body["producer_epoch"] < _MAX_EPOCH:
            return {"producer_id": body["producer_id"], "producer_epoch": body["producer_epoch"] + 1}
        return {"producer_id": next(self._producer_ids), "producer_epoch": 0}
