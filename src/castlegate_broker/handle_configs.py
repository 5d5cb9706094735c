"""Requests about settings: of topics, which can be changed; of the broker, which are told only."""

from collections.abc import Mapping

from castlegate_broker.apis_admin import ALTER_CONFIGS, DESCRIBE_CONFIGS, INCREMENTAL_ALTER_CONFIGS
from castlegate_broker.codec import Message
from castlegate_broker.configs import TOPIC_CONFIGS, check_configs, default_value
from castlegate_broker.errors import Code, Refused
from castlegate_broker.request import Answer, Handler, Request
from castlegate_broker.schema import Api
from castlegate_broker.settings import Settings
from castlegate_broker.topics import Topic, Topics

_TOPIC = 2
_BROKER = 4
_SET_BY_TOPIC = 1
_SET_AT_START = 4
_DEFAULT = 5
_STRING = 2
_SET, _DELETE = 0, 1


class ConfigHandlers:
    """Handlers of settings."""

    def __init__(self, topics: Topics, settings: Settings) -> None:
        self._topics = topics
        self._settings = settings

    def table(self) -> Mapping[Api, Handler]:
        """Which API is handled by what."""
        return {
            DESCRIBE_CONFIGS: self.describe,
            ALTER_CONFIGS: self.alter,
            INCREMENTAL_ALTER_CONFIGS: self.alter,
        }

    def describe(self, request: Request) -> Answer:
        """Tell settings with their values in force."""
        results = []
        for resource in request.body["resources"]:
            result = {"type": resource["type"], "name": resource["name"]}
            try:
                configs = self._configs(resource)
            except Refused as refused:
                result |= {"error_code": refused.code, "error_message": str(refused)}
            else:
                wanted = resource["keys"]
                result["configs"] = [one for one in configs if wanted is None or one["name"] in wanted]
            results.append(result)
        return {"results": results}

    def _configs(self, resource: Message) -> list[Message]:
        if resource["type"] == _TOPIC:
            topic = self._topic(resource["name"])
            return [self._topic_config(topic, name) for name in TOPIC_CONFIGS]
        if resource["type"] == _BROKER:
            told = {
                "auto.create.topics.enable": str(self._settings.auto_create_topics).lower(),
                "default.replication.factor": "1",
                "log.retention.bytes": str(self._settings.retention_bytes),
                "message.max.bytes": str(self._settings.max_message_bytes),
                "num.partitions": str(self._settings.default_partitions),
            }
            return [
                {
                    "name": name,
                    "value": value,
                    "read_only": True,
                    "config_source": _SET_AT_START,
                    "config_type": _STRING,
                }
                for name, value in told.items()
            ]
        raise Refused(Code.INVALID_REQUEST, "only topics and brokers have settings here")

    def _topic_config(self, topic: Topic, name: str) -> Message:
        return {
            "name": name,
            "value": topic.configs.get(name, default_value(name, self._settings)),
            "config_source": _SET_BY_TOPIC if name in topic.configs else _DEFAULT,
            "config_type": TOPIC_CONFIGS[name][0],
        }

    def alter(self, request: Request) -> Answer:
        """Change settings of topics: replace them all, or (KIP-339) one by one."""
        body = request.body
        responses = []
        for resource in body["resources"]:
            code, message = Code.NONE, None
            try:
                self._alter(resource, check_only=body["validate_only"])
            except Refused as refused:
                code, message = refused.code, str(refused)
            responses.append(
                {
                    "error_code": code,
                    "error_message": message,
                    "type": resource["type"],
                    "name": resource["name"],
                }
            )
        return {"responses": responses}

    def _alter(self, resource: Message, *, check_only: bool) -> None:
        if resource["type"] != _TOPIC:
            raise Refused(Code.INVALID_REQUEST, "only settings of topics can be changed")
        topic = self._topic(resource["name"])
        incremental = any("operation" in one for one in resource["configs"])
        configs = dict(topic.configs) if incremental else {}
        for one in resource["configs"]:
            operation = one.get("operation", _SET)
            if operation == _DELETE:
                configs.pop(one["name"], None)
            elif operation == _SET and one["value"] is not None:
                configs[one["name"]] = one["value"]
            else:
                raise Refused(Code.INVALID_REQUEST, f"{one['name']} can only be set or deleted")
        check_configs(configs)
        if not check_only:
            self._topics.configure(topic, configs)

    def _topic(self, name: str) -> Topic:
        topic = self._topics.find(name)
        if topic is None:
            raise Refused(Code.UNKNOWN_TOPIC_OR_PARTITION, f"no topic '{name}'")
        return topic
