"""A network that is slow, resets connections, or falls silent between the gateway and the broker."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.faults.rig import Rig, gateway_for
from tests.testbeds.kafka import RealKafka
from tests.testbeds.processes import free_port
from tests.testbeds.relay import Relay


@pytest.fixture
def relay() -> Iterator[Relay]:
    with Relay(free_port()) as relay:
        yield relay


@pytest.fixture
def relayed_kafka(relay: Relay, tmp_path: Path) -> Iterator[RealKafka]:
    """Whoever comes through the relay is sent through it again; the service comes straight."""
    assert relay.target is not None
    broker = RealKafka(relayed={"RELAYED": (relay.target, relay.port)}, log=tmp_path / "kafka.log")
    yield broker
    broker.discard()


async def many(rig: Rig, count: int, kind: str) -> Counter[tuple[int, str]]:
    seen = await asyncio.gather(*(rig.ask(identity=f"{kind}-{number}") for number in range(count)))
    for each in seen:
        if each.status == 200:
            assert each.document["payload"]["id"] == each.id
    executed = rig.executed()
    assert all(executed.get(each.id, 0) == 1 for each in seen if each.status == 200)
    assert not [each for each in seen if each.outcome == "not_sent" and each.id in executed]
    return Counter((each.status, each.outcome) for each in seen)


async def test_a_bad_network_costs_time_and_no_truth(
    relayed_kafka: RealKafka, relay: Relay, tmp_path: Path, name: str
) -> None:
    through = f"127.0.0.1:{relay.port}"
    async with (
        gateway_for(through, tmp_path, name, service_bootstrap=relayed_kafka.bootstrap, answer_within="3s") as rig,
        rig.unharmed(),
    ):
        relay.delay_s = 0.1
        assert await many(rig, 50, "slow") == {(200, "ok"): 50}
        relay.delay_s = 0.0
        # Cut again and again: what was in flight is sent again by the producer, once.
        for number in range(5):
            asked = asyncio.create_task(many(rig, 40, f"cut-{number}"))
            await asyncio.sleep(0.01)  # somewhere in the middle
            relay.cut()
            counts = await asked
            assert counts.keys() <= {(200, "ok"), (503, "not_sent"), (504, "unknown")}
            await rig.answered(within=10)
        # Half open: nobody says that anything is wrong.
        relay.silence()
        counts = await many(rig, 20, "silent")
        assert counts == {(504, "unknown"): 20}
        await rig.until(lambda: "brokers do not answer" in rig.gateway.readiness()[1]["reason"], "notice", 15)
        seen = await rig.ask()
        assert (seen.status, seen.outcome, seen.took < 1) == (503, "not_sent", True)
        relay.resume()
        await rig.answered(within=15)
        executed = rig.executed()
        assert all(count == 1 for identity, count in executed.items() if identity.startswith("silent"))
        # Refused: the relay's far side is there, and closes.
        relay.accepts = False
        relay.cut()
        await rig.until(lambda: "brokers do not answer" in rig.gateway.readiness()[1]["reason"], "notice", 15)
        assert await many(rig, 20, "refused") == {(503, "not_sent"): 20}
        relay.accepts = True
        await rig.answered(within=15)
