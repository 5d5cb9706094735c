"""Keeps looking whether brokers answer and which topics there are, in a thread of its own.

Looks are seconds apart while all is well, at once when somebody suspects that something is not, and again and again
while no broker answers. A full look describes every topic; in between a look is a glance at one of them in turn, and
describes what is missing or has changed. (Each description that succeeds costs 96 bytes for good in confluent-kafka
2.16, each glance that fails 1 KB: hence few of either.) The controller, whom a description needs, may be away while
others serve: whether brokers answer at all, a glance decides.

The thread also does the engine's slow chores, such as making producers. It shares nothing with the loop but what
stands under `Watch`'s second comment; each look is told through `tell`.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import NamedTuple

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from castlegate.telemetry.stumbles import Stumbles
from castlegate.upstreams.kafka.client import Clients, log
from castlegate.upstreams.kafka.settings import Kafka
from castlegate.upstreams.kafka.topics import Order, Owned, Presence, Refused, TopicInfo, Topics, Unreachable

_WELL_S = 5.0  # between looks while all is well
_MISSING_S = 2.0  # while a topic is missing
_DOWN_S = 0.2  # while no broker answers: after a look that took up to its timeout
_FULL_S = 300.0  # between full looks
_GLANCE_DOWN_S = 10.0  # between glances while no broker answers
_TIMEOUT_S = 2.0
_TIMEOUT_DOWN_S = 1.0


class Look(NamedTuple):
    """What was seen."""

    number: int  # of the suspicion it answers: an older look says nothing about a newer one
    reachable: bool
    reason: str  # why no broker is reachable, for the operator
    topics: Mapping[str, TopicInfo]


class Watch:
    """The thread."""

    def __init__(
        self,
        settings: Kafka,
        clients: Clients,
        *,
        tell: Callable[[Look], None],
        placed: Callable[[list[Order]], None],
        unplaced: Callable[[str, str], None],
    ) -> None:
        self._settings = settings
        self._clients = clients
        # All safe to call from the thread.
        self._tell = tell
        self._placed = placed
        self._unplaced = unplaced  # topic, reason
        # Shared with the loop: replaced as a whole by it, or made for threads.
        self.wanted: frozenset[str] = frozenset()
        self.owned: Mapping[str, Owned] = {}
        self.reads: frozenset[str] = frozenset()
        self.number = 0
        self._chores: deque[Callable[[], None]] = deque()
        self._wake = threading.Event()
        self._stopping = False
        # The thread's own.
        self._through: tuple[AdminClient, Topics] | None = None
        self._known: dict[str, TopicInfo] = {}  # as last described; emptied where that may no longer hold
        self._known_for = -1  # the number of the suspicion that it was described for
        self._described_at = 0.0
        self._glanced_at = 0.0
        self._turn = 0  # of the topic to glance at
        self._failed_before = True  # until a look succeeds
        self._last_error = ""
        self._stumbles = Stumbles(log, "watching Kafka")
        self._thread = threading.Thread(target=self._run, name="castlegate-kafka-watch", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def look_again(self, *, doubtful: bool = False) -> None:
        """Look at once; `doubtful`: nothing that was known of topics may hold any more."""
        if doubtful:
            self.number += 1
        self._wake.set()

    def do(self, chore: Callable[[], None]) -> None:
        """Have something slow done before the next look."""
        self._chores.append(chore)
        self._wake.set()

    def renew(self) -> None:
        """Look through another client: one asks for all topics that it was ever asked about."""
        self.do(self._drop_client)

    def place(self, orders: list[Order]) -> None:
        """Find out where to begin to read."""
        self.do(lambda: self._place(orders))

    def stop(self) -> None:
        """Do what chores there are and end."""
        self._stopping = True
        self._wake.set()

    def join(self) -> None:
        """Wait for the end of the thread."""
        self._thread.join()

    def _run(self) -> None:
        while True:
            while self._chores:
                chore = self._chores.popleft()
                try:
                    chore()
                except Exception as error:  # noqa: BLE001 - logged
                    self._stumbles.tell(error)
            if self._stopping:
                self._drop_client()
                return
            try:
                pause = self._take_turn()
            except Exception as error:  # noqa: BLE001 - logged
                self._stumbles.tell(error)
                pause = _MISSING_S
            self._wake.wait(pause)
            self._wake.clear()

    def _take_turn(self) -> float:
        """Look and tell; returns the seconds until the next look."""
        try:
            admin, topics = self._client()
        except KafkaException as failure:
            self._tell(Look(self.number, False, f"the client cannot be made: {failure.args[0].str()}", {}))
            return _WELL_S
        look = self._look(topics)
        admin.poll(0)  # serves its log and errors, which say more than that time ran out
        if not look.reachable and self._last_error:
            look = look._replace(reason=self._last_error)
        self._tell(look)
        return self._pause(look)

    def _client(self) -> tuple[AdminClient, Topics]:
        """What is looked through. Raises `KafkaException`."""
        if self._through is None:
            admin = AdminClient(self._clients.admin(self._note_error))
            self._through = admin, Topics(admin, self._settings)
        return self._through

    def _drop_client(self) -> None:
        self._through = None

    def _look(self, topics: Topics) -> Look:
        number = self.number
        names = sorted({*self.wanted, *self.owned})
        if number != self._known_for or time.monotonic() - self._described_at > _FULL_S:
            self._known.clear()
        self._known = {name: info for name, info in self._known.items() if name in names}
        timeout = _TIMEOUT_DOWN_S if self._failed_before else _TIMEOUT_S
        uncertain = [name for name in names if not self._is_present(name)]
        if names and not uncertain:
            uncertain = self._glance(topics, names, timeout)
        try:
            found = topics.look(uncertain, self.owned, self.reads, timeout) if uncertain or not names else {}
            failure = ""
        except (Unreachable, Refused) as unreachable:
            found = {}
            failure = str(unreachable)
        # Not in the handler above: what fails in there keeps the exception, and so the client (confluent-kafka 2.16).
        if failure and not self._answered(topics, names):
            self._failed_before = True
            self._known.clear()
            return Look(number, False, self._last_error or failure, {})
        if len(found) == len(names):
            self._described_at = time.monotonic()
            self._known_for = number
        self._known.update(found)
        self._failed_before = False
        self._last_error = ""
        return Look(number, True, "", found)

    def _glance(self, topics: Topics, names: list[str], timeout: float) -> list[str]:
        """Look at one topic; it is uncertain if it has changed, and all of them are if nobody answers."""
        self._turn = (self._turn + 1) % len(names)
        name = names[self._turn]
        partitions = topics.glance(name, timeout)
        if partitions is None:
            return names
        return [] if partitions == self._known[name].partitions else [name]

    def _answered(self, topics: Topics, names: list[str]) -> bool:
        """Whether some broker answers, although the controller does not."""
        now = time.monotonic()
        if not names or (self._failed_before and now - self._glanced_at < _GLANCE_DOWN_S):
            return False
        self._glanced_at = now
        return topics.glance(names[0], _TIMEOUT_DOWN_S) is not None

    def _is_present(self, name: str) -> bool:
        info = self._known.get(name)
        return info is not None and info.presence is Presence.PRESENT

    def _pause(self, look: Look) -> float:
        if not look.reachable:
            return _DOWN_S
        present = all(info.presence is Presence.PRESENT for info in self._known.values())
        return _WELL_S if present and self._known_for == look.number else _MISSING_S

    def _place(self, orders: list[Order]) -> None:
        placed = []
        for order in orders:
            try:
                placed.append(self._client()[1].place(order, _TIMEOUT_S))
            except (Unreachable, Refused) as failure:
                self._unplaced(order.topic, str(failure))
            except Exception as error:  # noqa: BLE001 - logged
                self._stumbles.tell(error)
                self._unplaced(order.topic, "its place could not be found")
        if placed:
            self._placed(placed)

    def _note_error(self, error: KafkaError) -> None:
        if error.code() != KafkaError._ALL_BROKERS_DOWN:
            self._last_error = error.str()
