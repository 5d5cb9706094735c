"""Several real Kafka nodes that are one cluster, each broker and controller: for leadership that moves."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from confluent_kafka import TopicCollection
from confluent_kafka.admin import AdminClient
from tests.testbeds.kafka import RealKafka, new_cluster_id
from tests.testbeds.processes import free_port


class KafkaCluster:
    """Node numbers count from 1, as `nodes` does from 0."""

    def __init__(self, folder: Path, size: int = 3, overrides: Mapping[str, str] | None = None) -> None:
        """Format all, start all, wait until each of them answers; topics have as many replicas as there are nodes."""
        ports = [(free_port(), free_port()) for _ in range(size)]
        voters = ",".join(f"{number}@127.0.0.1:{controller}" for number, (_, controller) in enumerate(ports, 1))
        cluster = new_cluster_id()
        common = {
            "controller.quorum.voters": voters,
            "default.replication.factor": str(size),
            "min.insync.replicas": str(size // 2 + 1),
            # How soon a killed leader is replaced.
            "broker.session.timeout.ms": "2000",
            "replica.lag.time.max.ms": "4000",
            # A node that is back takes back what it led.
            "leader.imbalance.check.interval.seconds": "1",
            "leader.imbalance.per.broker.percentage": "0",
            **(overrides or {}),
        }

        def node(number: int) -> RealKafka:
            return RealKafka(
                {**common, "node.id": str(number)},
                log=folder / f"kafka-{number}.log",
                ports=ports[number - 1],
                heap="384m",
                start=False,
                cluster=cluster,
            )

        with ThreadPoolExecutor(size) as pool:
            self.nodes = list(pool.map(node, range(1, size + 1)))
        self.bootstrap = ",".join(each.bootstrap for each in self.nodes)
        try:
            for each in self.nodes:
                each.launch()
            for each in self.nodes:
                each.wait_answering()
        except BaseException:
            self.discard()
            raise

    def leader(self, topic: str, partition: int = 0) -> RealKafka:
        """The node that leads it now."""
        admin = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})
        described = admin.describe_topics(TopicCollection([topic]), request_timeout=10)[topic].result()
        number: int = described.partitions[partition].leader.id
        return self.nodes[number - 1]

    def discard(self) -> None:
        """Kill them all and remove their data."""
        for each in self.nodes:
            each.discard()
