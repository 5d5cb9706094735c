"""What can be set, with the bounds that keep the broker's memory finite."""

from dataclasses import dataclass

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of a broker; each has a default that suits development."""

    host: str = "127.0.0.1"
    port: int = 9092
    advertise: tuple[str, int] | None = None
    """Address that clients are told; by default the one that they connected to."""

    default_partitions: int = 1
    auto_create_topics: bool = True

    retention_bytes: int = 64 * MIB
    """Of one partition; its oldest batches are given up beyond it."""
    total_bytes: int = 512 * MIB
    """Of all partitions together; the largest one gives up its oldest batches beyond it."""
    max_message_bytes: int = MIB + 12
    """Of one record batch; Kafka's own default."""

    max_request_bytes: int = 32 * MIB
    max_response_bytes: int = 32 * MIB
    """Of one fetch, whatever the client would take."""
    max_connections: int = 1_000
    max_topics: int = 10_000
    max_partitions: int = 20_000
    """Of all topics together."""
    max_producers: int = 200
    """Idempotent producers remembered per partition."""
    max_groups: int = 5_000
    """Beyond it the oldest one without members is forgotten, with its offsets."""
    max_group_members: int = 500

    initial_rebalance_delay_s: float = 0.0
    """How long the first member of a group waits for others."""
    min_session_timeout_s: float = 0.1
    max_session_timeout_s: float = 1_800.0
