"""The topics that replies come to, and how much of each this worker reads. Pure: looks go in, orders come out.

A mailbox has an address once the inbox has found its place in it, and loses it when the topic goes. States: not read
(no order yet) → ordered → assigned (`address` is set) → lost → ordered again when the topic is back.
"""

from __future__ import annotations

from castlegate.upstreams.kafka.dialects.dialect import ReplyAddress
from castlegate.upstreams.kafka.topics import NOT_LOOKED_AT, Order, Presence, TopicInfo


class Mailbox:
    """One topic."""

    __slots__ = (
        "_forget", "_info", "_lost", "_order", "_pick", "_reread", "address", "correlation", "owned", "problem",
        "topic",
    )  # fmt: skip

    def __init__(self, topic: str, *, owned: int | None, pick: int | None, reread: float) -> None:
        self.topic = topic
        self.owned = owned  # partitions to create it with; None: the topic is not ours
        self._pick = pick  # chooses the one partition that is read, by remainder; None: all of them are
        self._reread = reread  # seconds to go back when the place is lost: the longest timeout
        # Mutable, changed by the methods below alone.
        self.correlation: tuple[str, ...] = ()  # names of the header that holds the correlation id
        self.address: ReplyAddress | None = None
        self.problem = ""  # why there is no address, where that is known
        self._info: TopicInfo = NOT_LOOKED_AT
        self._order: Order | None = None
        self._lost = False
        # Partitions whose place means nothing until an order that says so was carried out: the first one may fail,
        # since a topic just made has no leaders for a moment.
        self._forget: frozenset[int] = frozenset()

    def find_ids_in(self, header: str) -> None:
        """One more name of the header with the correlation id."""
        if header not in self.correlation:
            self.correlation = (*self.correlation, header)

    def seen(self, info: TopicInfo, clock: float) -> Order | None:
        """The topic was looked at; `clock` is seconds since 1970. Returns what to read now, if that has changed."""
        if info.presence is not Presence.PRESENT:
            if info.presence is not Presence.UNKNOWN or self._order is None:
                self.lose(info.problem)
            return None
        before, self._info = self._info, info
        self.problem = ""
        if self._order is None:
            return self._ordered(Order(self.topic, self._partitions(info)))
        since = clock - self._reread
        if before.id != info.id or info.partitions < before.partitions:  # made anew
            self.address = None
            partitions = self._partitions(info)
            return self._ordered(Order(self.topic, partitions, since, frozenset(partitions)))
        partitions = self._partitions(info) if self._pick is None else self._order.partitions
        if self._lost or partitions != self._order.partitions:
            return self._ordered(Order(self.topic, partitions, since))
        return None

    def misplaced(self, partition: int, clock: float) -> Order | None:
        """The inbox has lost its place in a partition: what to read then."""
        if self._order is None:
            return None
        return self._ordered(Order(self.topic, self._order.partitions, clock - self._reread, frozenset({partition})))

    def assigned(self, order: Order) -> None:
        """The inbox has found its place."""
        self._forget -= order.forget
        if self._order is not None and order.partitions == self._order.partitions and not self._lost:
            partition = None if self._pick is None else order.partitions[0]
            if self.address is None or self.address.partition != partition:
                self.address = ReplyAddress(self.topic, partition)

    def lose(self, problem: str) -> None:
        """It cannot be read."""
        self.problem = problem
        self.address = None
        self._lost = self._order is not None

    def _partitions(self, info: TopicInfo) -> tuple[int, ...]:
        if self._pick is None:
            return tuple(range(info.partitions))
        return (self._pick % info.partitions,)

    def _ordered(self, order: Order) -> Order:
        self._forget |= order.forget
        self._order = order = order._replace(forget=self._forget.intersection(order.partitions))
        self._lost = False
        return order
