"""K15 and a broker that is killed and started again under load: who is told what, judged by what is stored."""

import asyncio
import json
import time
from collections import Counter
from pathlib import Path

from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition
from tests.faults.rig import gateway_for
from tests.testbeds.kafka import RealKafka
from tests.testbeds.load import Seen

RATE = 150
SETTLED_S = 3.0  # after the broker answers again


async def test_outside_an_outage_everything_is_answered_and_inside_everybody_is_told_the_truth(
    faulty_kafka: RealKafka, tmp_path: Path, name: str
) -> None:
    async with gateway_for(faulty_kafka.bootstrap, tmp_path, name, answer_within="5s") as rig, rig.unharmed():
        asked: list[asyncio.Task[Seen]] = []
        going = True

        async def ask_steadily() -> None:
            begin = time.monotonic()
            while going:
                for path in ("/plain", "/events"):
                    asked.append(asyncio.create_task(rig.ask(path, identity=f"{path[1:]}-{len(asked)}")))
                await asyncio.sleep(max(0, begin + len(asked) / 2 / RATE - time.monotonic()))

        clients = asyncio.create_task(ask_steadily())
        await asyncio.sleep(2)  # load before,
        killed = time.monotonic()
        faulty_kafka.kill()
        try:
            await asyncio.sleep(0.5)
        finally:
            await asyncio.to_thread(faulty_kafka.restart)
        back = time.monotonic()
        await asyncio.sleep(SETTLED_S + 3)  # and after
        going = False
        await clients
        seen = await asyncio.gather(*asked)
        stored = await asyncio.to_thread(_stored, faulty_kafka.bootstrap, f"{name}.events")
        executed = rig.executed()
    outside = [each for each in seen if each.ended < killed or each.began > back + SETTLED_S]
    print(f"outage {back - killed:.1f} s;", _table(seen))
    wrong = [each for each in outside if each.outcome != "ok"]
    assert not wrong, (len(wrong), max(each.began for each in wrong) - back, wrong[0])
    assert {each.outcome for each in seen} <= {"ok", "not_sent", "unknown"}
    for each in seen:
        count = (executed if each.id.startswith("plain") else stored).get(each.id, 0)
        if each.outcome == "ok":
            assert count == 1, each
            if each.status == 200:
                assert each.document["payload"]["id"] == each.id
        elif each.outcome == "not_sent":
            assert count == 0, each
        else:
            assert count <= 1, each
            assert killed - 5 < each.began < back + SETTLED_S, each


def _table(seen: list[Seen]) -> dict[str, int]:
    return dict(Counter(f"{each.id.partition('-')[0]} {each.status} {each.outcome}" for each in seen))


def _stored(bootstrap: str, topic: str) -> Counter[str]:
    """The ids of all events on the topic."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "judge", "log_level": 0})
    try:
        ids: Counter[str] = Counter()
        for partition in consumer.list_topics(topic, timeout=10).topics[topic].partitions:
            place = TopicPartition(topic, partition, OFFSET_BEGINNING)
            end = consumer.get_watermark_offsets(place, timeout=10)[1]
            consumer.assign([place])
            at = 0
            while at < end:
                message = consumer.poll(10)
                assert message is not None
                assert message.error() is None
                at = (message.offset() or 0) + 1
                ids[json.loads(message.value() or b"")["id"]] += 1
        return ids
    finally:
        consumer.close()
