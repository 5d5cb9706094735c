"""When a request may go out, when it is refused, and when it waits a moment."""

import asyncio

import pytest
from tests.kafka.calls import failure

from castlegate.errors import Kinds, Outcome
from castlegate.upstreams.kafka.gate import PATIENCE, Gates
from castlegate.upstreams.kafka.link import Link
from castlegate.upstreams.kafka.mailboxes import Mailbox
from castlegate.upstreams.kafka.topics import Order, Presence, TopicInfo
from castlegate.wire.timer import Timer

PRESENT = TopicInfo(Presence.PRESENT, 1, "id")


class Keeper:
    link = Link.UP
    stopping = False
    can_send = True
    looks = 0

    def look_soon(self) -> None:
        self.looks += 1


@pytest.fixture
async def keeper() -> Keeper:
    return Keeper()


@pytest.fixture
async def gates(keeper: Keeper) -> Gates:
    return Gates(keeper, Timer(asyncio.get_running_loop()))


def open_mailbox() -> Mailbox:
    box = Mailbox("inbox", owned=1, pick=0, reread=1)
    order = box.seen(PRESENT, 0.0)
    assert order == Order("inbox", (0,))
    box.assigned(order)
    return box


def later() -> float:
    return asyncio.get_running_loop().time() + 5


async def test_it_is_open_when_all_that_it_needs_is_there(gates: Gates) -> None:
    gates.topics["t"] = PRESENT
    assert gates.add("t", open_mailbox()).open
    assert gates.add("t", None).open


@pytest.mark.parametrize(
    ("presence", "kind"), [(Presence.MISSING, Kinds.TOPIC_MISSING), (Presence.FORBIDDEN, Kinds.NOT_PERMITTED)]
)
async def test_a_topic_that_cannot_be_used_refuses_at_once_and_has_it_looked_for(
    gates: Gates, keeper: Keeper, presence: Presence, kind: object
) -> None:
    gates.topics["t"] = TopicInfo(presence)
    gate = gates.add("t", open_mailbox())
    refused = await failure(gate.admit(later()))
    assert (refused.kind, refused.outcome) == (kind, Outcome.NOT_SENT)
    assert keeper.looks == 1


async def test_brokers_that_are_down_refuse_at_once(gates: Gates, keeper: Keeper) -> None:
    gates.topics["t"] = PRESENT
    gate = gates.add("t", open_mailbox())
    keeper.link = Link.DOWN
    gates.refresh()
    assert not gate.open
    assert (await failure(gate.admit(later()))).kind is Kinds.BROKER_UNAVAILABLE


async def test_a_mailbox_with_a_problem_refuses_without_saying_which(gates: Gates) -> None:
    gates.topics["t"] = PRESENT
    box = open_mailbox()
    gate = gates.add("t", box)
    box.lose("create it: kafka-topics.sh --bootstrap-server internal:9092")
    gates.refresh()
    refused = await failure(gate.admit(later()))
    assert refused.kind is Kinds.TOPIC_MISSING
    assert "internal" not in refused.detail


@pytest.mark.parametrize("link", [Link.STARTING, Link.SUSPECT])
async def test_while_nothing_is_certain_it_waits_and_goes_on(gates: Gates, keeper: Keeper, link: Link) -> None:
    gates.topics["t"] = PRESENT
    keeper.link = link
    gate = gates.add("t", None)
    waiting = asyncio.ensure_future(gate.admit(later()))
    await asyncio.sleep(0)
    gates.refresh()  # nothing that helps: it waits on
    await asyncio.sleep(0)
    assert not waiting.done()
    keeper.link = Link.UP
    gates.refresh()
    await waiting


async def test_while_nothing_is_certain_it_waits_for_a_moment_only(gates: Gates, keeper: Keeper) -> None:
    keeper.link = Link.STARTING
    gate = gates.add("t", None)
    loop = asyncio.get_running_loop()
    began = loop.time()
    refused = await failure(gate.admit(later()))
    assert (refused.kind, refused.outcome) == (Kinds.BROKER_UNAVAILABLE, Outcome.NOT_SENT)
    assert loop.time() - began >= PATIENCE


async def test_a_client_that_leaves_while_it_waits_leaves_nothing(gates: Gates, keeper: Keeper) -> None:
    keeper.link = Link.STARTING
    gate = gates.add("t", None)
    waiting = asyncio.ensure_future(gate.admit(later()))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not gates._turns


async def test_a_gateway_that_stops_refuses_all(gates: Gates, keeper: Keeper) -> None:
    gates.topics["t"] = PRESENT
    gate = gates.add("t", None)
    keeper.stopping = True
    gates.refresh()
    assert (await failure(gate.admit(later()))).kind is Kinds.DRAINING
