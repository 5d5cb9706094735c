"""Topics made before they are needed, and checked to be there for every client."""

from collections.abc import Mapping

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic


def create_topics(bootstrap: str, partitions: Mapping[str, int], timeout_s: float = 30.0) -> None:
    """Create each topic with so many partitions; one that exists already stays as it is."""
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    wanted = [NewTopic(name, num_partitions=count, replication_factor=1) for name, count in partitions.items()]
    for done in admin.create_topics(wanted, operation_timeout=timeout_s, request_timeout=timeout_s).values():
        try:
            done.result()
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise
