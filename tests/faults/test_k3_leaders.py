"""K3: leadership moves between three brokers, by order and by death: every request is answered and executed once."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.faults.rig import Rig, gateway_for
from tests.testbeds.cluster import KafkaCluster
from tests.testbeds.load import Seen
from tests.testbeds.topics import create_topics


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[KafkaCluster]:
    cluster = KafkaCluster(tmp_path)
    yield cluster
    cluster.discard()


class Clients:
    """A steady stream of requests."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._asked: list[asyncio.Task[Seen]] = []
        self._number = 0

    async def ask_for(self, seconds: float) -> None:
        for _ in range(int(seconds * 50)):
            self._number += 1
            identity = f"{self._rig.name}-{self._number}"
            self._asked.append(asyncio.create_task(self._rig.ask(identity=identity)))
            await asyncio.sleep(0.02)  # the pace of clients

    async def all_answered_once(self) -> list[Seen]:
        seen = await asyncio.gather(*self._asked)
        assert Counter((each.status, each.outcome) for each in seen) == {(200, "ok"): len(seen)}
        assert [each.document["payload"]["id"] for each in seen] == [each.id for each in seen]
        executed = self._rig.executed()
        assert Counter(executed[each.id] for each in seen) == {1: len(seen)}
        self._asked.clear()
        return seen


async def test_leaders_move_by_order_and_by_death_and_each_request_is_one_record(
    cluster: KafkaCluster, tmp_path: Path, name: str
) -> None:
    script, inbox = f"{name}.script", f"{name}.replies"
    await asyncio.to_thread(create_topics, cluster.bootstrap, {script: 4, f"{name}.events": 4}, replication=3)
    kafka = {"topics": {"partitions": 1}}
    async with (
        gateway_for(cluster.bootstrap, tmp_path, name, answer_within="25s", kafka=kafka) as rig,
        rig.unharmed(spare=12),  # every client may come to know every broker
    ):
        clients = Clients(rig)
        for topic in (script, inbox):
            await clients.ask_for(0.5)
            leader = cluster.leader(topic)
            leader.kill()
            await clients.ask_for(4)
            await clients.all_answered_once()
            assert rig.gateway.readiness()[0] == 200
            await asyncio.to_thread(leader.restart)
            # It takes the lead back in order: old leaders answer NOT_LEADER, and clients follow.
            while await asyncio.to_thread(cluster.leader, topic) is not leader:
                await clients.ask_for(0.2)
            await clients.ask_for(1)
            seen = await clients.all_answered_once()
            assert max(each.took for each in seen) < 5
