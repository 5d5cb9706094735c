"""K2: brokers die, freeze or stop with requests waiting: each has exactly one answer, and nobody gets another's."""

import asyncio
from collections import Counter
from pathlib import Path

from tests.faults.rig import Rig, gateway_for
from tests.testbeds.kafka import RealKafka
from tests.testbeds.load import Seen


def waiting(rig: Rig, count: int, delay_ms: int, path: str = "/plain") -> list[asyncio.Task[Seen]]:
    """So many requests that are answered after a while, each with its own id."""

    def ask(number: int) -> asyncio.Task[Seen]:
        identity = f"{rig.name}-{number}"
        return asyncio.create_task(
            rig.ask(path, [{"value": {"id": identity}, "delay_ms": delay_ms}], identity=identity)
        )

    return [ask(number) for number in range(count)]


async def all_executed(rig: Rig, tasks: list[asyncio.Task[Seen]]) -> None:
    ids = {f"{rig.name}-{number}" for number in range(len(tasks))}
    await rig.until(lambda: ids <= rig.executed().keys(), "execution of all")


async def test_brokers_that_die_with_50_waiting_and_stay_away_give_each_its_timeout(
    faulty_kafka: RealKafka, tmp_path: Path, name: str
) -> None:
    async with gateway_for(faulty_kafka.bootstrap, tmp_path, name, answer_within="3s") as rig, rig.unharmed():
        tasks = waiting(rig, 50, 60_000)
        await all_executed(rig, tasks)
        assert rig.count("kafka_pending") == 50
        await asyncio.to_thread(faulty_kafka.kill)
        try:
            await rig.until(lambda: "brokers do not answer" in rig.gateway.readiness()[1]["reason"], "notice")
            refused = await rig.ask()
            assert (refused.status, refused.outcome, refused.took < 1) == (503, "not_sent", True)
            seen = await asyncio.gather(*tasks)
            assert Counter((each.status, each.outcome) for each in seen) == {(504, "unknown"): 50}
            assert max(each.took for each in seen) < 5
            assert (await rig.ask("/http")).status == 200
        finally:
            await asyncio.to_thread(faulty_kafka.restart)
        await rig.answered()
        assert rig.executed().get(refused.id) is None
        again = await asyncio.gather(*waiting(rig, 50, 0))
        assert [each.document["id"] for each in again] == [each.id for each in again]


async def test_replies_that_wait_for_the_brokers_return_reach_those_who_asked(
    faulty_kafka: RealKafka, tmp_path: Path, name: str
) -> None:
    async with gateway_for(faulty_kafka.bootstrap, tmp_path, name, answer_within="40s") as rig, rig.unharmed():
        tasks = waiting(rig, 50, 1500)
        await all_executed(rig, tasks)
        await asyncio.to_thread(faulty_kafka.kill)
        try:
            await asyncio.sleep(2)  # the replies are due while nobody can take them
        finally:
            await asyncio.to_thread(faulty_kafka.restart)
        seen = await asyncio.gather(*tasks)
        assert Counter((each.status, each.outcome) for each in seen) == {(200, "ok"): 50}
        assert [each.document["id"] for each in seen] == [each.id for each in seen]
        assert all(rig.executed()[each.id] == 1 for each in seen)
        await rig.answered()


async def test_a_broker_frozen_for_4_s_loses_nothing_whose_deadline_is_longer(
    faulty_kafka: RealKafka, tmp_path: Path, name: str
) -> None:
    async with gateway_for(faulty_kafka.bootstrap, tmp_path, name, answer_within="15s") as rig, rig.unharmed():
        tasks: list[asyncio.Task[Seen]] = []

        async def ask_for(seconds: float) -> None:
            for _ in range(int(seconds * 50)):
                tasks.append(asyncio.create_task(rig.ask(identity=f"{name}-{len(tasks)}")))
                await asyncio.sleep(0.02)  # the pace of clients

        await ask_for(1)
        faulty_kafka.freeze()
        try:
            await ask_for(4)
        finally:
            faulty_kafka.thaw()
        await ask_for(1)
        seen = await asyncio.gather(*tasks)
        assert Counter((each.status, each.outcome) for each in seen) == {(200, "ok"): len(tasks)}
        assert [each.document["payload"]["id"] for each in seen] == [each.id for each in seen]
        assert Counter(rig.executed()[each.id] for each in seen) == {1: len(tasks)}
