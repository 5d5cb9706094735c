"""All consumer groups: gives each its clock and its timer, delivers what it answers, forgets it when it is nothing.

The rules of a group are in `groups.py`; this is the asyncio side of them. A ticket is the future of a response.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

from castlegate_broker.codec import Message
from castlegate_broker.errors import Code, Refused
from castlegate_broker.groups import Group, Joined, State, Synced
from castlegate_broker.offsets import Offsets
from castlegate_broker.settings import Settings


class Coordinated:
    """A group, its committed offsets and its timer."""

    __slots__ = ("group", "offsets", "timer")

    def __init__(self, group: Group) -> None:
        self.group = group
        self.offsets = Offsets()
        self.timer: asyncio.TimerHandle | None = None


class Coordinator:
    """The groups of the broker by their id."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._groups: dict[str, Coordinated] = {}

    def __iter__(self) -> Iterator[tuple[str, Coordinated]]:
        return iter(self._groups.items())

    def find(self, group_id: str) -> Coordinated | None:
        """The group, if it has members or committed offsets."""
        return self._groups.get(group_id)

    @contextmanager
    def at_work(self, group_id: str) -> Iterator[tuple[Coordinated, float]]:
        """The group, made if need be, and the time; what it answers meanwhile is delivered at the end."""
        if not group_id:
            raise Refused(Code.INVALID_GROUP_ID)
        entry = self._groups.get(group_id) or self._new(group_id)
        try:
            yield entry, asyncio.get_running_loop().time()
        finally:
            self._after(group_id, entry)

    def delete(self, group_id: str) -> None:
        """Forget a group without members; raises `Refused`."""
        entry = self._groups.get(group_id)
        if entry is None:
            raise Refused(Code.GROUP_ID_NOT_FOUND)
        if not entry.group.idle:
            raise Refused(Code.NON_EMPTY_GROUP)
        del self._groups[group_id]

    def forget_topic(self, topic: str) -> None:
        """Drop what groups have committed for a topic that was deleted."""
        for group_id, entry in tuple(self._groups.items()):
            entry.offsets.forget_topic(topic)
            self._after(group_id, entry)

    def close(self) -> None:
        """Stop all timers."""
        for entry in self._groups.values():
            if entry.timer is not None:
                entry.timer.cancel()

    def _new(self, group_id: str) -> Coordinated:
        if len(self._groups) >= self._settings.max_groups:
            oldest = next((name for name, entry in self._groups.items() if entry.group.idle), None)
            if oldest is None:
                raise Refused(Code.COORDINATOR_NOT_AVAILABLE, "this broker holds no more groups")
            del self._groups[oldest]
        group = Group(self._settings.initial_rebalance_delay_s, self._settings.max_group_members)
        entry = self._groups[group_id] = Coordinated(group)
        return entry

    def _after(self, group_id: str, entry: Coordinated) -> None:
        group = entry.group
        for ticket, answer in group.outbox:
            future = cast("asyncio.Future[Message]", ticket)
            if not future.done():
                future.set_result(_message(answer))
        group.outbox.clear()
        nothing = group.idle and group.state is State.EMPTY and not entry.offsets
        if nothing and self._groups.get(group_id) is entry:
            del self._groups[group_id]
        self._arm(group_id, entry)

    def _arm(self, group_id: str, entry: Coordinated) -> None:
        """Have the timer ring no later than something is due; that it rings too early does no harm."""
        due = entry.group.next_deadline()
        if due is None or (entry.timer is not None and entry.timer.when() <= due):
            return
        if entry.timer is not None:
            entry.timer.cancel()
        entry.timer = asyncio.get_running_loop().call_at(due, self._ring, group_id, entry)

    def _ring(self, group_id: str, entry: Coordinated) -> None:
        entry.timer = None
        entry.group.expire(asyncio.get_running_loop().time())
        self._after(group_id, entry)


def _message(answer: Joined | Synced | Code) -> Message:
    """The response to a join or a sync."""
    if isinstance(answer, Code):
        return {"error_code": answer, "assignment": b""}
    if isinstance(answer, Synced):
        return {
            "protocol_type": answer.protocol_type,
            "protocol_name": answer.protocol,
            "assignment": answer.assignment,
        }
    return {
        "generation_id": answer.generation,
        "protocol_type": answer.protocol_type,
        "protocol_name": answer.protocol,
        "leader": answer.leader,
        "member_id": answer.member_id,
        "members": [
            {"member_id": member_id, "group_instance_id": instance_id, "metadata": metadata}
            for member_id, instance_id, metadata in answer.members
        ],
    }
