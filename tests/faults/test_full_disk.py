"""A broker whose log cannot be written any more: it dies of it, and the gateway says so."""

import asyncio
import resource
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.faults.rig import gateway_for
from tests.testbeds.kafka import RealKafka

_FULL = 15_000_000  # bytes a file may have: more than an index takes


@pytest.fixture
def small_kafka(tmp_path: Path) -> Iterator[RealKafka]:
    broker = RealKafka({"log.index.size.max.bytes": "1048576"}, log=tmp_path / "kafka.log")
    yield broker
    broker.discard()


async def test_a_broker_whose_log_is_full_is_an_outage_like_any_other(
    small_kafka: RealKafka, tmp_path: Path, name: str
) -> None:
    async with (
        gateway_for(small_kafka.bootstrap, tmp_path, name, answer_within="5s") as rig,
        rig.unharmed(),
    ):
        # As a full disk does: writing fails, reading does not.
        resource.prlimit(small_kafka.pid, resource.RLIMIT_FSIZE, (_FULL, resource.RLIM_INFINITY))
        body = {"id": "large", "x": "x" * 900_000}
        seen = []
        while not seen or seen[-1].outcome == "ok":
            seen.append(await rig.ask("/events", body))
            assert len(seen) < 100, "the disk is full by now"
        assert (seen[-1].status, seen[-1].outcome) in {(503, "unknown"), (504, "unknown")}
        await rig.until(lambda: "brokers do not answer" in rig.gateway.readiness()[1]["reason"], "notice")
        some = await asyncio.gather(*(rig.ask() for _ in range(10)))
        assert Counter((each.status, each.outcome) for each in some) == {(503, "not_sent"): 10}
        assert (await rig.ask("/http")).status == 200
        await asyncio.to_thread(small_kafka.restart)
        await rig.answered()
        assert (await rig.ask("/events")).status == 202
