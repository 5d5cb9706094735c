"""What the brokers have acknowledged is counted, although they tell us of failures alone."""

import asyncio
import contextlib

from tests.conftest import Broker
from tests.kafka.calls import Rig, running
from tests.kafka.echo import Echo
from tests.testbeds.topics import create_topics

from castlegate.errors import CallFailed


class Counts:
    """Looks at the counter all the time: it never runs backwards, nor ahead of what was sent."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._last = 0.0
        self._task = asyncio.create_task(self._look())

    @property
    def acknowledged(self) -> float:
        return self._rig.count("castlegate_kafka_acknowledged_total")

    @property
    def sent(self) -> float:
        return self._rig.count("castlegate_kafka_requests_total", topic="acked.do")

    @property
    def failed(self) -> float:
        return sum(child.value for child in self._rig.engine.metrics.failures.children.values())

    async def _look(self) -> None:
        while True:
            now = self.acknowledged
            assert self._last <= now <= self.sent
            self._last = now
            await asyncio.sleep(0.001)

    async def stop(self) -> None:
        """Raises what was seen wrong."""
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task


def bind(rig: Rig) -> None:
    rig.caller("acked", "do", dialect="plain")


async def test_what_is_answered_was_acknowledged(broker: Broker) -> None:
    create_topics(broker.bootstrap, {"acked.do": 2})
    echo = Echo(broker.bootstrap, "acked.do")
    try:
        async with running(broker.bootstrap, bind) as rig:
            ask, counts = rig.caller("acked", "do", dialect="plain"), Counts(rig)
            for burst in (1, 50, 3):
                await asyncio.gather(*(ask(b'"x"') for _ in range(burst)))
                await rig.until(lambda: counts.acknowledged == counts.sent)
            assert (counts.sent, counts.failed) == (54, 0)
            await counts.stop()
    finally:
        echo.stop()


async def test_what_is_not_acknowledged_is_not_counted_before_it_is(own_broker: Broker) -> None:
    create_topics(own_broker.bootstrap, {"acked.do": 1})
    async with running(own_broker.bootstrap, bind, longest_timeout=20.0) as rig:
        ask, counts = rig.caller("acked", "do", dialect="plain"), Counts(rig)
        await asyncio.gather(*(ask(b'"x"', within=0.2) for _ in range(5)), return_exceptions=True)
        await rig.until(lambda: counts.acknowledged == 5)
        own_broker.freeze()
        asked = [asyncio.create_task(ask(b'"x"', within=1.0)) for _ in range(5)]
        await asyncio.wait(asked)
        assert all(isinstance(each.exception(), CallFailed) for each in asked)
        assert (counts.sent, counts.acknowledged) == (10, 5)
        own_broker.thaw()
        await rig.until(lambda: counts.acknowledged + counts.failed == 10)
        await counts.stop()


async def test_what_failed_or_was_given_up_is_never_counted(own_broker: Broker) -> None:
    create_topics(own_broker.bootstrap, {"acked.do": 1})
    async with running(own_broker.bootstrap, bind, longest_timeout=1.0) as rig:
        ask, counts = rig.caller("acked", "do", dialect="plain"), Counts(rig)
        await asyncio.gather(*(ask(b'"x"', within=0.2) for _ in range(3)), return_exceptions=True)
        await rig.until(lambda: counts.acknowledged == 3)
        own_broker.freeze()
        asked = [asyncio.create_task(ask(b'"x"', within=0.5)) for _ in range(4)]
        await asyncio.wait(asked)
        own_broker.kill()
        await rig.until(lambda: counts.failed == 4)
        assert (counts.sent, counts.acknowledged) == (7, 3)
        await counts.stop()
