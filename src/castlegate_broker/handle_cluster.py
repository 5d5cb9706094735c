"""Requests about the cluster: metadata of topics, created on the way if asked for, and this one broker."""

from collections.abc import Mapping

from castlegate_broker.advertise import NODE_ID, Advertised
from castlegate_broker.apis_admin import DESCRIBE_CLUSTER
from castlegate_broker.apis_data import METADATA
from castlegate_broker.batch import LEADER_EPOCH
from castlegate_broker.codec import Message
from castlegate_broker.errors import Code, Refused
from castlegate_broker.request import Answer, Handler, Request
from castlegate_broker.schema import Api
from castlegate_broker.settings import Settings
from castlegate_broker.topics import Topic, Topics

_NO_ID = bytes(16)


class ClusterHandlers:
    """Handlers that describe the cluster."""

    def __init__(self, topics: Topics, settings: Settings, advertised: Advertised, cluster_id: str) -> None:
        self._topics = topics
        self._settings = settings
        self._advertised = advertised
        self._cluster_id = cluster_id

    def table(self) -> Mapping[Api, Handler]:
        """Which API is handled by what."""
        return {METADATA: self.metadata, DESCRIBE_CLUSTER: self.describe_cluster}

    def metadata(self, request: Request) -> Answer:
        """Where topics are: all here. Topics asked for by name are created, if both sides allow it."""
        body = request.body
        wanted = body["topics"]
        if wanted is None or (not wanted and request.version == 0):
            topics = [_described(topic) for topic in self._topics]
        else:
            topics = [self._find(one, create=body["allow_auto_topic_creation"]) for one in wanted]
        host, port = self._advertised.to(request.peer)
        return {
            "brokers": [{"node_id": NODE_ID, "host": host, "port": port}],
            "cluster_id": self._cluster_id,
            "controller_id": NODE_ID,
            "topics": topics,
        }

    def _find(self, wanted: Message, *, create: bool) -> Message:
        name, topic_id = wanted["name"], wanted["topic_id"]
        if name is None:
            topic = self._topics.find_id(topic_id)
            return _described(topic) if topic else _missing(None, topic_id, Code.UNKNOWN_TOPIC_ID)
        topic = self._topics.find(name)
        if topic is not None:
            return _described(topic)
        try:
            if create and self._settings.auto_create_topics:
                return _described(self._topics.create(name, self._settings.default_partitions, {}))
            self._topics.check_new(name, 1, {})
        except Refused as refused:
            return _missing(name, _NO_ID, refused.code)
        return _missing(name, _NO_ID, Code.UNKNOWN_TOPIC_OR_PARTITION)

    def describe_cluster(self, request: Request) -> Answer:
        """This one broker (KIP-700)."""
        host, port = self._advertised.to(request.peer)
        return {
            "cluster_id": self._cluster_id,
            "controller_id": NODE_ID,
            "brokers": [{"broker_id": NODE_ID, "host": host, "port": port}],
        }


def _described(topic: Topic) -> Message:
    partitions = [
        {
            "partition_index": index,
            "leader_id": NODE_ID,
            "leader_epoch": LEADER_EPOCH,
            "replica_nodes": [NODE_ID],
            "isr_nodes": [NODE_ID],
        }
        for index in range(len(topic.partitions))
    ]
    return {"error_code": Code.NONE, "name": topic.name, "topic_id": topic.id, "partitions": partitions}


def _missing(name: str | None, topic_id: bytes, code: Code) -> Message:
    return {"error_code": code, "name": name, "topic_id": topic_id, "partitions": []}
