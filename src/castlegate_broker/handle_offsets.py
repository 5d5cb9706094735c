"""Requests for the committed offsets of groups, and those that list, describe and delete groups."""

from collections.abc import Iterable, Mapping

from castlegate_broker.apis_groups import (
    DELETE_GROUPS,
    DESCRIBE_GROUPS,
    LIST_GROUPS,
    OFFSET_COMMIT,
    OFFSET_DELETE,
    OFFSET_FETCH,
)
from castlegate_broker.codec import Message
from castlegate_broker.coordinator import Coordinated, Coordinator
from castlegate_broker.errors import Code, Refused
from castlegate_broker.groups import State
from castlegate_broker.offsets import Committed, Offsets
from castlegate_broker.request import Answer, Handler, Request
from castlegate_broker.schema import Api
from castlegate_broker.topics import Topics

_FIRST_WITH_SEVERAL_GROUPS = 8


class OffsetHandlers:
    """Handlers of committed offsets and of the administration of groups."""

    def __init__(self, coordinator: Coordinator, topics: Topics) -> None:
        self._coordinator = coordinator
        self._topics = topics

    def table(self) -> Mapping[Api, Handler]:
        """Which API is handled by what."""
        return {
            OFFSET_COMMIT: self.commit,
            OFFSET_FETCH: self.fetch,
            OFFSET_DELETE: self.delete_offsets,
            DESCRIBE_GROUPS: self.describe,
            LIST_GROUPS: self.list_groups,
            DELETE_GROUPS: self.delete_groups,
        }

    def commit(self, request: Request) -> Answer:
        """Keep offsets, if the one who commits is a member of this generation, or the group has no members."""
        body = request.body
        try:
            with self._coordinator.at_work(body["group_id"]) as (entry, now):
                entry.group.check_commit(body["member_id"], body["group_instance_id"], body["generation_id"], now)
                return {"topics": [self._commit_topic(entry.offsets, topic) for topic in body["topics"]]}
        except Refused as refused:
            return {"topics": [_refused_topic(topic, refused.code) for topic in body["topics"]]}

    def _commit_topic(self, offsets: Offsets, topic: Message) -> Message:
        partitions = []
        for wanted in topic["partitions"]:
            code = Code.NONE
            try:
                self._topics.partition(topic["name"], wanted["index"])
                committed = Committed(wanted["offset"], wanted["leader_epoch"], wanted["metadata"] or "")
                offsets.commit(topic["name"], wanted["index"], committed)
            except Refused as refused:
                code = refused.code
            partitions.append({"index": wanted["index"], "error_code": code})
        return {"name": topic["name"], "partitions": partitions}

    def fetch(self, request: Request) -> Answer:
        """Tell where groups go on."""
        body = request.body
        if request.version < _FIRST_WITH_SEVERAL_GROUPS:
            return {"topics": self._committed(body["group_id"], body["topics"])}
        groups = [
            {"group_id": group["group_id"], "topics": self._committed(group["group_id"], group["topics"])}
            for group in body["groups"]
        ]
        return {"groups": groups}

    def _committed(self, group_id: str, topics: list[Message] | None) -> list[Message]:
        entry = self._coordinator.find(group_id)
        offsets = entry.offsets if entry else Offsets()
        wanted: Iterable[tuple[str, Iterable[int]]]
        wanted = offsets if topics is None else ((topic["name"], topic["partitions"]) for topic in topics)
        return [
            {"name": name, "partitions": [_committed_partition(offsets, name, index) for index in indexes]}
            for name, indexes in wanted
        ]

    def delete_offsets(self, request: Request) -> Answer:
        """Forget offsets of a group that has no members."""
        body = request.body
        entry = self._coordinator.find(body["group_id"])
        if entry is None:
            return {"error_code": Code.GROUP_ID_NOT_FOUND}
        if not entry.group.idle:
            return {"error_code": Code.NON_EMPTY_GROUP}
        with self._coordinator.at_work(body["group_id"]):
            for topic in body["topics"]:
                for partition in topic["partitions"]:
                    entry.offsets.forget(topic["name"], partition["index"])
        return {"topics": [_refused_topic(topic, Code.NONE) for topic in body["topics"]]}

    def describe(self, request: Request) -> Answer:
        """Tell state and members of groups."""
        return {"groups": [_description(name, self._coordinator.find(name)) for name in request.body["groups"]]}

    def list_groups(self, request: Request) -> Answer:
        """Tell which groups there are."""
        states = {state.lower() for state in request.body["states_filter"]}
        types = {kind.lower() for kind in request.body["types_filter"]}
        groups = [
            {"group_id": name, "protocol_type": entry.group.protocol_type, "state": entry.group.state.value}
            for name, entry in self._coordinator
            if not states or entry.group.state.value.lower() in states
        ]
        return {"groups": groups if not types or "classic" in types else []}

    def delete_groups(self, request: Request) -> Answer:
        """Forget groups without members."""
        results = []
        for name in request.body["groups"]:
            code = Code.NONE
            try:
                self._coordinator.delete(name)
            except Refused as refused:
                code = refused.code
            results.append({"group_id": name, "error_code": code})
        return {"results": results}


def _refused_topic(topic: Message, code: Code) -> Message:
    """The same answer for each partition."""
    partitions = [{"index": wanted["index"], "error_code": code} for wanted in topic["partitions"]]
    return {"name": topic["name"], "partitions": partitions}


def _committed_partition(offsets: Offsets, name: str, index: int) -> Message:
    committed = offsets.find(name, index)
    return {
        "index": index,
        "offset": committed.offset,
        "leader_epoch": committed.leader_epoch,
        "metadata": committed.metadata,
    }


def _description(name: str, entry: Coordinated | None) -> Message:
    if entry is None:
        return {"group_id": name, "state": "Dead", "protocol_type": "", "protocol_name": "", "members": []}
    group = entry.group
    stable = group.state is State.STABLE
    members = [
        {
            "member_id": member.id,
            "group_instance_id": member.instance_id,
            "client_id": member.client_id,
            "client_host": f"/{member.client_host}",
            "metadata": member.protocols.get(group.protocol, b"") if stable else b"",
            "assignment": member.assignment if stable else b"",
        }
        for member in group.members.values()
    ]
    return {
        "group_id": name,
        "state": group.state.value,
        "protocol_type": group.protocol_type,
        "protocol_name": group.protocol if stable else "",
        "members": members,
    }
