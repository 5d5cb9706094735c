"""Whether a request or an event may go out now, and a short wait where that is about to be known.

A gate is open when brokers answer, the topic exists and, for requests, the reply address is known: the hot path reads
one attribute. A closed gate either refuses at once, with the reason, or, while nothing is certain (at the start, or
when connections have just broken), has the caller wait for the next look at the brokers for a moment.
"""

from __future__ import annotations

from typing import Protocol

from castlegate.errors import CallFailed, Kinds, Outcome
from castlegate.upstreams.kafka.link import Link
from castlegate.upstreams.kafka.mailboxes import Mailbox
from castlegate.upstreams.kafka.topics import NOT_LOOKED_AT, Presence, TopicInfo
from castlegate.waiting import Waiter
from castlegate.wire.timer import Timer

PATIENCE = 0.05  # seconds; a refusal comes within 0.1


class Keeper(Protocol):
    """What gates ask of the engine."""

    stopping: bool

    @property
    def link(self) -> Link:
        """Whether brokers answer."""

    @property
    def can_send(self) -> bool:
        """Whether there are producers."""

    def look_soon(self) -> None:
        """Somebody was refused: look again before long."""


class Turn:
    """One caller that waits: told True when something has changed, False when its patience has run out."""

    __slots__ = ("waiter",)

    def __init__(self) -> None:
        self.waiter: Waiter[bool] = Waiter()

    def expire(self) -> None:
        """Out of patience."""
        self.waiter.settle(False)


class Gates:
    """All gates of an engine; whoever changes what they depend on calls `refresh`."""

    def __init__(self, keeper: Keeper, timer: Timer) -> None:
        self._keeper = keeper
        self._timer = timer
        # Mutable, changed by this file alone.
        self.topics: dict[str, TopicInfo] = {}  # of requests and events
        self._gates: dict[tuple[str, Mailbox | None], Gate] = {}
        self._turns: set[Turn] = set()

    def add(self, topic: str, mailbox: Mailbox | None) -> Gate:
        """A gate for requests to `topic` that are answered in `mailbox`, or for events."""
        known = self._gates.get((topic, mailbox))
        if known is not None:
            return known
        self.topics.setdefault(topic, NOT_LOOKED_AT)
        gate = self._gates[topic, mailbox] = Gate(self, topic, mailbox)
        gate.open = self._certain(gate) and self.refusal(gate) is None
        return gate

    def keep(self, topics: frozenset[str]) -> None:
        """Forget those that need another topic than these."""
        for key, gate in list(self._gates.items()):
            if gate.topic not in topics or (gate.mailbox is not None and gate.mailbox.topic not in topics):
                gate.open = False
                del self._gates[key]
        wanted = {gate.topic for gate in self._gates.values()}
        self.topics = {topic: info for topic, info in self.topics.items() if topic in wanted}

    def refresh(self) -> None:
        """Something has changed: open and close gates, let those who wait look again."""
        for gate in self._gates.values():
            gate.open = self._certain(gate) and self.refusal(gate) is None
        turns, self._turns = self._turns, set()
        for turn in turns:
            turn.waiter.settle(True)

    @property
    def settled(self) -> bool:
        """Whether every gate is open or refuses."""
        return all(gate.open or self.refusal(gate) is not None for gate in self._gates.values())

    def refusal(self, gate: Gate) -> CallFailed | None:
        """Why nothing may go through, as far as that is certain."""
        if self._keeper.stopping:
            return CallFailed(Kinds.DRAINING, Outcome.NOT_SENT)
        if self._keeper.link is Link.DOWN:
            return unavailable()
        if gate.topic not in self.topics:
            return unavailable()  # it was forgotten
        presence = self.topics[gate.topic].presence
        if presence is Presence.MISSING:
            return CallFailed(Kinds.TOPIC_MISSING, Outcome.NOT_SENT, "The service's topic does not exist.")
        if presence is Presence.FORBIDDEN:
            detail = "The gateway may not use the service's topic."
            return CallFailed(Kinds.NOT_PERMITTED, Outcome.NOT_SENT, detail)
        if gate.mailbox is not None and gate.mailbox.problem:
            detail = "The topic that replies come to cannot be read."
            return CallFailed(Kinds.TOPIC_MISSING, Outcome.NOT_SENT, detail)
        return None

    async def admit(self, gate: Gate, deadline: float) -> None:
        """Return when `gate` is open; raises `CallFailed` (not sent) when it refuses or nothing becomes certain."""
        patience = min(deadline, self._timer.now() + PATIENCE)
        while not gate.open:
            refusal = self.refusal(gate)
            if refusal is not None:
                self._keeper.look_soon()
                raise refusal
            turn = Turn()
            self._turns.add(turn)
            self._timer.add(turn, patience)
            try:
                changed = await turn.waiter
            finally:
                self._turns.discard(turn)
                self._timer.remove(turn, patience)
            if not changed and not gate.open:
                raise unavailable()

    def _certain(self, gate: Gate) -> bool:
        """Whether all that the gate needs is known to be there, unless it refuses."""
        if self._keeper.link is not Link.UP or not self._keeper.can_send:
            return False
        if self.topics[gate.topic].presence is Presence.UNKNOWN:
            return False
        return gate.mailbox is None or gate.mailbox.address is not None


class Gate:
    """One way out."""

    __slots__ = ("_gates", "mailbox", "open", "topic")

    def __init__(self, gates: Gates, topic: str, mailbox: Mailbox | None) -> None:
        self._gates = gates
        self.topic = topic
        self.mailbox = mailbox
        self.open = False

    async def admit(self, deadline: float) -> None:
        """Wait a moment for it to open; raises `CallFailed` (not sent)."""
        await self._gates.admit(self, deadline)


def unavailable() -> CallFailed:
    """No broker answers, or none has yet."""
    return CallFailed(Kinds.BROKER_UNAVAILABLE, Outcome.NOT_SENT, "The message broker is not available.")
