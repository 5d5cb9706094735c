"""The Kafka engine: one per worker and cluster. Ties pending requests, inbox, producers and watch together.

Everything here runs in the loop; threads come in by `_tell` alone. What is known of the cluster (`link.Brokers`,
`places.Places`) changes here, by what the parts tell, and the gates are opened and closed accordingly.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
import zlib
from collections.abc import Callable

from confluent_kafka import KafkaError

from castlegate.errors import CallFailed, Kinds, Outcome
from castlegate.telemetry.metrics import Registry
from castlegate.upstreams.kafka.client import Clients, RateLimit, log
from castlegate.upstreams.kafka.events import ANY, Events, Publisher
from castlegate.upstreams.kafka.gate import Gates
from castlegate.upstreams.kafka.inbox import Counters, Inbox, Received
from castlegate.upstreams.kafka.inbox import Events as InboxEvents
from castlegate.upstreams.kafka.lag import GroupLag
from castlegate.upstreams.kafka.link import Brokers, Link
from castlegate.upstreams.kafka.log import PARTITION, Kind, Log
from castlegate.upstreams.kafka.measures import Metrics
from castlegate.upstreams.kafka.pending import TAG_DIGITS, UNKNOWN, Pending
from castlegate.upstreams.kafka.places import Places, Readiness
from castlegate.upstreams.kafka.producers import Producers
from castlegate.upstreams.kafka.settings import GroupSettings, Kafka, KafkaService
from castlegate.upstreams.kafka.streams import Flows, interrupt
from castlegate.upstreams.kafka.supply import Supply, Whom
from castlegate.upstreams.kafka.topics import Order
from castlegate.upstreams.kafka.upstream import KafkaUpstream
from castlegate.upstreams.kafka.watch import Look, Watch
from castlegate.wire.timer import Timer

_START_S = 0.5  # how long start() waits for brokers that may be there,
_SETUP_S = 3.0  # and for those that are, while topics are made
_LOOK_SOON_S = 0.5  # between looks that refusals and timeouts ask for
_DOUBT_S = 2.0  # between full looks that failed records and topics that change ask for
_DRAIN_STEP_S = 0.01
_FLUSH_S = 0.2  # at least, whatever is left of the grace
_REREAD_SLACK_S = 5.0  # for clocks of services that differ from ours


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
        # Mutable, changed in this file alone, in the loop.
        self.stopping = False
        self._brokers = Brokers()
        self.gates = Gates(self, timer)
        self.places = Places(
            settings,
            self.gates,
            self._watch,
            self._inbox,
            self.metrics.missing,
            # Two workers of an instance take neighbouring partitions; instances begin anywhere.
            pick=zlib.crc32(instance.encode()) + slot,
            reread=self._reread,
        )
        self._looked_at = 0.0
        self._doubted_at = 0.0
        self._doubting: asyncio.TimerHandle | None = None
        self._publishers: dict[tuple[str, int], Publisher] = {}
        self._limit = RateLimit()
        self._started = False
        self._settled: asyncio.Future[None] = loop.create_future()

    # What build, endpoints and server use.

    @property
    def link(self) -> Link:
        """Whether brokers answer."""
        return self._brokers.link

    @property
    def state(self) -> Readiness:
        """Whether requests can be answered, and if something is amiss, what."""
        if self.stopping:
            return Readiness(False, "stopping")
        if self.link is not Link.UP:
            return Readiness(False, f"brokers do not answer: {self._brokers.reason}")
        return self.places.readiness

    def use(self, topics: frozenset[str]) -> None:
        """Those of the configuration that is served."""
        self.places.use(topics)

    def keep(self, topics: frozenset[str]) -> None:
        """Forget what is known of others, which nothing uses any more, and read them no more. Clients that have seen
        them give way to others, which never ask for them.
        """
        self._publishers = {place: each for place, each in self._publishers.items() if place[0] in topics}
        if self.places.keep(topics):
            self._watch.renew()
            self._supply.renew()
        self._refresh()

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
                self.places.gate(topic, None),
                self.timer,
                max_record=self.settings.max_record,
                stored=self.metrics.events.child(topic, "stored"),
                failed=self.metrics.events.child(topic, "failed"),
                partition=partition,
            )
            self._supply.make()
            self.gates.refresh()
        return publisher

    def log(self, topic: str, kind: Kind) -> Log:
        """A topic that is read by every worker: the gateway's own, made where it is missing. A new reader each time."""
        gate = self.places.gate(topic, None)
        publisher = self.publisher(topic, PARTITION)
        made = Log(publisher, gate, self._clients, self.timer, self._tell, self._on_error("table"), kind)
        self.places.read_whole(made)
        return made

    def lag(self, service: str, group: GroupSettings) -> GroupLag:
        """A reader of the lag of a service's group: a new one each time."""
        return GroupLag(service, group, self._clients, self.timer.now)

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
        mailbox = self.places.mailboxes.get(order.topic)
        if mailbox is not None:
            mailbox.assigned(order)
            self._refresh()

    def _misplaced(self, topic: str, partition: int) -> None:
        mailbox = self.places.mailboxes.get(topic)
        order = None if mailbox is None else mailbox.misplaced(partition, time.time())
        if order is not None:
            self._place([order])

    def _lost(self, topic: str, reason: str) -> None:
        mailbox = self.places.mailboxes.get(topic)
        if mailbox is None:
            return
        if mailbox.address is not None:
            self._say("lost", "reply topic %s: %s", topic, reason)
        mailbox.lose("")
        self._refresh()
        self._watch.look_again(doubtful=True)

    def _suspect(self) -> None:
        """All connections of a client broke: brokers are down, or the connections were idle."""
        if self._brokers.broke():
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
        if self._brokers.answered(lately=look.number == self._watch.number):
            log.warning("kafka brokers answer again")
        for topic, info in look.topics.items():
            if info.problem and self.places.known(topic):
                self._say(f"topic {topic}", "kafka: %s", info.problem)
        orders = self.places.seen(look.topics, time.time())
        if orders:
            self._place(orders)

    def _place(self, orders: list[Order]) -> None:
        """Have them followed. What is read again must not be taken for more values of what is under way."""
        if any(order.since is not None for order in orders):
            interrupt(self.pending.sinks())
        self._watch.place(orders)

    def _seen_unreachable(self, look: Look) -> None:
        if self._brokers.silent(look.reason, self._loop.time()):
            log.warning("kafka brokers do not answer: %s", look.reason)
        if self.link is not Link.DOWN:
            self._watch.look_again()
            return
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
            self._brokers.unusable(f"the client cannot be made: {failure}")
            self._say("make", "kafka: %s", self._brokers.reason)
        self._refresh()

    def _refresh(self) -> None:
        self.gates.refresh()
        if self._settled.done() or self.link is Link.STARTING:
            return
        if self.link is Link.DOWN or self.places.settled:
            self._settled.set_result(None)

    def _join(self) -> None:
        self._watch.join()
        self._inbox.join()
        self._events.join()

    def _say(self, kind: str, text: str, *values: object) -> None:
        if self._limit.admit(kind) is not None:
            log.warning(text, *values)
