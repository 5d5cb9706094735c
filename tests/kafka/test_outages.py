"""Brokers that are down, die, freeze and come back (CASES K1, K2): honest at once, and well again without a restart."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest
from tests.conftest import Broker
from tests.kafka.calls import Rig, failure, running
from tests.kafka.echo import Echo
from tests.testbeds.kafka import RealKafka
from tests.testbeds.topics import create_topics

from castlegate.errors import CallFailed, Kinds, Outcome
from castlegate.message import Reply


def bind(rig: Rig) -> None:
    rig.caller("s", "do", dialect="plain")
    rig.engine.publisher("s.do")


@contextmanager
def echoing(bootstrap: str) -> Iterator[Echo]:
    create_topics(bootstrap, {"s.do": 2})
    echo = Echo(bootstrap, "s.do")
    try:
        yield echo
    finally:
        echo.stop()


async def recovered(ask: Callable[..., Any], within: float) -> float:
    """Seconds until a request is answered again."""
    began = time.monotonic()
    while True:
        try:
            assert (await ask(b'"well"', within=2.0)).status == 200
        except CallFailed:
            assert time.monotonic() - began < within
            await asyncio.sleep(0.02)
        else:
            return time.monotonic() - began


async def test_brokers_that_are_down_at_the_start_refuse_at_once_and_are_found_when_they_come(
    own_broker: Broker,
) -> None:
    own_broker.kill()
    began = time.monotonic()
    async with running(own_broker.bootstrap, bind) as rig:
        assert time.monotonic() - began < 3, "the start does not wait for brokers"
        ask = rig.caller("s", "do", dialect="plain")
        for asked in (ask, lambda: rig.engine.publisher("s.do").publish(None, b"1", [], rig.timer.now() + 5)):
            began = time.monotonic()
            refused = await failure(asked())
            assert time.monotonic() - began < 2
            assert (refused.kind, refused.outcome) == (Kinds.BROKER_UNAVAILABLE, Outcome.NOT_SENT)
        await rig.until(lambda: "refused" in rig.engine.state.reason)
        assert not rig.engine.state.ready
        assert rig.count("castlegate_kafka_up") == 0
        await asyncio.to_thread(own_broker.restart)
        with echoing(own_broker.bootstrap):
            assert await recovered(ask, 20) < 20
            assert rig.engine.state.ready
            await rig.engine.publisher("s.do").publish(None, b"1", [], rig.timer.now() + 5)


async def test_brokers_that_die_with_requests_waiting_are_noticed_and_each_request_has_one_answer(
    own_broker: Broker,
) -> None:
    with echoing(own_broker.bootstrap) as echo:
        async with running(own_broker.bootstrap, bind) as rig:
            ask = rig.caller("s", "do", dialect="plain")
            await rig.until(lambda: rig.engine.state.ready)
            assert (await ask()).status == 200
            echo.held.set()
            waiting = [asyncio.ensure_future(ask(b"[%d]" % number, within=1.5)) for number in range(20)]
            await rig.until(lambda: len(echo.seen) == 21)
            await asyncio.to_thread(own_broker.kill)
            await rig.until(lambda: not rig.engine.state.ready)
            refused = await failure(ask())
            assert (refused.kind, refused.outcome) == (Kinds.BROKER_UNAVAILABLE, Outcome.NOT_SENT)
            for each in waiting:
                failed = await failure(each)
                assert (failed.kind, failed.outcome) == (Kinds.TIMEOUT, Outcome.UNKNOWN)
            assert len(rig.engine.pending) == 0
            echo.held.clear()
            await asyncio.to_thread(own_broker.restart)
            if own_broker.kind == "embedded":  # it keeps nothing, topics included
                create_topics(own_broker.bootstrap, {"s.do": 2})
            await recovered(ask, 20)
            bodies = [json.dumps([number, "after"]).encode() for number in range(20)]
            assert [(await ask(body)).body for body in bodies] == bodies, "nobody gets another's answer"


@asynccontextmanager
async def frozen(broker: Broker) -> AsyncIterator[None]:
    broker.freeze()
    try:
        yield
    finally:
        broker.thaw()


async def test_brokers_that_freeze_are_noticed_too(own_broker: Broker) -> None:
    with echoing(own_broker.bootstrap):
        async with running(own_broker.bootstrap, bind, longest_timeout=5) as rig:
            ask = rig.caller("s", "do", dialect="plain")
            await rig.until(lambda: rig.engine.state.ready)
            assert (await ask()).status == 200
            async with frozen(own_broker):
                failed = await failure(ask(within=0.5))
                assert (failed.kind, failed.outcome) == (Kinds.TIMEOUT, Outcome.UNKNOWN)
                await rig.until(lambda: not rig.engine.state.ready)
                refused = await failure(ask())
                assert (refused.kind, refused.outcome) == (Kinds.BROKER_UNAVAILABLE, Outcome.NOT_SENT)
            await recovered(ask, 20)


async def test_a_short_stall_loses_and_doubles_nothing(own_broker: Broker) -> None:
    with echoing(own_broker.bootstrap) as echo:
        async with running(own_broker.bootstrap, bind) as rig:
            ask = rig.caller("s", "do", dialect="plain")
            await rig.until(lambda: rig.engine.state.ready)
            assert (await ask()).status == 200
            async with frozen(own_broker):
                waiting = [asyncio.ensure_future(ask(b"[%d]" % number)) for number in range(20)]
                await asyncio.sleep(0.3)  # the stall itself
            assert [(await each).body for each in waiting] == [b"[%d]" % number for number in range(20)]
            assert len(echo.seen) == 21
            assert rig.replies() == {"ok": 21}


async def test_replies_written_while_the_connection_was_down_are_read_when_it_is_back(
    start_real_kafka: Callable[..., RealKafka],
) -> None:
    kafka = start_real_kafka({})
    with echoing(kafka.bootstrap) as echo:
        async with running(kafka.bootstrap, bind) as rig:
            ask = rig.caller("s", "do", dialect="plain")
            await rig.until(lambda: rig.engine.state.ready)
            assert (await ask()).status == 200
            echo.held.set()
            waiting = [asyncio.ensure_future(ask(b"[%d]" % number, within=60.0)) for number in range(5)]
            await rig.until(lambda: len(echo.seen) == 6)
            await asyncio.to_thread(kafka.stop)
            await rig.until(lambda: not rig.engine.state.ready)
            for message in echo.seen[1:]:
                echo.answer(message)  # goes out as soon as the broker is there
            await asyncio.to_thread(kafka.restart)
            assert [(await each).body for each in waiting] == [b"[%d]" % number for number in range(5)]
            assert rig.replies() == {"ok": 6}


async def test_what_waited_for_brokers_is_not_executed_after_everybody_has_given_up(
    own_broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    with echoing(own_broker.bootstrap) as echo:
        async with running(own_broker.bootstrap, bind, longest_timeout=60) as rig:
            ask = rig.caller("s", "do", dialect="plain")
            await rig.until(lambda: rig.engine.state.ready)
            assert (await ask()).status == 200
            async with frozen(own_broker):
                failed = await failure(ask(b'"first"', within=0.3))
                failed = await failure(ask(b'"in the queue"', within=0.3))
                assert failed.outcome is Outcome.UNKNOWN
                await rig.until(lambda: not rig.engine.state.ready)
                await rig.until(lambda: rig.engine.producers.under_way() == 0)
            await recovered(ask, 20)
            values = [message.value() for message in echo.seen]
            assert values.count(b'"well"') == 1
            # The first was on its way to the frozen broker; nothing else of what was given up comes.
            assert set(values) <= {b"{}", b'"first"', b'"in the queue"', b'"well"'}
            assert any("replaced" in line for line in caplog.messages)


async def test_stopping_answers_everybody_within_its_grace(own_broker: Broker) -> None:
    with echoing(own_broker.bootstrap) as echo:
        async with running(own_broker.bootstrap, bind, grace=0.3) as rig:
            ask = rig.caller("s", "do", dialect="plain")
            await rig.until(lambda: rig.engine.state.ready)
            assert (await ask()).status == 200
            echo.held.set()
            waiting = asyncio.ensure_future(ask(within=30.0))
            await rig.until(lambda: len(echo.seen) == 2)
        failed = await failure(waiting)
        assert (failed.kind, failed.outcome) == (Kinds.DRAINING, Outcome.UNKNOWN)
        refused = await failure(ask())
        assert (refused.kind, refused.outcome) == (Kinds.DRAINING, Outcome.NOT_SENT)


async def test_stopping_waits_for_replies_that_come_in_time(own_broker: Broker) -> None:
    with echoing(own_broker.bootstrap) as echo:
        async with running(own_broker.bootstrap, bind, grace=10) as rig:
            ask = rig.caller("s", "do", dialect="plain")
            await rig.until(lambda: rig.engine.state.ready)
            assert (await ask()).status == 200
            echo.held.set()
            waiting = asyncio.ensure_future(ask(b"[1]", within=30.0))
            await rig.until(lambda: len(echo.seen) == 2)
            asyncio.get_running_loop().call_later(0.1, echo.answer, echo.seen[1])
        reply: Reply = await waiting
        assert reply.body == b"[1]"
