"""K5, K7, K8: late, stray, forged and poisonous replies are counted and dropped, and harm nobody else."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from tests.faults.rig import Rig, gateway_for
from tests.testbeds.kafka import RealKafka
from tests.testbeds.wire import Client


@pytest.fixture
async def rig(real_kafka: RealKafka, tmp_path: Path, name: str) -> AsyncIterator[Rig]:
    # One inbox partition, so that everything that is put there is seen.
    one = {"topics": {"partitions": 1}}
    async with gateway_for(real_kafka.bootstrap, tmp_path, name, kafka=one) as rig, rig.unharmed():
        yield rig


async def test_a_late_reply_is_counted_and_dropped(rig: Rig) -> None:
    """K5."""
    before = rig.replies()
    late = await rig.ask("/quick", [{"value": 1, "delay_ms": 1000}])
    assert (late.status, late.outcome) == (504, "unknown")
    assert late.took >= 0.5
    await rig.replies_since(before, {"late": 1})


ODD_IDS: list[Any] = [None, "", "x", "f" * 32, {"hex": "fffe00"}, {"size": 1_000_000}, "0" * 31, "+" + "0" * 31]


async def test_replies_with_odd_correlation_ids_are_counted_and_skipped(rig: Rig) -> None:
    """K7."""
    before = rig.replies()
    lines = rig.gateway.program.line_count
    replies = [{"value": "stray", "id": odd} for odd in ODD_IDS] * 5
    seen = await rig.ask(replies=[*replies, {"value": "mine"}])
    assert seen.document == "mine"
    await rig.replies_since(before, {"ok": 1, "unknown": 5, "foreign": 5 * (len(ODD_IDS) - 1)})
    assert rig.gateway.program.line_count - lines <= 2, "the log is rate limited"


async def test_a_guessed_id_of_another_request_is_not_taken_for_its_reply(rig: Rig, real_kafka: RealKafka) -> None:
    """A service that sees its own ids must not be able to answer for others."""
    own = (await rig.ask()).document["correlation_id"]
    victim = asyncio.create_task(rig.ask(identity="victim", replies=[{"value": "honest", "delay_ms": 1500}]))
    await rig.until(lambda: "victim" in rig.executed(), "the victim's request")
    before = rig.replies()
    guesses = [own[:16] + f"{(int(own[16:], 16) + step) % 2**64:016x}" for step in range(-20, 200)]
    guesses += [own[:length] + f"{int(own[length:], 16) + 1:0{32 - length}x}" for length in (8, 12, 20, 24, 30)]
    producer = Producer({"bootstrap.servers": real_kafka.bootstrap})
    for guess in guesses:
        producer.produce(f"{rig.name}.replies", b'"forged"', headers=[("correlation-id", guess.encode())])
    assert await asyncio.to_thread(producer.flush, 10) == 0
    assert (await victim).document == "honest"
    news = rig.replies()
    assert news["ok"] == before["ok"] + 1
    assert sum(news.values()) == sum(before.values()) + 1 + len(guesses), "each of them is counted"


POISON: list[dict[str, Any]] = [
    {"text": '{"a":', "headers": {"content-type": "application/json"}},
    {"text": '{"a":'},
    {"value": 1, "headers": {"status": "999"}},
    {"value": 1, "headers": {"status": "abc"}},
    {"value": 1, "headers": {"status": "100"}},
    {"value": 1, "headers": {"at": "/x\r\nset-cookie: stolen=1"}},
    {"value": 1, "headers": {"at": "/x\nset-cookie: stolen=1"}},
    {"value": 1, "headers": {"at": {"hex": "2f00"}}},
    {"value": 1, "headers": {"content-type": "text/plain\r\nset-cookie: stolen=1"}},
]


async def test_poison_fails_its_own_request_alone_and_nothing_of_it_reaches_the_wire(rig: Rig) -> None:
    """K8."""
    before = rig.replies()
    asked = [rig.ask(replies=[poison]) for poison in POISON]
    fine = [rig.ask(identity=f"fine-{number}") for number in range(20)]
    seen = await asyncio.gather(*asked, *fine)
    for poison, each in zip(POISON, seen, strict=False):
        assert (each.status, each.outcome) == (502, "answered"), (poison, each)
        assert "stolen" not in str(each.fields)
    for each in seen[len(POISON) :]:
        assert each.document["payload"]["id"] == each.id
    await rig.replies_since(before, {"ok": 20, "malformed": len(POISON)})


async def test_line_ends_in_a_reply_never_reach_the_client_as_bytes(rig: Rig) -> None:
    """K8, byte for byte."""
    for poison in ("at", "content-type"):
        body = b'{"replies":[{"value":1,"headers":{"%s":"/x\\r\\n\\r\\nHTTP/1.1 200 OK"}}]}' % poison.encode()

        def talk(body: bytes = body) -> bytes:
            with Client(rig.gateway.port) as client:
                head = b"POST /plain HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
                client.send(head % len(body) + body)
                return client.read_to_end()

        answer = await asyncio.to_thread(talk)
        assert answer.startswith(b"HTTP/1.1 502 ")
        assert answer.count(b"HTTP/1.1") == 1
        assert b"200 OK" not in answer


async def test_hop_by_hop_fields_of_a_reply_are_not_passed_on(rig: Rig) -> None:
    """K8."""
    headers = {"connection": "upgrade", "transfer-encoding": "chunked", "content-length": "1", "upgrade": "h2c"}
    seen = await rig.ask(replies=[{"value": {"a": 1}, "headers": headers}])
    assert seen.document == {"a": 1}
    assert not {"connection", "transfer-encoding", "upgrade"} & seen.fields.keys()
    assert (await rig.ask(replies=[{}])).status == 204, "a null value means nothing, in this dialect"
