"""The inbox: shared partitions, fixed reply topics, lost places, stray and poisonous replies, leaving clients."""

import asyncio
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions
from tests.conftest import Broker
from tests.kafka.calls import Rig, failure, make_call, running
from tests.kafka.echo import Echo, asked
from tests.testbeds.topics import create_topics

from castlegate.errors import Kinds, Outcome
from castlegate.message import Reply
from castlegate.waiting import DirectTask


@contextmanager
def echoing(bootstrap: str, topic: str, *, partitions: int = 2, **more: Any) -> Iterator[Echo]:
    create_topics(bootstrap, {topic: partitions})
    echo = Echo(bootstrap, topic, **more)
    try:
        yield echo
    finally:
        echo.stop()


@pytest.fixture
def name() -> str:
    """Of a service nobody else uses."""
    return f"s{uuid4().hex[:8]}"


@pytest.fixture
def echo(broker: Broker, name: str) -> Iterator[Echo]:
    with echoing(broker.bootstrap, f"{name}.do") as echo:
        yield echo


def bind(name: str, **settings: Any) -> Callable[[Rig], object]:
    return lambda rig: rig.caller(name, "do", dialect="plain", **settings)


async def test_workers_that_share_a_partition_drop_what_is_not_theirs(broker: Broker, echo: Echo, name: str) -> None:
    topics = {"partitions": 1}
    async with (
        running(broker.bootstrap, bind(name), inbox=f"{name}.replies", topics=topics, slot=0) as one,
        running(broker.bootstrap, bind(name), inbox=f"{name}.replies", topics=topics, slot=1) as other,
    ):
        ask, ask_other = (rig.caller(name, "do", dialect="plain") for rig in (one, other))
        bodies = [b'{"n":%d}' % number for number in range(40)]
        got = await asyncio.gather(*(ask(body) for body in bodies), *(ask_other(body) for body in bodies))
        assert [reply.body for reply in got] == bodies * 2
        await one.until(lambda: one.replies().get("foreign") == 40 and other.replies().get("foreign") == 40)
        assert one.replies() == other.replies() == {"ok": 40, "foreign": 40}


async def test_a_service_that_answers_on_its_own_topic_is_read_there(broker: Broker, name: str) -> None:
    answers = f"{name}.answers"
    create_topics(broker.bootstrap, {answers: 3})
    number = 0

    def on_own_topic(echo: Echo, message: Any) -> None:
        nonlocal number
        number += 1
        headers = [("correlation-id", asked(message)["correlation-id"])]
        echo.send(answers, number % 3, headers, message.value())

    operations = {"do": {"replies": answers}}
    with echoing(broker.bootstrap, f"{name}.do", answer=on_own_topic):
        async with running(broker.bootstrap, bind(name, operations=operations)) as rig:
            ask = rig.caller(name, "do", dialect="plain", operations=operations)
            assert [(await ask(b"[%d]" % n)).body for n in range(6)] == [b"[%d]" % n for n in range(6)]
            assert rig.engine.state.ready


async def test_partitions_added_to_a_fixed_topic_are_read_without_a_restart(broker: Broker, name: str) -> None:
    answers = f"{name}.answers"
    create_topics(broker.bootstrap, {answers: 1})
    operations = {"do": {"replies": answers}}
    with echoing(broker.bootstrap, f"{name}.do") as echo:
        echo.held.set()
        async with running(broker.bootstrap, bind(name, operations=operations)) as rig:
            ask = rig.caller(name, "do", dialect="plain", operations=operations)
            waiting = asyncio.ensure_future(ask(b"[1]", within=20.0))
            await rig.until(lambda: echo.seen)
            admin = AdminClient({"bootstrap.servers": broker.bootstrap, "log_level": 0})
            await asyncio.to_thread(admin.create_partitions([NewPartitions(answers, 2)])[answers].result)
            # Answered on the new partition before the engine has seen it: found by time.
            headers = [("correlation-id", asked(echo.seen[0])["correlation-id"])]
            echo.send(answers, 1, headers, b"[1]")
            rig.look()
            assert (await waiting).body == b"[1]"


async def test_an_inbox_that_may_not_be_created_names_the_command(
    broker: Broker, echo: Echo, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    inbox = f"{name}.replies"
    async with running(broker.bootstrap, bind(name), inbox=inbox, topics={"create": False, "partitions": 3}) as rig:
        ask = rig.caller(name, "do", dialect="plain")
        refused = await failure(ask())
        assert (refused.kind, refused.outcome) == (Kinds.TOPIC_MISSING, Outcome.NOT_SENT)
        assert inbox not in refused.detail
        command = f"kafka-topics.sh --bootstrap-server {broker.bootstrap} --create --topic {inbox} --partitions 3"
        assert not rig.engine.state.ready
        assert command in rig.engine.state.reason
        assert [command in line for line in caplog.messages if inbox in line] == [True]
        create_topics(broker.bootstrap, {inbox: 3})
        rig.look()
        await rig.until(lambda: rig.engine.state.ready)
        assert (await ask(b"[1]")).body == b"[1]"
    assert not [message for message in echo.seen if message.value() == b"{}"]


async def test_an_inbox_that_is_deleted_is_made_and_read_again(broker: Broker, echo: Echo, name: str) -> None:
    inbox = f"{name}.replies"
    async with running(broker.bootstrap, bind(name), inbox=inbox) as rig:
        ask = rig.caller(name, "do", dialect="plain")
        assert [(await ask(b"[%d]" % n)).body for n in range(5)] == [b"[%d]" % n for n in range(5)]
        admin = AdminClient({"bootstrap.servers": broker.bootstrap, "log_level": 0})
        await asyncio.to_thread(admin.delete_topics([inbox])[inbox].result)

        async def answered() -> bool:
            try:
                return (await ask(b'"again"', within=1.0)).status == 200
            except Exception:  # noqa: BLE001 - refused or out of time until the topic is back
                return False

        async with asyncio.timeout(20):
            while not await answered():  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        assert [(await ask(b"[%d]" % n)).body for n in range(5)] == [b"[%d]" % n for n in range(5)]


async def test_a_request_topic_that_is_missing_is_refused_at_once_and_found_when_it_comes(
    broker: Broker, echo: Echo, name: str
) -> None:
    late = f"{name}.later"
    async with running(broker.bootstrap, bind(name)) as rig:
        ask = rig.caller(name, "do", dialect="plain")
        ask_late = rig.caller(name, "later", dialect="plain")
        refused = await failure(ask_late(within=5.0))
        assert (refused.kind, refused.outcome) == (Kinds.TOPIC_MISSING, Outcome.NOT_SENT)
        assert late not in refused.detail
        assert rig.count("castlegate_kafka_topic_missing", topic=late) == 1
        assert late in rig.engine.state.reason
        assert rig.engine.state.ready
        assert (await ask(b"[1]")).body == b"[1]", "other topics do not notice"
        admin = AdminClient({"bootstrap.servers": broker.bootstrap, "log_level": 0})
        assert late not in (await asyncio.to_thread(admin.list_topics, timeout=5)).topics, "asking creates nothing"
        with echoing(broker.bootstrap, late):
            await rig.until(lambda: rig.engine.gates.topics[late].partitions)
            assert (await ask_late(b"[2]")).body == b"[2]"


# --- replies that nobody waits for


async def test_stray_replies_are_counted_by_kind_and_dropped(broker: Broker, echo: Echo, name: str) -> None:
    inbox = f"{name}.replies"
    async with running(broker.bootstrap, bind(name), inbox=inbox, topics={"partitions": 1}) as rig:
        ask = rig.caller(name, "do", dialect="plain")
        assert (await ask()).status == 200
        answered = asked(echo.seen[0])["correlation-id"]
        forged = answered[:16] + b"%016x" % (int(answered[16:], 16) + 1000)
        for identity in (answered, forged, b"", b"\xff\xfe", b"a" * 1_000_000, b"f" * 32):
            echo.send(inbox, 0, [("correlation-id", identity)], b"{}")
        echo.send(inbox, 0, [], b"{}")
        echo.send(inbox, 0, [("correlation-id", None)], b"{}")
        echo.send(inbox, 0, [("other", answered)], None)
        assert (await ask(b"[1]")).body == b"[1]"
        rig.look()
        await rig.until(lambda: sum(rig.replies().values()) == 11)
        # One with our tag that was never issued and three without any id are unknown; the rest could be another's.
        assert rig.replies() == {"ok": 2, "duplicate": 1, "unknown": 4, "foreign": 4}


async def test_a_second_reply_is_a_duplicate(broker: Broker, name: str) -> None:
    def twice(echo: Echo, message: Any) -> None:
        echo.answer(message)
        echo.answer(message, b'{"second":1}')

    with echoing(broker.bootstrap, f"{name}.do", answer=twice):
        async with running(broker.bootstrap, bind(name)) as rig:
            ask = rig.caller(name, "do", dialect="plain")
            assert [(await ask(b"[%d]" % n)).body for n in range(3)] == [b"[0]", b"[1]", b"[2]"]
            await rig.until(lambda: rig.replies().get("duplicate") == 3)
            assert rig.replies() == {"ok": 3, "duplicate": 3}


POISON: list[tuple[list[tuple[str, bytes]], bytes]] = [
    ([], b'{"a":'),
    ([], b'{"a":"\xff"}'),
    ([("status", b"999")], b"{}"),
    ([("status", b"abc")], b"{}"),
    ([("at", b"/x\r\nset-cookie: a=b")], b"{}"),
    ([("at", b"/x\0")], b"{}"),
    ([("content-type", b"text/plain\r\nx: y")], b"{}"),
]


async def test_poison_fails_its_own_request_and_no_other(broker: Broker, name: str) -> None:
    def poisonous(echo: Echo, message: Any) -> None:
        number = json.loads(message.value() or b"")[0]
        if number < len(POISON):
            headers, value = POISON[number]
            echo.answer(message, value, [*headers])
        else:
            echo.answer(message)

    settings = {"status_header": "status", "reply_headers": {"location": "at"}}
    with echoing(broker.bootstrap, f"{name}.do", answer=poisonous):
        async with running(broker.bootstrap, bind(name, **settings)) as rig:
            ask = rig.caller(name, "do", dialect="plain", **settings)
            asks = [ask(b"[%d]" % number) for number in range(len(POISON) + 5)]
            got = await asyncio.gather(*asks, return_exceptions=True)
            for poisoned in got[: len(POISON)]:
                assert getattr(poisoned, "kind", None) is Kinds.BAD_ANSWER, poisoned
                assert getattr(poisoned, "outcome", None) is Outcome.ANSWERED
            for fine in got[len(POISON) :]:
                assert isinstance(fine, Reply)
            assert rig.replies() == {"ok": 5, "malformed": len(POISON)}
            assert len(rig.engine.pending) == 0


# --- clients that leave


async def test_a_client_that_leaves_frees_its_entry_at_once_and_its_reply_is_late(
    broker: Broker, echo: Echo, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "castlegate")
    async with running(broker.bootstrap, bind(name)) as rig:
        bound = rig.engine.service(name, _plain()).bind("do")
        echo.held.set()
        ended: list[BaseException | None] = []
        task = DirectTask(
            _reply_of(bound(make_call(b"[1]", deadline=rig.timer.now() + 10))), lambda _, error: ended.append(error)
        )
        task.start()
        await rig.until(lambda: echo.seen)
        assert len(rig.engine.pending) == 1
        task.cancel()
        assert len(rig.engine.pending) == 0
        assert isinstance(ended[0], asyncio.CancelledError)
        echo.answer(echo.seen[0])
        await rig.until(lambda: rig.replies().get("late"))
        assert rig.replies() == {"late": 1}
    assert not caplog.records


async def test_a_request_has_one_answer_however_it_is_awaited(broker: Broker, echo: Echo, name: str) -> None:
    async with running(broker.bootstrap, bind(name)) as rig:
        bound = rig.engine.service(name, _plain()).bind("do")
        got: list[object] = []
        DirectTask(
            _reply_of(bound(make_call(b"[1]", deadline=rig.timer.now() + 10))),
            lambda result, error: got.append(error or result),
        ).start()
        await rig.until(lambda: got)
        assert isinstance(got[0], Reply)
        assert (await bound(make_call(b"[2]", deadline=rig.timer.now() + 10))).body == b"[2]"


async def test_more_than_may_wait_are_refused_and_others_go_on_when_there_is_room(
    broker: Broker, echo: Echo, name: str
) -> None:
    async with running(broker.bootstrap, bind(name), max_pending=3) as rig:
        ask = rig.caller(name, "do", dialect="plain")
        echo.held.set()
        waiting = [asyncio.ensure_future(ask(b"[%d]" % number)) for number in range(3)]
        await rig.until(lambda: len(echo.seen) == 3)
        refused = await failure(ask())
        assert (refused.kind, refused.outcome) == (Kinds.PENDING_FULL, Outcome.NOT_SENT)
        echo.held.clear()
        for message in list(echo.seen):
            echo.answer(message)
        assert [(await each).body for each in waiting] == [b"[0]", b"[1]", b"[2]"]
        assert (await ask(b"[4]")).body == b"[4]"


async def test_a_request_that_is_too_large_is_refused_before_it_leaves(broker: Broker, echo: Echo, name: str) -> None:
    async with running(broker.bootstrap, bind(name), max_record=10_000) as rig:
        ask = rig.caller(name, "do", dialect="plain")
        for more in ({"body": b"x" * 10_001}, {"body": b"x" * 9_000, "key": b"k" * 2_000}):
            refused = await failure(ask(**more))
            assert (refused.kind, refused.outcome) == (Kinds.RECORD_TOO_LARGE, Outcome.NOT_SENT)
        assert (await ask(b"x" * 9_000)).status == 200
        assert len(echo.seen) == 1


async def test_a_deadline_that_has_passed_sends_nothing(broker: Broker, echo: Echo, name: str) -> None:
    async with running(broker.bootstrap, bind(name)) as rig:
        ask = rig.caller(name, "do", dialect="plain")
        refused = await failure(ask(within=-0.001))
        assert (refused.kind, refused.outcome) == (Kinds.TIMEOUT, Outcome.NOT_SENT)
        assert (await ask(b"[1]")).status == 200
        assert len(echo.seen) == 1


async def _reply_of(awaitable: Any) -> Reply:
    reply: Reply = await awaitable
    return reply


def _plain() -> Any:
    from castlegate.upstreams.kafka.settings import KafkaService

    return KafkaService(dialect="plain")
