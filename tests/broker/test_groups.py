"""The group's state machine: played through by hand, and by clients that do as they like."""

import contextlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from castlegate_broker.errors import Code, Refused
from castlegate_broker.groups import Group, Join, Joined, MemberIdRequired, State, Sync, Synced, Ticket

SESSION_S = 10.0
REBALANCE_S = 30.0


def _join(
    member_id: str = "",
    *,
    instance: str | None = None,
    protocols: dict[str, bytes] | None = None,
    kind: str = "consumer",
) -> Join:
    names = {"range": b"metadata"} if protocols is None else protocols
    return Join(member_id, instance, "client", "host", SESSION_S, REBALANCE_S, kind, names, id_required=True)


def _sync(joined: Joined, assignments: dict[str, bytes] | None = None, instance: str | None = None) -> Sync:
    return Sync(joined.member_id, instance, joined.generation, None, None, assignments or {})


class Played:
    """A group with a clock and what it has answered."""

    def __init__(self, group: Group | None = None) -> None:
        self.group = group or Group()
        self.now = 0.0
        self.answers: dict[Ticket, Joined | Synced | Code] = {}
        self._tickets = itertools.count()

    def join(self, ask: Join) -> Ticket:
        ticket = next(self._tickets)
        self.group.join(ask, ticket, self.now)
        self._collect()
        return ticket

    def newcomer(self) -> Ticket:
        with pytest.raises(MemberIdRequired) as required:
            self.join(_join())
        return self.join(_join(required.value.member_id))

    def sync(self, ask: Sync) -> Ticket:
        ticket = next(self._tickets)
        self.group.sync(ask, ticket, self.now)
        self._collect()
        return ticket

    def leave(self, member_id: str) -> None:
        self.group.leave(member_id, None, self.now)
        self._collect()

    def wait(self, seconds: float) -> None:
        """Let time pass, expiring when the group asks for it, as the coordinator does."""
        end = self.now + seconds
        while (due := self.group.next_deadline()) is not None and due <= end:
            self.now = max(self.now, due)
            self.group.expire(self.now)
            self._collect()
        self.now = end

    def joined(self, ticket: Ticket) -> Joined:
        answer = self.answers[ticket]
        assert isinstance(answer, Joined)
        return answer

    def _collect(self) -> None:
        for ticket, answer in self.group.outbox:
            assert ticket not in self.answers, "answered twice"
            self.answers[ticket] = answer
        self.group.outbox.clear()


def _of_two() -> tuple[Played, Joined, Joined]:
    """A group of two members, the first of them the leader, which have their assignments."""
    played = Played()
    alone = played.joined(played.newcomer())
    second = played.newcomer()
    again = played.join(_join(alone.member_id))
    leader, follower = played.joined(again), played.joined(second)
    played.sync(_sync(follower))
    played.sync(_sync(leader, {leader.member_id: b"one", follower.member_id: b"two"}))
    return played, leader, follower


def _code(error: pytest.ExceptionInfo[Refused]) -> Code:
    return error.value.code


def test_a_first_member_forms_a_generation_at_once() -> None:
    played = Played()
    joined = played.joined(played.newcomer())
    assert (joined.generation, joined.leader, joined.protocol) == (1, joined.member_id, "range")
    assert played.group.state is State.COMPLETING


def test_those_who_start_together_wait_for_each_other() -> None:
    played = Played()
    with pytest.raises(MemberIdRequired) as first:
        played.join(_join())
    with pytest.raises(MemberIdRequired) as second:
        played.join(_join())
    one = played.join(_join(first.value.member_id))
    assert one not in played.answers
    other = played.join(_join(second.value.member_id))
    assert played.joined(one).generation == played.joined(other).generation == 1
    assert len(played.joined(one).members) == 2
    assert played.joined(other).members == ()


def test_an_initial_delay_lets_others_come() -> None:
    played = Played(Group(initial_delay_s=3.0))
    first = played.newcomer()
    played.wait(2.9)
    assert first not in played.answers
    second = played.newcomer()
    played.wait(0.1)
    assert played.joined(first).generation == played.joined(second).generation == 1


def test_assignments_go_from_the_leader_to_all() -> None:
    played, leader, follower = _of_two()
    given = [answer.assignment for answer in played.answers.values() if isinstance(answer, Synced)]
    assert sorted(given) == [b"one", b"two"]
    assert played.group.state is State.STABLE
    played.group.heartbeat(leader.member_id, None, leader.generation, played.now)
    again = played.answers[played.sync(_sync(follower))]
    assert isinstance(again, Synced)
    assert again.assignment == b"two"


def test_a_member_that_leaves_has_the_others_rebalanced_at_once() -> None:
    played, leader, follower = _of_two()
    played.leave(leader.member_id)
    with pytest.raises(Refused) as told:
        played.group.heartbeat(follower.member_id, None, follower.generation, played.now)
    assert _code(told) is Code.REBALANCE_IN_PROGRESS
    alone = played.joined(played.join(_join(follower.member_id)))
    assert (alone.leader, alone.generation) == (follower.member_id, follower.generation + 1)


def test_a_silent_member_is_dropped_when_its_session_ends() -> None:
    played, leader, follower = _of_two()
    played.wait(SESSION_S - 1)
    played.group.heartbeat(leader.member_id, None, leader.generation, played.now)
    played.wait(1.0)
    assert set(played.group.members) == {leader.member_id}
    with pytest.raises(Refused) as unknown:
        played.group.heartbeat(follower.member_id, None, follower.generation, played.now)
    assert _code(unknown) is Code.UNKNOWN_MEMBER_ID


def test_a_rebalance_ends_without_those_who_do_not_come() -> None:
    played, leader, follower = _of_two()
    third = played.newcomer()
    for _ in range(int(REBALANCE_S)):
        assert third not in played.answers
        with pytest.raises(Refused):
            played.group.heartbeat(follower.member_id, None, follower.generation, played.now)
        with pytest.raises(Refused):
            played.group.heartbeat(leader.member_id, None, leader.generation, played.now)
        played.wait(1.0)
    assert set(played.group.members) == {played.joined(third).member_id}


def test_a_leader_that_never_brings_assignments_is_dropped() -> None:
    played = Played()
    with pytest.raises(MemberIdRequired) as first:
        played.join(_join())
    with pytest.raises(MemberIdRequired) as second:
        played.join(_join())
    lazy, eager = (played.join(_join(one.value.member_id)) for one in (first, second))
    waiting = played.sync(_sync(played.joined(eager)))
    for _ in range(int(REBALANCE_S)):
        played.group.heartbeat(played.joined(lazy).member_id, None, 1, played.now)
        played.wait(1.0)
    assert played.answers[waiting] is Code.REBALANCE_IN_PROGRESS
    assert played.joined(lazy).member_id not in played.group.members


def test_a_repeated_join_gets_the_same_generation() -> None:
    played, leader, follower = _of_two()
    again = played.joined(played.join(_join(follower.member_id)))
    assert (again.generation, again.leader) == (leader.generation, leader.member_id)
    assert played.group.state is State.STABLE


def test_a_leader_that_joins_again_wants_a_rebalance() -> None:
    played, leader, _ = _of_two()
    played.join(_join(leader.member_id))
    assert played.group.state is State.PREPARING


def test_a_static_member_that_comes_back_keeps_its_place_and_fences_its_former_self() -> None:
    played = Played()
    leader = played.joined(played.join(_join(instance="a")))
    second = played.join(_join(instance="b"))
    leader = played.joined(played.join(_join(leader.member_id, instance="a")))
    former = played.joined(second)
    played.sync(_sync(leader, {leader.member_id: b"one", former.member_id: b"two"}, "a"))
    back = played.joined(played.join(_join(instance="b")))
    assert back.member_id != former.member_id
    assert back.generation == former.generation
    synced = played.answers[played.sync(_sync(back, instance="b"))]
    assert isinstance(synced, Synced)
    assert synced.assignment == b"two"
    with pytest.raises(Refused) as fenced:
        played.group.heartbeat(former.member_id, "b", former.generation, played.now)
    assert _code(fenced) is Code.FENCED_INSTANCE_ID


def test_members_must_have_a_protocol_in_common() -> None:
    played = Played()
    played.newcomer()
    for ask in (_join(protocols={"sticky": b""}), _join(kind="connect"), _join(protocols={})):
        with pytest.raises(Refused) as refused:
            played.join(ask)
        assert _code(refused) is Code.INCONSISTENT_GROUP_PROTOCOL


def test_the_protocol_that_most_prefer_of_those_all_know_is_taken() -> None:
    played = Played()
    preferences = [["sticky", "range"], ["range", "sticky", "own"], ["range", "sticky"]]
    ids = []
    for _ in preferences:
        with pytest.raises(MemberIdRequired) as required:
            played.join(_join(protocols={"sticky": b"", "range": b""}))
        ids.append(required.value.member_id)
    wishes = [dict.fromkeys(names, b"") for names in preferences]
    tickets = [played.join(_join(one, protocols=names)) for one, names in zip(ids, wishes, strict=True)]
    assert {played.joined(ticket).protocol for ticket in tickets} == {"range"}


def test_a_full_group_takes_nobody() -> None:
    played = Played(Group(max_members=1))
    played.newcomer()
    with pytest.raises(Refused) as refused:
        played.join(_join())
    assert _code(refused) is Code.GROUP_MAX_SIZE_REACHED


def test_only_present_members_commit_or_anyone_while_there_are_none() -> None:
    empty = Group()
    empty.check_commit("", None, -1, 0.0)
    played, leader, _ = _of_two()
    played.group.check_commit(leader.member_id, None, leader.generation, played.now)
    cases = [
        ("", -1, Code.UNKNOWN_MEMBER_ID),
        ("ghost", leader.generation, Code.UNKNOWN_MEMBER_ID),
        (leader.member_id, leader.generation - 1, Code.ILLEGAL_GENERATION),
    ]
    for member_id, generation, code in cases:
        with pytest.raises(Refused) as refused:
            played.group.check_commit(member_id, None, generation, played.now)
        assert _code(refused) is code


@dataclass
class Someone:
    """A client: its id, the generation that it knows of, and the ticket that it waits for."""

    id: str
    joined: Joined | None = None
    ticket: Ticket | None = None


class ClientsAsTheyLike(RuleBasedStateMachine):
    """Clients join, sync, beat, leave and fall silent in any order; the group must stay whole and answer all."""

    def __init__(self) -> None:
        super().__init__()
        self.played = Played()
        self.clients: list[Someone] = []
        self.asked: set[Ticket] = set()

    @property
    def group(self) -> Group:
        return self.played.group

    def free(self) -> Iterator[Someone]:
        """Clients that wait for nothing; those that were answered take note of it."""
        for client in tuple(self.clients):
            if client.ticket in self.played.answers:
                answer = self.played.answers[client.ticket]
                client.ticket = None
                if isinstance(answer, Joined):
                    client.joined = answer
                elif answer in (Code.UNKNOWN_MEMBER_ID, Code.FENCED_INSTANCE_ID):
                    self.clients.remove(client)
                    continue
            if client.ticket is None:
                yield client

    @rule()
    def come(self) -> None:
        with pytest.raises(MemberIdRequired) as required:
            self.played.join(_join())
        self.clients.append(Someone(required.value.member_id))

    def _ask(self, client: Someone, ask: Join | Sync) -> None:
        try:
            client.ticket = self.played.join(ask) if isinstance(ask, Join) else self.played.sync(ask)
            self.asked.add(client.ticket)
        except Refused as refused:
            if refused.code is Code.UNKNOWN_MEMBER_ID:
                self.clients.remove(client)

    @precondition(lambda self: self.clients)
    @rule(data=st.data(), metadata=st.sampled_from([b"metadata", b"other"]))
    def join(self, data: st.DataObject, metadata: bytes) -> None:
        free = list(self.free())
        if free:
            client = data.draw(st.sampled_from(free))
            self._ask(client, _join(client.id, protocols={"range": metadata}))

    @rule(data=st.data())
    def sync(self, data: st.DataObject) -> None:
        free = [client for client in self.free() if client.joined]
        if free:
            client = data.draw(st.sampled_from(free))
            assert client.joined is not None
            given = {member_id: member_id.encode() for member_id, _, _ in client.joined.members}
            self._ask(client, _sync(client.joined, given))

    @rule(data=st.data())
    def beat(self, data: st.DataObject) -> None:
        free = [client for client in self.free() if client.joined]
        if free:
            client = data.draw(st.sampled_from(free))
            assert client.joined is not None
            with contextlib.suppress(Refused):
                self.group.heartbeat(client.id, None, client.joined.generation, self.played.now)

    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        free = list(self.free())
        if free:
            client = data.draw(st.sampled_from(free))
            self.clients.remove(client)
            with contextlib.suppress(Refused):
                self.played.leave(client.id)

    @rule(seconds=st.sampled_from([0.5, SESSION_S / 2, SESSION_S, REBALANCE_S]))
    def wait(self, seconds: float) -> None:
        self.played.wait(seconds)

    @invariant()
    def is_whole(self) -> None:
        members = self.group.members.values()
        if self.group.state is State.EMPTY:
            assert not members
        if self.group.state is State.STABLE:
            assert not any(member.waits for member in members)
        if self.group.state in (State.STABLE, State.COMPLETING):
            assert self.group.leader in self.group.members
            assert all(self.group.protocol in member.protocols for member in members)
        if members:
            assert self.group.next_deadline() is not None

    @invariant()
    def leads_one_per_generation(self) -> None:
        leaders: dict[int, set[str]] = {}
        for answer in self.played.answers.values():
            if isinstance(answer, Joined):
                leaders.setdefault(answer.generation, set()).add(answer.leader)
        assert all(len(ids) == 1 for ids in leaders.values())

    def teardown(self) -> None:
        self.played.wait(4 * (SESSION_S + REBALANCE_S))
        assert self.asked <= set(self.played.answers), "someone waits for ever"
        assert self.group.idle
        assert self.group.state is State.EMPTY


TestClientsAsTheyLike = ClientsAsTheyLike.TestCase
TestClientsAsTheyLike.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
