"""K1: the gateway starts without brokers, says so, serves what needs none, and finds them when they come."""

import asyncio
from pathlib import Path

from tests.faults.rig import gateway_for, plain_service
from tests.testbeds.kafka import RealKafka
from tests.testbeds.topics import create_topics


async def test_without_brokers_http_is_served_and_kafka_is_refused_at_once_until_they_come(
    faulty_kafka: RealKafka, tmp_path: Path, name: str
) -> None:
    await asyncio.to_thread(create_topics, faulty_kafka.bootstrap, {f"{name}.script": 4, f"{name}.events": 4})
    faulty_kafka.kill()
    try:
        async with (
            gateway_for(faulty_kafka.bootstrap, tmp_path, name, ready=False) as rig,
            rig.unharmed(spare=12),  # the clients' connections to the broker, which there were none of
        ):
            await rig.until(lambda: rig.gateway.readiness()[1]["reason"] != "", "a reason")
            status, document = rig.gateway.readiness()
            assert (status, document["status"]) == (200, "degraded")
            assert "brokers do not answer" in document["reason"]
            for path in ("/plain", "/events"):
                seen = await rig.ask(path)
                assert (seen.status, seen.outcome) == (503, "not_sent")
                assert int(seen.fields["retry-after"]) >= 1
                assert seen.took < 1
                assert str(faulty_kafka.port) not in seen.body.decode()
            assert (await rig.ask("/http")).body == b"ok"
            await asyncio.to_thread(faulty_kafka.restart)
            rig.service = await asyncio.to_thread(plain_service, faulty_kafka.bootstrap, tmp_path, name)
            await rig.answered(within=10)
            assert (await rig.ask("/events")).status == 202
            await rig.until(lambda: rig.gateway.readiness()[0] == 200, "readiness")
            assert rig.count("kafka_up") == 1
    finally:
        await asyncio.to_thread(faulty_kafka.restart)
