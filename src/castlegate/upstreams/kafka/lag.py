"""Looks at the lag of a service's consumer group, now and then, for the backlogs of its topics.

Two questions to the brokers for each look, none of which holds anybody up: the client answers in a thread of its own.
Between looks nothing runs. What cannot be read is told to the log once in a while, and says nothing of the service. A
look takes 0.4 ms of CPU, and 120 bytes for good (confluent-kafka 2.16): hence not many of them.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]  # exported, not declared

from castlegate.rules.backlog import Backlog
from castlegate.telemetry.stumbles import Stumbles
from castlegate.upstreams.kafka.client import Clients, RateLimit, log
from castlegate.upstreams.kafka.settings import GroupSettings

_TIMEOUT_S = 2.0
_GRACE_S = 1.0  # beyond that timeout, for a client that does not keep to it


class GroupLag:
    """Of one service: a resource. Changed in the loop alone."""

    def __init__(self, service: str, settings: GroupSettings, clients: Clients, now: Callable[[], float]) -> None:
        self._service = service
        self._settings = settings
        self._clients = clients
        self._now = now
        self._limit = RateLimit()
        self._backlogs: dict[str, Backlog] = {}
        self._task: asyncio.Task[None] | None = None

    def of(self, topic: str) -> Backlog:
        """The backlog of a topic, looked at from now on."""
        backlog = self._backlogs.get(topic)
        if backlog is None:
            backlog = self._backlogs[topic] = Backlog(self._settings.horizon)
        return backlog

    async def start(self) -> None:
        """Begin to look."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """Look no more."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def _run(self) -> None:
        stumbles = Stumbles(log, f"looking at the lag of group {self._settings.group} of service {self._service}")
        loop, client = asyncio.get_running_loop(), list[AdminClient]()  # none or one
        try:
            while True:
                try:
                    if not client:
                        await loop.run_in_executor(None, self._make, client)
                    await self._look(client)
                except (KafkaException, TimeoutError) as failure:
                    self._tell(failure)
                except Exception as error:  # noqa: BLE001 - it goes on looking
                    stumbles.tell(error)
                await asyncio.sleep(self._settings.every)
        finally:
            loop.run_in_executor(None, client.clear)

    def _make(self, client: list[AdminClient]) -> None:
        """Starts threads and reads certificates: not for the loop. Neither is its end, which waits for those threads:
        so no frame of the loop has a reference of its own.
        """
        client.append(AdminClient(self._clients.admin(lambda _error: None)))

    async def _look(self, client: list[AdminClient]) -> None:
        group = self._settings.group
        asked = client[0].list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)], request_timeout=_TIMEOUT_S)
        positions = [
            each
            for each in (await _answer(asked[group])).topic_partitions
            if each.topic in self._backlogs and each.error is None and each.offset >= 0
        ]
        if not positions:
            return
        latest = {TopicPartition(each.topic, each.partition): OffsetSpec.latest() for each in positions}  # type: ignore[no-untyped-call]
        ends = {
            (at.topic, at.partition): (await _answer(future)).offset
            for at, future in client[0].list_offsets(latest, request_timeout=_TIMEOUT_S).items()
        }
        lags, reads = defaultdict[str, int](int), defaultdict[str, int](int)
        for each in positions:
            lags[each.topic] += max(0, ends[each.topic, each.partition] - each.offset)
            reads[each.topic] += each.offset
        now = self._now()
        for topic, lag in lags.items():
            self._backlogs[topic].saw(now, lag, reads[topic])

    def _tell(self, failure: Exception) -> None:
        if self._limit.admit("lag") is not None:
            log.warning("the lag of group %s of service %s: %s", self._settings.group, self._service, failure)


async def _answer(future: Future[Any]) -> Any:
    """Raises `KafkaException` and `TimeoutError`."""
    # Never cancelled: the client settles it in any case, and fails where it cannot.
    answer = asyncio.wrap_future(future)
    answer.add_done_callback(lambda done: done.exception())
    done, _ = await asyncio.wait([answer], timeout=_TIMEOUT_S + _GRACE_S)
    if not done:
        raise TimeoutError("the brokers do not answer")
    return answer.result()
