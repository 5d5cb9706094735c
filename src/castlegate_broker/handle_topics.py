"""Requests that administer topics: create, grow, delete."""

from collections.abc import Callable, Mapping

from castlegate_broker.advertise import NODE_ID
from castlegate_broker.apis_admin import CREATE_PARTITIONS, CREATE_TOPICS, DELETE_TOPICS
from castlegate_broker.codec import Message
from castlegate_broker.coordinator import Coordinator
from castlegate_broker.errors import Code, Refused
from castlegate_broker.request import Answer, Handler, Request
from castlegate_broker.schema import Api
from castlegate_broker.settings import Settings
from castlegate_broker.topics import Topic, Topics

_NO_ID = bytes(16)
_FIRST_WITH_TOPIC_IDS = 6
_SET_BY_TOPIC = 1


class TopicHandlers:
    """Handlers that change which topics there are."""

    def __init__(self, topics: Topics, coordinator: Coordinator, settings: Settings) -> None:
        self._topics = topics
        self._coordinator = coordinator
        self._settings = settings

    def table(self) -> Mapping[Api, Handler]:
        """Which API is handled by what."""
        return {
            CREATE_TOPICS: self.create_topics,
            CREATE_PARTITIONS: self.create_partitions,
            DELETE_TOPICS: self.delete_topics,
        }

    def create_topics(self, request: Request) -> Answer:
        """Create topics, or only tell whether they could be."""
        body = request.body
        return {"topics": [self._create(wanted, check_only=body["validate_only"]) for wanted in body["topics"]]}

    def _create(self, wanted: Message, *, check_only: bool) -> Message:
        name = wanted["name"]
        result = {"name": name, "topic_id": _NO_ID, "error_code": Code.NONE, "error_message": None}
        try:
            count = self._partition_count(wanted)
            configs = {one["name"]: one["value"] for one in wanted["configs"] if one["value"] is not None}
            if check_only:
                self._topics.check_new(name, count, configs)
            else:
                result["topic_id"] = self._topics.create(name, count, configs).id
        except Refused as refused:
            return {**result, "error_code": refused.code, "error_message": str(refused)}
        described = [{"name": one, "value": value, "config_source": _SET_BY_TOPIC} for one, value in configs.items()]
        return {**result, "num_partitions": count, "replication_factor": 1, "configs": described}

    def _partition_count(self, wanted: Message) -> int:
        """What is asked for, checked against there being one broker (-1 is the broker's default, KIP-464)."""
        assignments = wanted["assignments"]
        if assignments:
            indexes = sorted(one["partition_index"] for one in assignments)
            if indexes != list(range(len(assignments))):
                raise Refused(Code.INVALID_REPLICA_ASSIGNMENT, "partitions are not 0, 1, 2 and so on")
            if any(one["broker_ids"] != [NODE_ID] for one in assignments):
                raise Refused(Code.INVALID_REPLICA_ASSIGNMENT, f"the only broker is {NODE_ID}")
            return len(assignments)
        if wanted["replication_factor"] not in (-1, 1):
            raise Refused(
                Code.INVALID_REPLICATION_FACTOR,
                f"Unable to replicate the partition {wanted['replication_factor']} time(s): there is one broker",
            )
        count: int = wanted["num_partitions"]
        return self._settings.default_partitions if count == -1 else count

    def create_partitions(self, request: Request) -> Answer:
        """Give topics more partitions."""
        body = request.body
        act: Callable[[str, int], object]
        act = self._topics.check_grow if body["validate_only"] else self._topics.grow
        results = []
        for wanted in body["topics"]:
            result = {"name": wanted["name"], "error_code": Code.NONE, "error_message": None}
            try:
                act(wanted["name"], wanted["count"])
            except Refused as refused:
                result |= {"error_code": refused.code, "error_message": str(refused)}
            results.append(result)
        return {"results": results}

    def delete_topics(self, request: Request) -> Answer:
        """Delete topics by name or id, with what groups have committed for them."""
        body = request.body
        wanted = body["topics"]
        if request.version < _FIRST_WITH_TOPIC_IDS:
            wanted = [{"name": name, "topic_id": _NO_ID} for name in body["names"]]
        return {"topics": [self._delete(one["name"], one["topic_id"]) for one in wanted]}

    def _delete(self, name: str | None, topic_id: bytes) -> Message:
        topic: Topic | None
        if name is not None:
            topic, missing = self._topics.find(name), Code.UNKNOWN_TOPIC_OR_PARTITION
        else:
            topic, missing = self._topics.find_id(topic_id), Code.UNKNOWN_TOPIC_ID
        if topic is None:
            return {"name": name, "topic_id": topic_id, "error_code": missing, "error_message": "no such topic"}
        self._topics.delete(topic)
        self._coordinator.forget_topic(topic.name)
        return {"name": topic.name, "topic_id": topic.id, "error_code": Code.NONE, "error_message": None}
