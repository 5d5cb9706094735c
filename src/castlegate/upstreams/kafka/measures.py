"""What the engine counts, bound at load: the hot path only adds to numbers."""

from __future__ import annotations

from castlegate.telemetry.metrics import Counter, Family, Registry
from castlegate.upstreams.kafka.pending import KINDS, Pending


class Metrics:
    """Bound at load."""

    def __init__(self, registry: Registry, pending: Pending) -> None:
        self.requests: Family[Counter] = registry.counter(
            "castlegate_kafka_requests_total", "Requests handed to the producer.", "topic"
        )
        self.acknowledged: Counter = registry.counter(
            "castlegate_kafka_acknowledged_total", "Requests that the brokers have acknowledged."
        ).child()
        replies = registry.counter(
            "castlegate_kafka_replies_total",
            "Records on reply topics: ok, malformed, late (given up), duplicate, unknown, foreign (another worker's).",
            "kind",
        )
        self.replies = {kind: replies.child(kind) for kind in KINDS}
        self.foreign = replies.child("foreign")
        self.failures: Family[Counter] = registry.counter(
            "castlegate_kafka_produce_failures_total", "Requests that could not be produced or delivered.", "error"
        )
        self.events: Family[Counter] = registry.counter(
            "castlegate_kafka_events_total", "Events by outcome: stored or failed.", "topic", "outcome"
        )
        self.streams: Family[Counter] = registry.counter(
            "castlegate_kafka_streams_total",
            "Streams of replies by how they ended: complete, or why they were cut.",
            "end",
        )
        self.seconds = registry.histogram(
            "castlegate_kafka_call_seconds", "From producing a request to its reply, or its first value.", "topic"
        )
        self.returned = registry.histogram(
            "castlegate_kafka_return_seconds",
            "The brokers' part on the way back: from a reply's own time stamp to its arrival, by the clocks of both.",
        ).child()
        self.missing = registry.gauge(
            "castlegate_kafka_topic_missing", "Workers that need a topic which cannot be used.", "topic"
        )
        self.lag = registry.gauge("castlegate_kafka_reply_lag", "Replies in the brokers' logs not read yet.").child()
        self.up = registry.gauge("castlegate_kafka_up", "Workers whose brokers answer.").child()
        self._pending = registry.gauge("castlegate_kafka_pending", "Requests that wait for replies.")
        self.watch(pending)

    def watch(self, pending: Pending) -> None:
        """Have the gauge tell of this table from now on."""
        self._pending.watch(pending.__len__)
