"""One consumer group of the classic protocol: who is in it, which generation it has, who waits for an answer.

    EMPTY ──join──▶ PREPARING ──all joined, or time is up──▶ COMPLETING ──leader's sync──▶ STABLE
                        ▲            (no one left: EMPTY)         │                           │
                        └────── a member joins anew, changes, leaves or falls silent ─────────┘

Only the methods below move the state. No I/O and no clock: the caller passes `now` in seconds, calls `expire` at
`next_deadline`, and delivers what is in `outbox`. A join or sync that must wait leaves its ticket, an opaque
object of the caller's; every ticket is answered exactly once through the outbox. Errors raise `Refused`.
Semantics: Kafka's GroupCoordinator, KIP-345 (static members), KIP-394 (member id required).
"""

import secrets
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from enum import Enum

from castlegate_broker.errors import Code, Refused

Ticket = Hashable


class State(Enum):
    """Names as DescribeGroups and ListGroups show them."""

    EMPTY = "Empty"
    PREPARING = "PreparingRebalance"
    COMPLETING = "CompletingRebalance"
    STABLE = "Stable"


@dataclass(frozen=True, slots=True)
class Join:
    """What a client asks for when it joins; `protocols` in its order of preference."""

    member_id: str
    instance_id: str | None
    client_id: str
    client_host: str
    session_s: float
    rebalance_s: float
    protocol_type: str
    protocols: dict[str, bytes]
    id_required: bool


@dataclass(frozen=True, slots=True)
class Sync:
    """What a member asks for after a generation was formed; the leader brings the assignments."""

    member_id: str
    instance_id: str | None
    generation: int
    protocol_type: str | None
    protocol: str | None
    assignments: dict[str, bytes]


@dataclass(frozen=True, slots=True)
class Joined:
    """Answer to a join; `members` (id, instance id, metadata) only for the leader."""

    generation: int
    protocol_type: str
    protocol: str
    leader: str
    member_id: str
    members: tuple[tuple[str, str | None, bytes], ...] = ()


@dataclass(frozen=True, slots=True)
class Synced:
    """Answer to a sync."""

    protocol_type: str
    protocol: str
    assignment: bytes


class MemberIdRequired(Refused):
    """A newcomer must come again with the id given here, so that a lost answer leaves no ghost (KIP-394)."""

    def __init__(self, member_id: str) -> None:
        super().__init__(Code.MEMBER_ID_REQUIRED)
        self.member_id = member_id


@dataclass(slots=True)
class Member:
    """A member; `joining` and `syncing` are tickets of requests that wait."""

    id: str
    instance_id: str | None
    client_id: str
    client_host: str
    session_s: float
    rebalance_s: float
    protocols: dict[str, bytes]
    deadline: float
    assignment: bytes = b""
    joining: Ticket | None = None
    syncing: Ticket | None = None

    @property
    def waits(self) -> bool:
        """A member that waits for us is not silent: its heartbeats stand in line behind that answer."""
        return self.joining is not None or self.syncing is not None


@dataclass(slots=True)
class Group:
    """See above."""

    initial_delay_s: float = 0.0
    max_members: int = 500
    state: State = State.EMPTY
    generation: int = 0
    protocol_type: str = ""
    protocol: str = ""
    leader: str = ""
    members: dict[str, Member] = field(default_factory=dict)
    outbox: list[tuple[Ticket, Joined | Synced | Code]] = field(default_factory=list)
    # Ids given out and not joined with yet, with the time by which they must be.
    _promised: dict[str, float] = field(default_factory=dict)
    _static: dict[str, str] = field(default_factory=dict)
    _not_before: float = 0.0
    _deadline: float = 0.0

    @property
    def idle(self) -> bool:
        """Whether nobody is, or is about to be, a member."""
        return not self.members and not self._promised

    def join(self, ask: Join, ticket: Ticket, now: float) -> None:
        """Take a member in, or in again."""
        self._check_protocols(ask)
        member = self._admit(ask, now)
        unchanged = member.protocols == ask.protocols
        member.protocols = ask.protocols
        member.session_s, member.rebalance_s = ask.session_s, ask.rebalance_s
        member.deadline = now + member.session_s
        current = self.state is State.COMPLETING or (self.state is State.STABLE and member.id != self.leader)
        if current and unchanged:
            # It asks again as our answer got lost; a leader in STABLE asks because it wants a rebalance.
            self.outbox.append((ticket, self._joined(member)))
            return
        self._refuse(member, Code.REBALANCE_IN_PROGRESS)
        member.joining = ticket
        self._prepare(now)
        self._complete_if_all_joined(now)

    def sync(self, ask: Sync, ticket: Ticket, now: float) -> None:
        """Give a member its assignment, now or once the leader has brought it."""
        member = self._present(ask.member_id, ask.instance_id, ask.generation)
        named = (ask.protocol_type or self.protocol_type, ask.protocol or self.protocol)
        if named != (self.protocol_type, self.protocol):
            raise Refused(Code.INCONSISTENT_GROUP_PROTOCOL)
        member.deadline = now + member.session_s
        if self.state is State.PREPARING:
            raise Refused(Code.REBALANCE_IN_PROGRESS)
        self._refuse(member, Code.REBALANCE_IN_PROGRESS)
        member.syncing = ticket
        if self.state is State.COMPLETING and member.id == self.leader:
            for one in self.members.values():
                one.assignment = ask.assignments.get(one.id, b"")
            self.state = State.STABLE
        if self.state is State.STABLE:
            self._answer_syncs(now)

    def heartbeat(self, member_id: str, instance_id: str | None, generation: int, now: float) -> None:
        """Note that a member lives; `Refused` tells it to join again."""
        member = self._present(member_id, instance_id, generation)
        member.deadline = now + member.session_s
        if self.state is State.PREPARING:
            raise Refused(Code.REBALANCE_IN_PROGRESS)

    def check_commit(self, member_id: str, instance_id: str | None, generation: int, now: float) -> None:
        """Raise `Refused` if this one may not commit offsets now."""
        if generation < 0 and not member_id and self.state is State.EMPTY:
            # A consumer with partitions of its own choice uses the group for its offsets only.
            return
        member = self._present(member_id, instance_id, generation)
        if self.state is State.COMPLETING:
            raise Refused(Code.REBALANCE_IN_PROGRESS)
        member.deadline = now + member.session_s

    def leave(self, member_id: str, instance_id: str | None, now: float) -> None:
        """Let a member go; the others are rebalanced at once."""
        if member_id in self._promised:
            del self._promised[member_id]
        else:
            if instance_id is not None and not member_id:
                member_id = self._static.get(instance_id, "")
            self._remove(self._known(member_id, instance_id), Code.UNKNOWN_MEMBER_ID, now)
        self._complete_if_all_joined(now)

    def expire(self, now: float) -> None:
        """Do what is due: drop the silent, end a rebalance that took too long."""
        self._promised = {name: by for name, by in self._promised.items() if by > now}
        for member in tuple(self.members.values()):
            if not member.waits and member.deadline <= now:
                self._remove(member, Code.UNKNOWN_MEMBER_ID, now)
        if self.state is State.COMPLETING and self._deadline <= now:
            self._drop(member for member in self.members.values() if member.syncing is None)
            self._prepare(now)
        if self.state is State.PREPARING and self._deadline <= now:
            self._drop(member for member in self.members.values() if member.joining is None)
            self._complete(now)
        self._complete_if_all_joined(now)

    def next_deadline(self) -> float | None:
        """When `expire` has something to do; may be too early, never too late."""
        times = [member.deadline for member in self.members.values() if not member.waits]
        times += self._promised.values()
        if self.state in (State.PREPARING, State.COMPLETING):
            times.append(self._deadline)
        if self.state is State.PREPARING and self._all_joined():
            times.append(self._not_before)
        return min(times, default=None)

    def _check_protocols(self, ask: Join) -> None:
        others = [member for member in self.members.values() if member.id != ask.member_id]
        common = set(ask.protocols).intersection(*(member.protocols for member in others))
        if not ask.protocol_type or not common or (others and ask.protocol_type != self.protocol_type):
            raise Refused(Code.INCONSISTENT_GROUP_PROTOCOL)
        self.protocol_type = ask.protocol_type

    def _admit(self, ask: Join, now: float) -> Member:
        if ask.instance_id is not None and ask.instance_id in self._static:
            return self._readmit_static(ask, ask.instance_id)
        if ask.member_id in self.members:
            return self.members[ask.member_id]
        if ask.member_id and self._promised.pop(ask.member_id, None) is None:
            raise Refused(Code.UNKNOWN_MEMBER_ID)
        if len(self.members) + len(self._promised) >= self.max_members:
            raise Refused(Code.GROUP_MAX_SIZE_REACHED)
        member_id = ask.member_id or _new_id(ask)
        if not ask.member_id and ask.id_required and ask.instance_id is None:
            self._promised[member_id] = now + ask.session_s
            raise MemberIdRequired(member_id)
        member = Member(
            member_id,
            ask.instance_id,
            ask.client_id,
            ask.client_host,
            ask.session_s,
            ask.rebalance_s,
            protocols={},
            deadline=now + ask.session_s,
        )
        self.members[member_id] = member
        if ask.instance_id is not None:
            self._static[ask.instance_id] = member_id
        return member

    def _readmit_static(self, ask: Join, instance_id: str) -> Member:
        current = self._static[instance_id]
        if ask.member_id == current:
            return self.members[current]
        if ask.member_id:
            raise Refused(Code.FENCED_INSTANCE_ID)
        # The instance was started anew: it takes the place of its former self and fences it.
        member = self.members.pop(current)
        self._refuse(member, Code.FENCED_INSTANCE_ID)
        if self.leader == current:
            self.leader = ""
            member.protocols = {}
        member.id = self._static[instance_id] = _new_id(ask)
        self.members[member.id] = member
        return member

    def _known(self, member_id: str, instance_id: str | None) -> Member:
        if instance_id is not None:
            current = self._static.get(instance_id)
            if current is None:
                raise Refused(Code.UNKNOWN_MEMBER_ID)
            if current != member_id:
                raise Refused(Code.FENCED_INSTANCE_ID)
        if member_id not in self.members:
            raise Refused(Code.UNKNOWN_MEMBER_ID)
        return self.members[member_id]

    def _present(self, member_id: str, instance_id: str | None, generation: int) -> Member:
        member = self._known(member_id, instance_id)
        if generation != self.generation:
            raise Refused(Code.ILLEGAL_GENERATION)
        return member

    def _remove(self, member: Member, code: Code, now: float) -> None:
        self._refuse(member, code)
        self._drop([member])
        self._prepare(now)

    def _drop(self, members: Iterable[Member]) -> None:
        for member in tuple(members):
            del self.members[member.id]
            if member.instance_id is not None:
                del self._static[member.instance_id]

    def _refuse(self, member: Member, code: Code) -> None:
        """Answer what waits for a member with an error."""
        for ticket in (member.joining, member.syncing):
            if ticket is not None:
                self.outbox.append((ticket, code))
        member.joining = member.syncing = None

    def _prepare(self, now: float) -> None:
        """Begin a rebalance, unless one is on."""
        if self.state is State.PREPARING:
            return
        self._not_before = now + self.initial_delay_s if self.state is State.EMPTY else now
        longest = max((member.rebalance_s for member in self.members.values()), default=0.0)
        self._deadline = max(now + longest, self._not_before)
        self.state = State.PREPARING
        for member in self.members.values():
            if member.syncing is not None:
                self.outbox.append((member.syncing, Code.REBALANCE_IN_PROGRESS))
                member.syncing = None
                member.deadline = now + member.session_s

    def _all_joined(self) -> bool:
        # Those who were just given an id are on their way: waiting for them saves the next rebalance.
        return not self._promised and all(member.joining is not None for member in self.members.values())

    def _complete_if_all_joined(self, now: float) -> None:
        if self.state is State.PREPARING and self._all_joined() and now >= self._not_before:
            self._complete(now)

    def _complete(self, now: float) -> None:
        """Form the next generation of those who have joined."""
        self.generation += 1
        if not self.members:
            self.state, self.leader, self.protocol = State.EMPTY, "", ""
            return
        self.state = State.COMPLETING
        self.protocol = self._elect_protocol()
        if self.leader not in self.members:
            self.leader = next(iter(self.members))
        self._deadline = now + max(member.rebalance_s for member in self.members.values())
        for member in self.members.values():
            self.outbox.append((member.joining, self._joined(member)))
            member.joining = None
            member.assignment = b""
            member.deadline = now + member.session_s

    def _elect_protocol(self) -> str:
        """The protocol that all know and most prefer."""
        preferences = [list(member.protocols) for member in self.members.values()]
        common = set(preferences[0]).intersection(*preferences)
        votes = [next(name for name in names if name in common) for names in preferences]
        return max(votes, key=votes.count)

    def _joined(self, member: Member) -> Joined:
        members: tuple[tuple[str, str | None, bytes], ...] = ()
        if member.id == self.leader:
            members = tuple((one.id, one.instance_id, one.protocols[self.protocol]) for one in self.members.values())
        return Joined(self.generation, self.protocol_type, self.protocol, self.leader, member.id, members)

    def _answer_syncs(self, now: float) -> None:
        for member in self.members.values():
            if member.syncing is not None:
                answer = Synced(self.protocol_type, self.protocol, member.assignment)
                self.outbox.append((member.syncing, answer))
                member.syncing = None
                member.deadline = now + member.session_s


def _new_id(ask: Join) -> str:
    return f"{ask.instance_id or ask.client_id}-{secrets.token_hex(8)}"
