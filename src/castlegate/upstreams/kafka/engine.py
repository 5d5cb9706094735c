"""The Kafka engine: one per worker and cluster. Ties pending requests, inbox, producers and watch together.

Everything here runs in the loop; threads come in by `_tell` alone. The engine owns what is known of the cluster (the
link, topics, mailboxes) and opens and closes the gates accordingly; the parts do the work.

    starting ──look──▶ up ──all connections broke──▶ suspect ──look──▶ up or down
        └──look fails──▶ down ──look──▶ up

Looks that fail out of the blue, while all connections stand, make the link suspect only after a while: brokers that
stall for some seconds lose nothing, since records wait in the producers for as long as somebody waits for the answer.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
import zlib
from collections.abc import Callable, Mapping
from typing import NamedTuple

from confluent_kafka import KafkaError

from castlegate.errors import CallFailed, Kinds, Outcome
from castlegate.telemetry.metrics import Registry
from castlegate.upstreams.kafka.client import Clients, RateLimit, log
from castlegate.upstreams.kafka.dialects.dialect import Dialect
from castlegate.upstreams.kafka.events import ANY, Events, Publisher
from castlegate.upstreams.kafka.gate import Gate, Gates, Link
from castlegate.upstreams.kafka.inbox import Counters, Inbox, Received
from castlegate.upstreams.kafka.inbox import Events as InboxEvents
from castlegate.upstreams.kafka.log import PARTITION, TABLE, Log
from castlegate.upstreams.kafka.mailboxes import Mailbox
from castlegate.upstreams.kafka.measures import Metrics
from castlegate.upstreams.kafka.pending import TAG_DIGITS, UNKNOWN, Pending
from castlegate.upstreams.kafka.producers import Producers
from castlegate.upstreams.kafka.settings import Kafka, KafkaService
from castlegate.upstreams.kafka.streams import Flows, interrupt
from castlegate.upstreams.kafka.supply import Supply, Whom
from castlegate.upstreams.kafka.topics import Order, Presence, TopicInfo, inbox_topic
from castlegate.upstreams.kafka.upstream import KafkaUpstream
from castlegate.upstreams.kafka.watch import Look, Watch
from castlegate.wire.timer import Timer

_START_S = 0.5  # how long start() waits for brokers that may be there,
_SETUP_S = 3.0  # and for those that are, while topics are made
_LOOK_SOON_S = 0.5  # between looks that refusals and timeouts ask for
_DOUBT_S = 2.0  # between full looks that failed records and topics that change ask for
_SILENCE_S = 3.0  # how long looks may fail with all connections standing: the first has waited for 2 s before
_DRAIN_STEP_S = 0.01
_FLUSH_S = 0.2  # at least, whatever is left of the grace
_REREAD_SLACK_S = 5.0  # for clocks of services that differ from ours


class EngineState(NamedTuple):
    """For readiness: whether requests can be answered, and if something is amiss, what (for operators)."""

    ready: bool
    reason: str


class Engine:
    """See the module."""

    def __init__(
        self,
        settings: Kafka,
        *,
        instance: str,
        slot: int,
        name: str,
        timer: Timer,
        registry: Registry,
        longest_timeout: float,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.settings = settings
        self.timer = timer
        self._loop = loop
        self._reread = longest_timeout + _REREAD_SLACK_S
        # Two workers of an instance take neighbouring partitions; instances begin anywhere.
        self._pick = zlib.crc32(instance.encode()) + slot
        tag = os.urandom(TAG_DIGITS // 2).hex().encode()
        self.pending = Pending(limit=settings.max_pending, tag=tag, first=random.SystemRandom().getrandbits(32))
        self.metrics = Metrics(registry, self.pending)
        self.flows = Flows(settings.streams, timer, self.pending, self.metrics.streams)
        self._clients = Clients(
            settings,
            client_id=f"{name}-{instance}-{slot}",
            longest_timeout=longest_timeout,
            on_partitions=lambda: self._tell(self._doubt_topics),
        )
        self.producers = Producers(
            self._clients,
            linger_above=settings.linger_above,
            loop=loop,
            failures=self.metrics.failures,
            acknowledged=self.metrics.acknowledged,
            on_error=self._on_error("requests"),
            on_topic_lost=self._doubt_topics,
            on_alone_wanted=lambda: self._supply.want_alone(),
        )
        self._events = Events(self._clients, self._tell, self._on_error("events"), self._doubt_topics)
        self._inbox = Inbox(
            self._clients,
            tag,
            InboxEvents(
                deliver=lambda batch: self._tell(lambda: self._deliver(batch)),
                unidentified=lambda count: self._tell(lambda: self._unidentified(count)),
                assigned=lambda order: self._tell(lambda: self._assigned(order)),
                misplaced=lambda topic, partition: self._tell(lambda: self._misplaced(topic, partition)),
                lost=lambda topic, reason: self._tell(lambda: self._lost(topic, reason)),
                error=self._on_error("inbox"),
            ),
            Counters(self.metrics.foreign, self.metrics.lag, self.metrics.returned),
        )
        self._watch = Watch(
            settings,
            self._clients,
            tell=lambda look: self._tell(lambda: self._seen(look)),
            placed=self._inbox.read,
            unplaced=lambda topic, reason: self._tell(lambda: self._lost(topic, reason)),
        )
        self._supply = Supply(
            self.producers, self._events, Whom(self._wanted, self._made, self._watch.do, self._tell), loop, self._reread
        )
        # What is known of the cluster: mutable, changed in this file alone, in the loop.
        self.link = Link.STARTING
        self.stopping = False
        self.gates = Gates(self, timer)
        self._mailboxes: dict[str, Mailbox] = {}
        self._used: frozenset[str] | None = None  # topics; None: all of them
        self._reason = "no broker has answered yet"
        self._looked_at = 0.0
        self._silent_since: float | None = None
        self._doubted_at = 0.0
        self._doubting: asyncio.TimerHandle | None = None
        self._publishers: dict[tuple[str, int], Publisher] = {}
        self._logs: list[Log] = []
        self._limit = RateLimit()
        self._started = False
        self._settled: asyncio.Future[None] = loop.create_future()

    # What build, endpoints and server use.

    @property
    def state(self) -> EngineState:
        """Ready when brokers answer and a reply topic in use is being read; what is amiss with others is the reason."""
        if self.stopping:
            return EngineState(False, "stopping")
        if self.link is not Link.UP:
            return EngineState(False, f"brokers do not answer: {self._reason}")
        boxes = [box for box in self._mailboxes.values() if self._is_used(box.topic)]
        lost = [box for box in boxes if box.address is None]
        reasons = [box.problem or f"reply topic {box.topic}: not read yet" for box in lost]
        if not lost:
            topics = self.gates.topics.items()
            reasons = [
                info.problem for name, info in topics if info.presence is not Presence.PRESENT and self._is_used(name)
            ]
        return EngineState(not lost or len(lost) < len(boxes), "; ".join(filter(None, reasons)))

    def use(self, topics: frozenset[str]) -> None:
        """Those of the configuration that is served: what others lack, which a reload has prepared or left behind, is
        no concern of readiness.
        """
        self._used = topics
        for topic, info in self.gates.topics.items():
            self._tell_missing(topic, info)

    def keep(self, topics: frozenset[str]) -> None:
        """Forget what is known of others, which nothing uses any more, and read them no more. Clients that have seen
        them give way to others, which never ask for them.
        """
        forgotten = self.gates.topics.keys() - topics
        for topic in forgotten:
            self.metrics.missing.child(topic).value = 0
        self.gates.keep(topics)
        self._publishers = {place: each for place, each in self._publishers.items() if place[0] in topics}
        self._logs = [each for each in self._logs if each.topic in topics]
        left = [Order(topic, ()) for topic in self._mailboxes.keys() - topics]
        self._mailboxes = {topic: each for topic, each in self._mailboxes.items() if topic in topics}
        self._tell_watch()
        if left:
            self._watch.do(lambda: self._inbox.read(left))  # behind what is being placed
        if left or forgotten:
            self._watch.renew()
            self._supply.renew()
        self._refresh()

    def _is_used(self, topic: str) -> bool:
        return self._used is None or topic in self._used

    def _tell_missing(self, topic: str, info: TopicInfo) -> None:
        missing = info.presence in (Presence.MISSING, Presence.FORBIDDEN)
        self.metrics.missing.child(topic).value = missing and self._is_used(topic)

    @property
    def mailboxes(self) -> Mapping[str, Mailbox]:
        """Where replies come to, by topic."""
        return self._mailboxes

    def service(self, name: str, settings: KafkaService) -> KafkaUpstream:
        """A service behind this cluster."""
        return KafkaUpstream(self, name, settings)

    def publisher(self, topic: str, partition: int = ANY) -> Publisher:
        """For events on `topic`."""
        publisher = self._publishers.get((topic, partition))
        if publisher is None:
            publisher = self._publishers[topic, partition] = Publisher(
                topic,
                self._events,
                self.gate(topic, None),
                self.timer,
                max_record=self.settings.max_record,
                stored=self.metrics.events.child(topic, "stored"),
                failed=self.metrics.events.child(topic, "failed"),
                partition=partition,
            )
            self._supply.make()
            self.gates.refresh()
        return publisher

    def log(self, topic: str) -> Log:
        """A topic that is read whole: one of the gateway's own, made where it is missing. A new reader each time."""
        gate = self.gate(topic, None)
        publisher = self.publisher(topic, PARTITION)
        made = Log(publisher, gate, self._clients, self.timer, self._tell, self._on_error("table"))
        self._logs = [*(each for each in self._logs if not each.stopped), made]
        self._tell_watch()
        return made

    async def start(self) -> None:
        """Begin; returns when brokers have answered and all is set up, or are known not to, or after a moment.

        Once it has begun, it waits for what was added since: topics and inboxes of a further configuration.
        """
        if not self._started:
            self._started = True
            self._supply.make()
            self._inbox.start()
            self._watch.start()
        elif self._settled.done():
            self._settled = self._loop.create_future()
            self._refresh()
        await asyncio.wait([self._settled], timeout=_START_S)
        if self.link is Link.UP:
            await asyncio.wait([self._settled], timeout=_SETUP_S)

    async def stop(self, grace: float) -> None:
        """Refuse what is new, wait for replies and acknowledgements for up to `grace` seconds, close everything."""
        self.stopping = True
        self.gates.refresh()
        if self._doubting is not None:
            self._doubting.cancel()
        if not self._started:
            return
        end_at = self._loop.time() + grace
        while (len(self.pending) or self._events.under_way()) and self._loop.time() < end_at:  # noqa: ASYNC110
            await asyncio.sleep(_DRAIN_STEP_S)
        for sink in self.pending.sinks():
            sink.fail(CallFailed(Kinds.DRAINING, Outcome.UNKNOWN, "The gateway stopped before the service answered."))
        self.producers.close()
        self._supply.stop(max(_FLUSH_S, end_at - self._loop.time()))
        self._events.stop()
        self._inbox.stop()
        self._watch.stop()
        await self._loop.run_in_executor(None, self._join)
        self._events.settle()
        self.producers.tell_failed()
        self.producers.count_acknowledged()

    # What operations and publishers use.

    @property
    def can_send(self) -> bool:
        """Whether all producers that are needed are there."""
        return self.producers.ready and (self._events.ready or not self._publishers)

    def gate(self, topic: str, mailbox: Mailbox | None) -> Gate:
        """A gate for records to `topic`; the topic is watched from now on."""
        gate = self.gates.add(topic, mailbox)
        self._tell_watch()
        self._watch.look_again()
        return gate

    def _tell_watch(self) -> None:
        """Which topics are to be looked at, and what the inbox finds in them."""
        self._watch.wanted = frozenset(
            {*self.gates.topics, *(b.topic for b in self._mailboxes.values() if not b.owned)}
        )
        boxes = [box for box in self._mailboxes.values() if box.owned]
        self._watch.owned = {
            **{box.topic: inbox_topic(self.settings, box.owned) for box in boxes if box.owned},
            **{each.topic: TABLE for each in self._logs},
        }
        self._watch.reads = frozenset(self._mailboxes).difference(self.gates.topics)
        self._inbox.correlation = {box.topic: box.correlation for box in self._mailboxes.values()}

    def mailbox(self, dialect: Dialect, fixed: str | None) -> Mailbox:
        """Where replies come to; `fixed` names a topic that a service answers on whatever it is told."""
        topics = self.settings.topics
        if fixed is not None:
            topic, owned, pick = fixed, None, None
        elif dialect.partitioned:
            topic, owned, pick = self.settings.inbox, topics.partitions, self._pick
        else:
            topic, owned, pick = f"{self.settings.inbox}.{self._pick % topics.single}", 1, None
        mailbox = self._mailboxes.get(topic)
        if mailbox is None:
            mailbox = self._mailboxes[topic] = Mailbox(topic, owned=owned, pick=pick, reread=self._reread)
        mailbox.find_ids_in(dialect.correlation)
        return mailbox

    def look_soon(self) -> None:
        """Somebody was refused, or got no answer in time: look again, but not for each of them."""
        if self._loop.time() - self._looked_at > _LOOK_SOON_S:
            self._watch.look_again()

    def _doubt_topics(self) -> None:
        """A record could not be delivered for want of its topic, or a client has seen that one has changed."""
        if self._doubting is None and not self.stopping:
            # Later if need be, but surely: the second of two changes must not go unseen because of the first.
            begin = max(self._loop.time(), self._doubted_at + _DOUBT_S)
            self._doubting = self._loop.call_at(begin, self._doubt_now)

    def _doubt_now(self) -> None:
        self._doubting = None
        self._doubted_at = self._loop.time()
        self._watch.look_again(doubtful=True)

    # What threads tell.

    def _tell(self, function: Callable[[], None]) -> None:
        try:
            self._loop.call_soon_threadsafe(function)
        except RuntimeError:
            if not self._loop.is_closed():
                raise

    def _on_error(self, client: str) -> Callable[[KafkaError], None]:
        """For the errors that librdkafka tells of a client, in whichever thread polls it."""

        def on_error(error: KafkaError) -> None:
            if error.fatal():
                self._tell(lambda: self._replace(client, error.str()))
            elif error.code() == KafkaError._ALL_BROKERS_DOWN:
                self._tell(self._suspect)

        return on_error

    def _replace(self, client: str, reason: str) -> None:
        self._supply.replace(client, reason)
        self._refresh()

    def _deliver(self, batch: list[Received]) -> None:
        """Replies for this worker."""
        feed = self.pending.feed
        kinds = self.metrics.replies
        try:
            for correlation_id, headers, value in batch:
                kinds[feed(correlation_id, headers, value)].value += 1
        finally:
            self._inbox.finished()  # else the inbox would hold back for good
        self.producers.poll()

    def _unidentified(self, count: int) -> None:
        self.metrics.replies[UNKNOWN].value += count

    def _assigned(self, order: Order) -> None:
        mailbox = self._mailboxes.get(order.topic)
        if mailbox is not None:
            mailbox.assigned(order)
            self._refresh()

    def _misplaced(self, topic: str, partition: int) -> None:
        mailbox = self._mailboxes.get(topic)
        order = None if mailbox is None else mailbox.misplaced(partition, time.time())
        if order is not None:
            self._place([order])

    def _lost(self, topic: str, reason: str) -> None:
        mailbox = self._mailboxes.get(topic)
        if mailbox is None:
            return
        if mailbox.address is not None:
            self._say("lost", "reply topic %s: %s", topic, reason)
        mailbox.lose("")
        self._refresh()
        self._watch.look_again(doubtful=True)

    def _suspect(self) -> None:
        """All connections of a client broke: brokers are down, or the connections were idle."""
        if self.link is Link.UP:
            self.link = Link.SUSPECT
            self._watch.look_again(doubtful=True)
            self._refresh()

    def _seen(self, look: Look) -> None:
        """The watch has looked."""
        self._looked_at = self._loop.time()
        if self.stopping:
            return
        self.producers.poll()
        self._supply.make()
        if look.reachable:
            self._seen_reachable(look)
        else:
            self._seen_unreachable(look)
        self.metrics.up.value = self.link is Link.UP
        self._refresh()

    def _seen_reachable(self, look: Look) -> None:
        self._silent_since = None
        if look.number == self._watch.number:
            if self.link is Link.DOWN:
                log.warning("kafka brokers answer again")
            self.link = Link.UP
        clock = time.time()
        orders = []
        for topic, info in look.topics.items():
            mailbox = self._mailboxes.get(topic)
            if topic in self.gates.topics:
                self.gates.topics[topic] = info
            elif mailbox is None:
                continue  # it was forgotten meanwhile
            for each in self._logs:
                if each.topic == topic:
                    each.seen(info)
            order = mailbox.seen(info, clock) if mailbox is not None else None
            if order is not None:
                orders.append(order)
            if info.problem:
                self._say(f"topic {topic}", "kafka: %s", info.problem)
            self._tell_missing(topic, info)
        if orders:
            self._place(orders)

    def _place(self, orders: list[Order]) -> None:
        """Have them followed. What is read again must not be taken for more values of what is under way."""
        if any(order.since is not None for order in orders):
            interrupt(self.pending.sinks())
        self._watch.place(orders)

    def _seen_unreachable(self, look: Look) -> None:
        self._reason = look.reason
        if self.link is Link.UP:
            now = self._loop.time()
            if self._silent_since is None:
                self._silent_since = now
            if now - self._silent_since >= _SILENCE_S:
                self.link = Link.SUSPECT
            self._watch.look_again()
            return
        if self.link is not Link.DOWN:
            self.link = Link.DOWN
            log.warning("kafka brokers do not answer: %s", look.reason)
        if not len(self.pending) and self.producers.under_way():
            # Nobody waits for any of these: they must not be executed when the brokers are back.
            self._supply.replace("requests", "all its records were given up")

    def _wanted(self) -> tuple[bool, bool]:
        """Whether producers of requests, and of events, are needed."""
        needed = self._started and not self.stopping
        return needed, needed and bool(self._publishers)

    def _made(self, failure: str) -> None:
        """A producer is there, or why it is not."""
        if failure:
            self._reason = f"the client cannot be made: {failure}"
            self._say("make", "kafka: %s", self._reason)
        self._refresh()

    def _refresh(self) -> None:
        self.gates.refresh()
        if self._settled.done() or self.link is Link.STARTING:
            return
        reading = all(box.address is not None or box.problem for box in self._mailboxes.values())
        if self.link is Link.DOWN or (reading and self.gates.settled):
            self._settled.set_result(None)

    def _join(self) -> None:
        self._watch.join()
        self._inbox.join()
        self._events.join()

    def _say(self, kind: str, text: str, *values: object) -> None:
        if self._limit.admit(kind) is not None:
            log.warning(text, *values)
