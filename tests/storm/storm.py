"""Runs gateways, a service and clients on a real broker through a schedule of faults, and notes what everybody saw.

The schedule is made of a seed: the same seed gives the same faults in the same order and the same pauses.
"""

import asyncio
import contextlib
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions
from tests.storm.accounts import Asked, Fault
from tests.testbeds.cache import REPO
from tests.testbeds.gateway import Gateway
from tests.testbeds.kafka import RealKafka
from tests.testbeds.load import Load
from tests.testbeds.processes import Program
from tests.testbeds.topics import create_topics

from castlegate.document import Document

TOPIC = "storm.do"
EVENTS = "storm.events"
INBOX = "castlegate.replies"
SETTLE_S = 3.0  # after a fault has ended
_EVENT_EVERY = 5  # requests
_TIMEOUT = "15s"
_CONNECTIONS = 400


@dataclass
class Plan:
    """What to do."""

    seed: int
    requests: int
    rate: float  # per second
    instances: int
    workers: int
    faults: list[str] | None = None  # names, in this order again and again; None: drawn by the seed


@dataclass
class Record:
    """What was seen."""

    asked: list[Asked] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    executed: Counter[str] = field(default_factory=Counter)
    stored: Counter[str] = field(default_factory=Counter)


class Storm:
    """One run; everything it starts ends with it."""

    def __init__(self, plan: Plan, folder: Path, tell: Callable[[str], None]) -> None:
        self._plan = plan
        self._folder = folder
        self._tell = tell
        self._random = random.Random(plan.seed)
        self._stack = contextlib.ExitStack()
        self._incarnation = 1
        self._phase = "calm"
        self._partitions = 4
        self.record = Record()

    async def run(self) -> Record:
        """The whole storm."""
        with self._stack:
            await asyncio.to_thread(self._start)
            loads = [Load(gateway.port, patience_s=60) for gateway in self._gateways]
            try:
                clients = asyncio.create_task(self._ask(loads))
                await self._wreck(clients)
                await clients
            finally:
                for load in loads:
                    await load.__aexit__()
            await asyncio.to_thread(self._count)
            for gateway in self._gateways:
                assert await asyncio.to_thread(gateway.stop) == 0, gateway.program.tail()
        return self.record

    # What is started.

    def _start(self) -> None:
        # Nobody but the gateway is to make its inbox.
        self._kafka = RealKafka({"auto.create.topics.enable": "false"}, log=self._folder / "kafka.log")
        self._stack.callback(self._kafka.discard)
        create_topics(self._kafka.bootstrap, {TOPIC: self._partitions, EVENTS: 4})
        self._start_service()
        self._stack.callback(lambda: self._service.kill())
        self._gateways = []
        for number in range(self._plan.instances):
            folder = self._folder / f"gateway-{number}"
            folder.mkdir()
            gateway = Gateway(folder, _config(self._kafka.bootstrap, self._plan.workers))
            self._stack.callback(gateway.program.kill)
            self._gateways.append(gateway)
            gateway.program.wait_until(lambda gateway=gateway: gateway.readiness()[0] == 200, "readiness")

    def _start_service(self) -> None:
        env = {
            "BOOTSTRAP": self._kafka.bootstrap, "TOPIC": TOPIC, "INCARNATION": str(self._incarnation),
            "LEDGER": str(self._folder / "ledger"),
        }  # fmt: skip
        command = [sys.executable, "-m", "tests.storm.service"]
        self._service = Program(command, name="storm service", cwd=REPO, env=env, log=self._folder / "service.log")
        self._service.wait_for_line("^ready")

    # Clients.

    async def _ask(self, loads: list[Load]) -> None:
        """At a steady pace, whatever becomes of the answers."""
        begin = time.monotonic()
        going: set[asyncio.Task[None]] = set()
        for number in range(self._plan.requests):
            while len(going) >= _CONNECTIONS * len(loads):
                await asyncio.wait(going, return_when=asyncio.FIRST_COMPLETED)
            task = asyncio.create_task(self._one(loads[number % len(loads)], number))
            going.add(task)
            task.add_done_callback(going.discard)
            delay = begin + number / self._plan.rate - time.monotonic()
            if delay > 0:
                await asyncio.sleep(delay)
        await asyncio.gather(*going)

    async def _one(self, load: Load, number: int) -> None:
        event = number % _EVENT_EVERY == 0
        identity, phase = f"r{number}", self._phase
        seen = await load.ask("/events" if event else "/do", {"id": identity}, identity=identity)
        outcome = seen.outcome
        if outcome == "ok" and not event and seen.document.get("id") != identity:
            outcome = "crossed"
        self.record.asked.append(Asked(identity, phase, event, seen.began, seen.ended, outcome, seen.status))

    # Faults.

    async def _wreck(self, clients: asyncio.Task[None]) -> None:
        number = 0
        while not clients.done():
            self._phase = "calm"
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(clients), 2 + self._random.random() * 2)
                return
            names = self._plan.faults
            name = names[number % len(names)] if names else self._random.choice(list(FAULTS))
            number += 1
            fault = FAULTS[name]
            self._phase = name
            began = time.monotonic()
            await fault.run(self)
            ended = time.monotonic() + SETTLE_S
            self.record.faults.append(Fault(name, began, ended, fault.excuses))
            self._tell(f"{name}: {ended - SETTLE_S - began:.1f} s, {len(self.record.asked)} requests ended")
            await asyncio.sleep(SETTLE_S)

    async def kill_broker(self) -> None:
        """Like a crash; back within seconds."""
        self._kafka.kill()
        await asyncio.sleep(self._random.random() * 2)
        await asyncio.to_thread(self._kafka.restart)

    async def stop_broker(self) -> None:
        """In order, as an operator does."""
        await asyncio.to_thread(self._kafka.stop)
        await asyncio.to_thread(self._kafka.restart)

    async def freeze_broker(self) -> None:
        """For up to 4 s."""
        self._kafka.freeze()
        try:
            await asyncio.sleep(1 + self._random.random() * 3)
        finally:
            self._kafka.thaw()

    async def kill_service(self) -> None:
        """Its requests wait in the topic meanwhile."""
        self._service.kill()
        await asyncio.sleep(self._random.random() * 2)
        await asyncio.to_thread(self._start_service)

    async def grow_topic(self) -> None:
        """Two more partitions."""
        self._partitions += 2
        admin = self._admin()
        growth = admin.create_partitions([NewPartitions(TOPIC, self._partitions)])
        await asyncio.to_thread(growth[TOPIC].result)

    async def delete_topic(self) -> None:
        """And make it anew, a little later."""
        # What waits in there goes with it: then nobody can know what was executed. So let the service be through.
        await self._remake(TOPIC, self._partitions)

    async def delete_inbox(self) -> None:
        """The gateways have to make it anew themselves, and that is when it is over."""
        admin = self._admin()
        await asyncio.to_thread(admin.delete_topics([INBOX])[INBOX].result)
        while INBOX not in (await asyncio.to_thread(admin.list_topics, timeout=10)).topics:  # noqa: ASYNC110
            await asyncio.sleep(0.05)

    async def _remake(self, topic: str, partitions: int) -> None:
        admin = self._admin()
        await asyncio.to_thread(admin.delete_topics([topic])[topic].result)
        self._service.kill()
        await asyncio.sleep(self._random.random())
        self._incarnation += 1
        await asyncio.to_thread(create_topics, self._kafka.bootstrap, {topic: partitions})
        await asyncio.to_thread(self._start_service)

    def _admin(self) -> AdminClient:
        return AdminClient({"bootstrap.servers": self._kafka.bootstrap, "log_level": 0})

    # What is on record in the end.

    def _count(self) -> None:
        """Once the service is through with all that is in its topic, and with all that is about to come."""
        lines = -1
        self._service.wait_until(lambda: self._backlog() == 0, "an empty topic", 60)
        while lines != (lines := (self._folder / "ledger").read_text().count("\n")):
            time.sleep(1)
        for line in (self._folder / "ledger").read_text().splitlines():
            self.record.executed[line.split()[4]] += 1
        self.record.stored = _stored(self._kafka.bootstrap, EVENTS)

    def _backlog(self) -> int:
        done = Counter[int]()
        for line in (self._folder / "ledger").read_text().splitlines():
            _, incarnation, partition, offset, _ = line.split()
            if incarnation == str(self._incarnation):
                done[int(partition)] = max(done[int(partition)], int(offset) + 1)
        return sum(end - done[partition] for partition, end in _ends(self._kafka.bootstrap, TOPIC).items())


@dataclass
class _Kind:
    run: Callable[[Storm], Awaitable[None]]
    excuses: bool  # whether requests may fail for it


FAULTS = {
    "kill broker": _Kind(Storm.kill_broker, True),
    "stop broker": _Kind(Storm.stop_broker, True),
    "freeze broker": _Kind(Storm.freeze_broker, False),
    "kill service": _Kind(Storm.kill_service, False),
    "grow topic": _Kind(Storm.grow_topic, False),
    "delete topic": _Kind(Storm.delete_topic, True),
    "delete inbox": _Kind(Storm.delete_inbox, True),
}


def _config(bootstrap: str, workers: int) -> str:
    """`workers` is left out by programs that do not know it."""
    known = {each.name for each in msgspec.structs.fields(Document)}
    counted = f"workers: {workers}\n" if workers > 1 and "workers" in known else ""
    return f"""{counted}
kafka: {json.dumps({"bootstrap": bootstrap})}
services:
  storm: {{kafka: plain}}
defaults: {{public: true, timeout: {_TIMEOUT}}}
routes:
  POST /do: {{call: storm.do}}
  POST /events: {{publish: {EVENTS}}}
"""


def _ends(bootstrap: str, topic: str) -> dict[int, int]:
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "judge", "log_level": 0})
    try:
        partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
        return {
            number: consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=10)[1]
            for number in partitions
        }
    finally:
        consumer.close()


def _stored(bootstrap: str, topic: str) -> Counter[str]:
    """How many records of each id are on a topic."""
    ids: Counter[str] = Counter()
    ends = _ends(bootstrap, topic)
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "judge", "log_level": 0})
    try:
        for number, end in ends.items():
            consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING)])
            at = 0
            while at < end:
                for message in consumer.consume(1000, 1):
                    assert message.error() is None, message.error()
                    at = (message.offset() or 0) + 1
                    ids[json.loads(message.value() or b"{}")["id"]] += 1
        return ids
    finally:
        consumer.close()
