"""Fetch requests: read batches, or wait until there are enough of them.

A waiting fetch watches its partitions and reads again as soon as enough bytes were appended, a partition went
away, or its time is up. It holds nothing but its question, and lets go of everything when its future is done,
be it by an answer or because the client left.

Every answer is a full one: session id 0 tells clients that there are no fetch sessions (KIP-227).
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from castlegate_broker.apis_data import FETCH
from castlegate_broker.codec import Message
from castlegate_broker.errors import Refused
from castlegate_broker.request import Answer, Handler, Request
from castlegate_broker.schema import Api
from castlegate_broker.settings import Settings
from castlegate_broker.topics import Partition, Topics


@dataclass(slots=True)
class _Reading:
    """What was found for a fetch so far."""

    room: int
    size: int = 0
    failed: bool = False


class _Waiting:
    """A fetch that waits for `missing` more bytes."""

    __slots__ = ("_answer", "_body", "_fetcher", "_missing", "_partitions", "_timer")

    def __init__(self, fetcher: "FetchHandlers", body: Message, missing: int) -> None:
        loop = asyncio.get_running_loop()
        self._fetcher = fetcher
        self._body = body
        self._missing = missing
        self._answer: asyncio.Future[Message] = loop.create_future()
        self._partitions = fetcher.partitions(body)
        for partition in self._partitions:
            partition.watchers.add(self)
        self._timer = loop.call_later(body["max_wait_ms"] / 1000, self.gone)

    def answer(self) -> asyncio.Future[Message]:
        """The response to come."""
        self._answer.add_done_callback(self._release)
        return self._answer

    def grown(self, size: int) -> None:
        """A partition grew."""
        self._missing -= size
        if self._missing <= 0:
            self.gone()

    def gone(self) -> None:
        """Nothing is to be waited for any more: answer with what there is."""
        if not self._answer.done():
            self._answer.set_result(self._fetcher.read(self._body)[0])

    def _release(self, _answer: asyncio.Future[Message]) -> None:
        self._timer.cancel()
        for partition in self._partitions:
            partition.watchers.discard(self)


class FetchHandlers:
    """Handler of fetches."""

    def __init__(self, topics: Topics, settings: Settings) -> None:
        self._topics = topics
        self._settings = settings

    def table(self) -> Mapping[Api, Handler]:
        """Which API is handled by what."""
        return {FETCH: self.fetch}

    def fetch(self, request: Request) -> Answer:
        """Answer at once if there is enough, an error, or no time to wait."""
        body = request.body
        response, reading = self.read(body)
        missing = body["min_bytes"] - reading.size
        if reading.failed or missing <= 0 or body["max_wait_ms"] <= 0:
            return response
        return _Waiting(self, body, missing).answer()

    def partitions(self, body: Message) -> list[Partition]:
        """The partitions that a fetch is about; all are known to exist."""
        return [
            self._topics.partition(topic["name"], one["index"])
            for topic in body["topics"]
            for one in topic["partitions"]
        ]

    def read(self, body: Message) -> tuple[Message, _Reading]:
        """Read what is there now, in the order of the request, up to its limits."""
        reading = _Reading(min(body["max_bytes"], self._settings.max_response_bytes))
        topics = [
            {
                "name": topic["name"],
                "partitions": [self._read(topic["name"], one, reading) for one in topic["partitions"]],
            }
            for topic in body["topics"]
        ]
        return {"topics": topics}, reading

    def _read(self, name: str, wanted: Message, reading: _Reading) -> Message:
        index = wanted["index"]
        try:
            log = self._topics.partition(name, index).log
            room = min(wanted["max_bytes"], reading.room)
            batches = log.read(wanted["offset"], room, at_least_one=not reading.size)
        except Refused as refused:
            reading.failed = True
            return {"index": index, "error_code": refused.code}
        size = sum(map(len, batches))
        reading.size += size
        reading.room -= size
        return {
            "index": index,
            "high_watermark": log.end,
            "last_stable_offset": log.end,
            "log_start_offset": log.start,
            "records": batches,
        }
