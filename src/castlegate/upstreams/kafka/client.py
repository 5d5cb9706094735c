"""Settings of the librdkafka clients of one engine, and where their log goes.

What operators give goes over our defaults and under what the gateway's promises hang on (see `refusals`).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from confluent_kafka import KafkaError

    from castlegate.upstreams.kafka.settings import Kafka

log = logging.getLogger("castlegate.kafka")

ClientConfig = dict[str, Any]
OnError = Callable[["KafkaError"], None]

_LOG_EVERY = 10.0  # seconds between two lines of a kind: a broker that is down is tried many times a second

# Whatever the default of librdkafka: what operators may override.
_COMMON: ClientConfig = {
    "reconnect.backoff.ms": 50,
    "reconnect.backoff.max.ms": 1000,  # back within seconds of the brokers; the default of 10 s is not
    "socket.keepalive.enable": True,
    "socket.nagle.disable": True,
    "log.connection.close": False,  # idle connections are closed by brokers all the time
    # A topic that is not there yet is asked for again this long; the default of 30 s outlives every request.
    "topic.metadata.propagation.max.ms": 2000,
}
_PRODUCING: ClientConfig = {
    "queue.buffering.max.kbytes": 256 * 1024,
    # A batch over a topic's max.message.bytes fails as a whole, so that small records would be called too large.
    "batch.size": 128 * 1024,
}
_CONSUMING: ClientConfig = {
    # A partition that is assigned while a fetch is under way joins the next one, so it waits this long at most.
    "fetch.wait.max.ms": 100,
    "fetch.error.backoff.ms": 100,
    "fetch.queue.backoff.ms": 50,
    "queued.max.messages.kbytes": 16 * 1024,
    "queued.min.messages": 10_000,
}


def _ignore(_error: KafkaError) -> None:
    """For clients that never connect."""


class Clients:
    """Makes the settings of each client that an engine needs."""

    def __init__(
        self,
        settings: Kafka,
        *,
        client_id: str,
        longest_timeout: float,
        on_partitions: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_partitions` is called, in any thread, when a topic in use was seen to have grown or gone."""
        self._settings = settings
        self._on_partitions = on_partitions
        self._client_id = client_id
        self._longest_timeout = longest_timeout

    def offline(self) -> dict[str, ClientConfig]:
        """Of a client of each kind that knows no broker, for a look at whether librdkafka takes the settings."""
        kinds = {
            "producer": self.producer("requests", 0.0, _ignore),
            "consumer": self.consumer(_ignore),
            "admin": self.admin(_ignore),
        }
        return {kind: {k: v for k, v in config.items() if k != "bootstrap.servers"} for kind, config in kinds.items()}

    def admin(self, on_error: OnError) -> ClientConfig:
        """Of the client that watches brokers and topics."""
        return self._with({}, {"client.id": f"{self._client_id}-watch", "error_cb": on_error})

    def producer(self, name: str, linger_ms: float, on_error: OnError) -> ClientConfig:
        """Of an idempotent producer; `name` tells it from its siblings in the brokers' logs."""
        return self._with(
            {
                **_PRODUCING,
                # Without a key records are spread; sticking to a partition for 10 ms would queue up a whole burst at
                # one consumer of the service. A batch that forms anyway may stay together.
                "sticky.partitioning.linger.ms": round(linger_ms * 2),
            },
            {
                "client.id": f"{self._client_id}-{name}",
                "error_cb": on_error,
                "enable.idempotence": True,
                "acks": "all",
                "linger.ms": linger_ms,
                "message.timeout.ms": max(1000, round(self._longest_timeout * 1000)),
                "message.max.bytes": max(1000, self._settings.max_record),
                "queue.buffering.max.messages": self._settings.max_queued,
                "partitioner": "murmur2_random",
            },
        )

    def consumer(self, on_error: OnError) -> ClientConfig:
        """Of the inbox: no group is ever joined, the name is only required."""
        return self._with(
            _CONSUMING,
            {
                "client.id": f"{self._client_id}-inbox",
                "group.id": self._client_id,
                "error_cb": on_error,
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "auto.offset.reset": "error",
            },
        )

    def follower(self, on_error: OnError) -> ClientConfig:
        """Of a reader that is to know when it has read all."""
        return {
            **self.consumer(on_error), "client.id": f"{self._client_id}-table", "enable.partition.eof": True
        }  # fmt: skip

    def _with(self, defaults: ClientConfig, ours: ClientConfig) -> ClientConfig:
        return {
            **_COMMON,
            **defaults,
            **self._settings.librdkafka,
            **ours,
            "bootstrap.servers": self._settings.bootstrap,
            "allow.auto.create.topics": False,
            "logger": ClientLog(self._on_partitions),
        }


class RateLimit:
    """At most one line of a kind in a while; says how many were left out. Any thread may ask."""

    def __init__(self, every: float = _LOG_EVERY) -> None:
        self._every = every
        self._lock = threading.Lock()
        self._seen: dict[str, tuple[float, int]] = {}  # kind → when last written, how many left out since

    def admit(self, kind: str) -> int | None:
        """The number of lines left out before this one; None if it is left out itself."""
        now = time.monotonic()
        with self._lock:
            written, left_out = self._seen.get(kind, (-self._every, 0))
            if now - written < self._every:
                self._seen[kind] = (written, left_out + 1)
                return None
            self._seen[kind] = (now, 0)
            return left_out


class ClientLog:
    """Takes librdkafka's log lines (called by whoever polls the client) and writes few of them."""

    def __init__(self, on_partitions: Callable[[], None]) -> None:
        self._limit = RateLimit()
        self._on_partitions = on_partitions

    def log(self, level: int, template: str, facility: str, client: str, text: str) -> None:
        """One line."""
        if facility == "CONFWARN" and "will be ignored by this" in text:
            return  # operators' settings go to producers and consumers alike
        if facility == "PARTCNT":
            # A consumer that is assigned by hand is told of a deleted topic in no other way (librdkafka 2.12).
            self._on_partitions()
        left_out = self._limit.admit(facility)
        if left_out is not None:
            more = f" ({left_out} more like it)" if left_out else ""
            log.log(min(level, logging.WARNING), template + "%s", facility, client, text, more)
