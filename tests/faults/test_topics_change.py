"""Topics that are deleted, made anew and grown while requests go on."""

import asyncio
from collections import Counter
from pathlib import Path

from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions
from tests.faults.rig import gateway_for, plain_service
from tests.testbeds.kafka import RealKafka
from tests.testbeds.topics import create_topics


async def test_topics_that_are_deleted_and_grown_are_followed_without_a_restart(
    real_kafka: RealKafka, tmp_path: Path, name: str
) -> None:
    script, inbox = f"{name}.script", f"{name}.replies"
    admin = AdminClient({"bootstrap.servers": real_kafka.bootstrap, "log_level": 0})
    kafka = {"topics": {"partitions": 2}}
    async with (
        gateway_for(real_kafka.bootstrap, tmp_path, name, answer_within="3s", kafka=kafka) as rig,
        rig.unharmed(),
    ):
        # The inbox grows: the partition that is read stays.
        await asyncio.to_thread(admin.create_partitions([NewPartitions(inbox, 5)])[inbox].result)
        seen = await asyncio.gather(*(rig.ask() for _ in range(50)))
        assert Counter(each.status for each in seen) == {200: 50}
        # It goes: made anew at once, or within a few looks.
        await asyncio.to_thread(admin.delete_topics([inbox])[inbox].result)
        await rig.answered(within=10)
        # The requests' topic goes: refused, and not a word of it on the next one.
        assert rig.service is not None
        await asyncio.to_thread(rig.service.program.terminate)
        await asyncio.to_thread(admin.delete_topics([script])[script].result)
        while (refused := await rig.ask()).outcome != "not_sent":
            assert refused.outcome == "unknown"
        assert refused.status == 503
        await rig.until(lambda: rig.count("kafka_topic_missing", topic=script) == 1, "notice", 10)
        assert (await rig.ask("/events")).status == 202
        # It comes back larger.
        await asyncio.to_thread(create_topics, real_kafka.bootstrap, {script: 6})
        rig.service = await asyncio.to_thread(plain_service, real_kafka.bootstrap, tmp_path, name)
        await rig.answered(within=10)
        seen = await asyncio.gather(*(rig.ask() for _ in range(50)))
        assert Counter(each.status for each in seen) == {200: 50}
        executed = rig.executed()
        assert refused.id not in executed
        assert all(executed[each.id] == 1 for each in seen)
