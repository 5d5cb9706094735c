"""Requests of group members: find the coordinator, join, sync, heartbeat, leave."""

import asyncio
from collections.abc import Mapping

from castlegate_broker.advertise import NODE_ID, Advertised
from castlegate_broker.apis_groups import FIND_COORDINATOR, HEARTBEAT, JOIN_GROUP, LEAVE_GROUP, SYNC_GROUP
from castlegate_broker.codec import Message
from castlegate_broker.coordinator import Coordinator
from castlegate_broker.errors import Code, Refused
from castlegate_broker.groups import Join, MemberIdRequired, Sync
from castlegate_broker.request import Answer, Handler, Request
from castlegate_broker.schema import Api
from castlegate_broker.settings import Settings

_KEY_IS_GROUP = 0


class GroupHandlers:
    """Handlers of the classic group protocol."""

    def __init__(self, coordinator: Coordinator, settings: Settings, advertised: Advertised) -> None:
        self._coordinator = coordinator
        self._settings = settings
        self._advertised = advertised

    def table(self) -> Mapping[Api, Handler]:
        """Which API is handled by what."""
        return {
            FIND_COORDINATOR: self.find_coordinator,
            JOIN_GROUP: self.join,
            SYNC_GROUP: self.sync,
            HEARTBEAT: self.heartbeat,
            LEAVE_GROUP: self.leave,
        }

    def find_coordinator(self, request: Request) -> Answer:
        """This broker coordinates every group, and no transaction."""
        body = request.body
        host, port = self._advertised.to(request.peer)
        found: Message = {"node_id": NODE_ID, "host": host, "port": port, "error_code": 0, "error_message": None}
        if body["key_type"] != _KEY_IS_GROUP:
            # Of all codes this is the one on which both librdkafka and Java give up at once.
            found = {
                "node_id": -1,
                "host": "",
                "port": -1,
                "error_code": Code.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
                "error_message": "the embedded broker coordinates groups only: it has no transactions",
            }
        return {**found, "coordinators": [{**found, "key": key} for key in body["keys"]]}

    def join(self, request: Request) -> Answer:
        """Take a member in; the answer waits until the generation is formed."""
        body = request.body
        session_s = body["session_timeout_ms"] / 1000
        rebalance_ms = body["rebalance_timeout_ms"]
        ask = Join(
            body["member_id"],
            body["group_instance_id"],
            request.client_id,
            request.peer.host,
            session_s,
            session_s if rebalance_ms < 0 else rebalance_ms / 1000,
            body["protocol_type"],
            {protocol["name"]: protocol["metadata"] for protocol in body["protocols"]},
            id_required=request.version >= 4,
        )
        future: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        try:
            if not self._settings.min_session_timeout_s <= session_s <= self._settings.max_session_timeout_s:
                raise Refused(Code.INVALID_SESSION_TIMEOUT)
            with self._coordinator.at_work(body["group_id"]) as (entry, now):
                entry.group.join(ask, future, now)
        except MemberIdRequired as required:
            return {"error_code": required.code, "member_id": required.member_id}
        except Refused as refused:
            return {"error_code": refused.code, "member_id": body["member_id"]}
        return future

    def sync(self, request: Request) -> Answer:
        """Hand out assignments; the answer waits for the leader's."""
        body = request.body
        ask = Sync(
            body["member_id"],
            body["group_instance_id"],
            body["generation_id"],
            body["protocol_type"],
            body["protocol_name"],
            {one["member_id"]: one["assignment"] for one in body["assignments"]},
        )
        future: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        try:
            with self._coordinator.at_work(body["group_id"]) as (entry, now):
                entry.group.sync(ask, future, now)
        except Refused as refused:
            return {"error_code": refused.code, "assignment": b""}
        return future

    def heartbeat(self, request: Request) -> Answer:
        """Note that a member lives."""
        body = request.body
        code = Code.NONE
        try:
            with self._coordinator.at_work(body["group_id"]) as (entry, now):
                entry.group.heartbeat(body["member_id"], body["group_instance_id"], body["generation_id"], now)
        except Refused as refused:
            code = refused.code
        return {"error_code": code}

    def leave(self, request: Request) -> Answer:
        """Let members go: one, or from version 3 on several."""
        body = request.body
        if request.version < 3:
            return {"error_code": self._leave(body["group_id"], body["member_id"], None)}
        members = [
            {
                "member_id": member["member_id"],
                "group_instance_id": member["group_instance_id"],
                "error_code": self._leave(body["group_id"], member["member_id"], member["group_instance_id"]),
            }
            for member in body["members"]
        ]
        return {"members": members}

    def _leave(self, group_id: str, member_id: str, instance_id: str | None) -> Code:
        try:
            with self._coordinator.at_work(group_id) as (entry, now):
                entry.group.leave(member_id, instance_id, now)
        except Refused as refused:
            return refused.code
        return Code.NONE
