"""The topics that configurations use of one cluster: those written to, those that replies come to, those
that every worker reads.

It owns the mailboxes, says what the watch is to look at and the inbox to find, and what is amiss with any of them.
Everything here runs in the loop.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from castlegate.telemetry.metrics import Family, Gauge
from castlegate.upstreams.kafka.dialects.dialect import Dialect
from castlegate.upstreams.kafka.gate import Gate, Gates
from castlegate.upstreams.kafka.inbox import Inbox
from castlegate.upstreams.kafka.log import Log
from castlegate.upstreams.kafka.mailboxes import Mailbox
from castlegate.upstreams.kafka.settings import Kafka
from castlegate.upstreams.kafka.topics import Order, Presence, TopicInfo, inbox_topic
from castlegate.upstreams.kafka.watch import Watch


class Readiness(NamedTuple):
    """Whether requests can be answered, and if something is amiss, what (for operators)."""

    ready: bool
    reason: str


class Places:
    """See the module."""

    def __init__(
        self,
        settings: Kafka,
        gates: Gates,
        watch: Watch,
        inbox: Inbox,
        missing: Family[Gauge],
        *,
        pick: int,
        reread: float,
    ) -> None:
        """`pick` chooses partitions and inboxes that are shared; `reread`: seconds to go back for lost replies."""
        self._settings = settings
        self._gates = gates
        self._watch = watch
        self._inbox = inbox
        self._missing = missing
        self._pick = pick
        self._reread = reread
        # Mutable.
        self._mailboxes: dict[str, Mailbox] = {}
        self._logs: list[Log] = []
        self._used: frozenset[str] | None = None  # topics; None: all of them

    @property
    def mailboxes(self) -> Mapping[str, Mailbox]:
        """Where replies come to, by topic."""
        return self._mailboxes

    @property
    def logs(self) -> Sequence[Log]:
        """Topics that every worker reads."""
        return self._logs

    @property
    def readiness(self) -> Readiness:
        """Ready when a reply topic in use is being read; what is amiss with others is the reason."""
        boxes = [box for box in self._mailboxes.values() if self._is_used(box.topic)]
        lost = [box for box in boxes if box.address is None]
        reasons = [box.problem or f"reply topic {box.topic}: not read yet" for box in lost]
        if not lost:
            topics = self._gates.topics.items()
            reasons = [
                info.problem for name, info in topics if info.presence is not Presence.PRESENT and self._is_used(name)
            ]
        return Readiness(not lost or len(lost) < len(boxes), "; ".join(filter(None, reasons)))

    @property
    def settled(self) -> bool:
        """Whether it is known of all of them if they can be used."""
        return self._gates.settled and all(box.address is not None or box.problem for box in self._mailboxes.values())

    def use(self, topics: frozenset[str]) -> None:
        """Those of the configuration that is served: what others lack, which a reload has prepared or left behind, is
        no concern of readiness.
        """
        self._used = topics
        for topic, info in self._gates.topics.items():
            self._tell_missing(topic, info)

    def keep(self, topics: frozenset[str]) -> bool:
        """Forget others and read them no more. Whether there were any."""
        forgotten = self._gates.topics.keys() - topics
        for topic in forgotten:
            self._missing.child(topic).value = 0
        self._gates.keep(topics)
        self._logs = [each for each in self._logs if each.topic in topics]
        left = [Order(topic, ()) for topic in self._mailboxes.keys() - topics]
        self._mailboxes = {topic: each for topic, each in self._mailboxes.items() if topic in topics}
        self._tell_watch()
        if left:
            self._watch.do(lambda: self._inbox.read(left))  # behind what is being placed
        return bool(left or forgotten)

    def gate(self, topic: str, mailbox: Mailbox | None) -> Gate:
        """A gate for records to `topic`; the topic is watched from now on."""
        gate = self._gates.add(topic, mailbox)
        self._tell_watch()
        self._watch.look_again()
        return gate

    def mailbox(self, dialect: Dialect, fixed: str | None) -> Mailbox:
        """Where replies come to; `fixed` names a topic that a service answers on whatever it is told."""
        topics = self._settings.topics
        if fixed is not None:
            topic, owned, pick = fixed, None, None
        elif dialect.partitioned:
            topic, owned, pick = self._settings.inbox, topics.partitions, self._pick
        else:
            topic, owned, pick = f"{self._settings.inbox}.{self._pick % topics.single}", 1, None
        mailbox = self._mailboxes.get(topic)
        if mailbox is None:
            mailbox = self._mailboxes[topic] = Mailbox(topic, owned=owned, pick=pick, reread=self._reread)
        mailbox.find_ids_in(dialect.correlation)
        return mailbox

    def read_whole(self, log: Log) -> None:
        """Watch the topic of `log`, and make it where it is missing."""
        self._logs = [*(each for each in self._logs if not each.stopped), log]
        self._tell_watch()

    def known(self, topic: str) -> bool:
        """Whether it is used, and has not been forgotten meanwhile."""
        return topic in self._gates.topics or topic in self._mailboxes

    def seen(self, topics: Mapping[str, TopicInfo], clock: float) -> list[Order]:
        """Topics were looked at; `clock` is seconds since 1970. What is to be read otherwise because of that."""
        orders = []
        for topic, info in topics.items():
            if not self.known(topic):
                continue
            if topic in self._gates.topics:
                self._gates.topics[topic] = info
            for each in self._logs:
                if each.topic == topic:
                    each.seen(info)
            mailbox = self._mailboxes.get(topic)
            order = mailbox.seen(info, clock) if mailbox is not None else None
            if order is not None:
                orders.append(order)
            self._tell_missing(topic, info)
        return orders

    def _is_used(self, topic: str) -> bool:
        return self._used is None or topic in self._used

    def _tell_missing(self, topic: str, info: TopicInfo) -> None:
        missing = info.presence in (Presence.MISSING, Presence.FORBIDDEN)
        self._missing.child(topic).value = missing and self._is_used(topic)

    def _tell_watch(self) -> None:
        """Which topics are to be looked at, and what the inbox finds in them."""
        self._watch.wanted = frozenset(
            {*self._gates.topics, *(b.topic for b in self._mailboxes.values() if not b.owned)}
        )
        boxes = [box for box in self._mailboxes.values() if box.owned]
        self._watch.owned = {
            **{box.topic: inbox_topic(self._settings, box.owned) for box in boxes if box.owned},
            **{each.topic: each.kind.owned for each in self._logs},
        }
        self._watch.reads = frozenset(self._mailboxes).difference(self._gates.topics)
        self._inbox.correlation = {box.topic: box.correlation for box in self._mailboxes.values()}
