"""The log decides: whatever the order of uses, however far readers lag, whatever compaction leaves of the log.

The log here is a list that two readers follow, each as slowly as an example wants.
"""

import asyncio
import time
from collections.abc import Awaitable
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from castlegate.errors import CallFailed, Kinds, Outcome
from castlegate.issuer.families import Bounds, Granted, RefreshToken, Room, begun, new_token, read_token, used
from castlegate.issuer.topic import TopicFamilies
from castlegate.stores.log import Table
from castlegate.wire.timer import Timer

GRANTED = Granted("ann", "read", msgspec.Raw(b"{}"), until=4e9)
FAR = 1e9  # seconds on the loop's clock

Record = tuple[bytes, bytes | None]


class Topic:
    """All that was written."""

    def __init__(self) -> None:
        self.records: list[Record] = []


class Reader:
    """One log of an instance: reads when it is told to."""

    def __init__(self, topic: Topic, records: list[Record] | None = None) -> None:
        self.topic = topic
        self.records = topic.records if records is None else records
        self.position = 0
        self.table: Table | None = None
        self.caught_up = True

    def start(self, table: Table) -> None:
        self.table = table

    async def stop(self) -> None: ...

    async def admit(self, deadline: float) -> None: ...

    async def append(self, key: bytes, value: bytes | None, deadline: float) -> int:
        await asyncio.sleep(0)
        self.topic.records.append((key, value))
        await asyncio.sleep(0)
        return len(self.topic.records) - 1

    async def reached(self, offset: int, deadline: float) -> None:
        while self.position <= offset:  # noqa: ASYNC110
            await asyncio.sleep(0)

    async def beginning(self, deadline: float) -> None:
        if not self.caught_up:
            raise CallFailed(Kinds.TIMEOUT, Outcome.UNKNOWN)

    def read(self, count: int) -> None:
        """So many records."""
        assert self.table is not None
        for key, value in self.records[self.position : self.position + count]:
            self.table.apply(key, value)
            self.position += 1


class Instance:
    def __init__(self, topic: Topic, grace: float = 0.0, per_subject: int = 100) -> None:
        self.reader = Reader(topic)
        bounds = Bounds(100.0, 1000.0, grace, 10.0)
        self.families = TopicFamilies(self.reader, Timer(asyncio.get_running_loop()), bounds, Room(100, per_subject))
        self.reader.start(self.families)


async def settle(instances: list[Instance], asked: list[Awaitable[Any]], lags: list[int]) -> list[Any]:
    """Let readers read by turns, as many records as `lags` says, until all that was asked is answered."""
    tasks = [asyncio.ensure_future(each) for each in asked]
    turn = 0
    while not all(task.done() for task in tasks):
        await asyncio.sleep(0 if turn < 200 else 0.001)
        instance = instances[turn % len(instances)]
        instance.reader.read(lags[turn % len(lags)] if turn < 200 else 10)
        turn += 1
    return [task.result() for task in tasks]


class Broken(Reader):
    """One that fails as nobody foresees, so many times."""

    failures = 1

    async def append(self, key: bytes, value: bytes | None, deadline: float) -> int:
        if self.failures:
            self.failures -= 1
            raise KeyError("nobody foresaw this")
        return await super().append(key, value, deadline)


def test_an_unforeseen_error_is_told_to_who_waits_and_to_nobody_else(caplog: pytest.LogCaptureFixture) -> None:
    async def go() -> None:
        topic = Topic()
        reader = Broken(topic)
        families = TopicFamilies(
            reader, Timer(asyncio.get_running_loop()), Bounds(100.0, 1000.0, 0.0, 10.0), Room(100, 100)
        )
        reader.start(families)
        with pytest.raises(CallFailed, match="Not all refresh tokens are known yet"):
            await asyncio.wait_for(families.use(new_token(), new_token(), FAR), 5)
        asked = asyncio.ensure_future(families.use(new_token(), new_token(), FAR))
        while not asked.done():
            await asyncio.sleep(0.001)
            reader.records = topic.records
            reader.read(10)
        assert asked.result() is None

    asyncio.run(go())
    assert sum("finding out how far the issuer's topic goes failed" in each for each in caplog.messages) == 1


LAGS = st.lists(st.integers(0, 3), min_size=1, max_size=8)


@settings(max_examples=40, deadline=None)
@given(uses=st.lists(st.integers(0, 1), min_size=2, max_size=6), lags=LAGS)
def test_of_any_number_of_uses_at_once_exactly_one_wins_and_the_family_ends(uses: list[int], lags: list[int]) -> None:
    async def go() -> None:
        topic = Topic()
        both = [Instance(topic), Instance(topic)]
        token = new_token()
        await settle(both, [both[0].families.begin(token, GRANTED, FAR)], lags)
        following = [new_token(token) for _ in uses]
        asked = [both[i].families.use(token, each, FAR) for i, each in zip(uses, following, strict=True)]
        won = await settle(both, asked, lags)
        assert sum(each is not None for each in won) == 1
        winner = following[next(i for i, each in enumerate(won) if each is not None)]
        for instance in both:
            [after] = await settle(both, [instance.families.use(winner, new_token(token), FAR)], lags)
            assert after is None

    asyncio.run(go())


@settings(max_examples=40, deadline=None)
@given(who=st.lists(st.integers(0, 1), min_size=1, max_size=8), lags=LAGS)
def test_a_bearer_who_goes_from_instance_to_instance_is_never_refused(who: list[int], lags: list[int]) -> None:
    async def go() -> None:
        topic = Topic()
        both = [Instance(topic), Instance(topic)]
        token = new_token()
        await settle(both, [both[0].families.begin(token, GRANTED, FAR)], lags)
        for i in who:
            following = new_token(token)
            [granted] = await settle(both, [both[i].families.use(token, following, FAR)], lags)
            assert granted is not None
            token = following

    asyncio.run(go())


@settings(max_examples=60, deadline=None)
@given(
    steps=st.lists(st.tuples(st.integers(0, 1), st.integers(0, 3), st.booleans()), min_size=1, max_size=8),
    lags=LAGS,
    cut=st.integers(0, 40),
)
def test_whoever_begins_with_what_compaction_has_left_takes_nothing_that_the_others_refuse(
    steps: list[tuple[int, int, bool]], lags: list[int], cut: int
) -> None:
    """Steps use a token that was handed out, twice at once if the example says so, at one of two instances."""

    async def go() -> None:
        topic = Topic()
        both = [Instance(topic), Instance(topic)]
        held = [new_token()]  # what was handed out, in this order
        await settle(both, [both[0].families.begin(held[0], GRANTED, FAR)], lags)
        for i, back, twice in steps:
            used = held[max(0, len(held) - 1 - back)]
            nexts = [new_token(used) for _ in range(1 + twice)]
            asked = [both[(i + n) % 2].families.use(used, each, FAR) for n, each in enumerate(nexts)]
            answers = await settle(both, asked, lags)
            held += [each for each, won in zip(nexts, answers, strict=True) if won is not None]
        for each in both:
            each.reader.read(10_000)
        good = [token for token in held if is_good(both[0], token)]
        assert good == [token for token in held if is_good(both[1], token)]
        late = Instance(topic)
        late.reader.records = compacted(topic.records, cut)
        late.reader.read(10_000)
        taken = [token for token in held if is_good(late, token)]
        assert taken == good

    asyncio.run(go())


def test_a_use_that_comes_behind_a_logout_gives_its_token_no_grace() -> None:
    """The instance that wrote it was killed before it could say that the login has ended."""
    token, now, bounds = new_token(), time.time(), Bounds(100.0, 1000.0, 10.0, 10.0)
    key, family = token.family.encode(), begun(GRANTED, token, now, bounds)
    after = used(family, token, new_token(token), now, bounds)

    async def go() -> None:
        topic = Topic()
        topic.records += [(key, msgspec.json.encode(family)), (key, None), (key, msgspec.json.encode(after))]
        one = Instance(topic, grace=10.0)
        one.reader.read(3)
        assert await settle([one], [one.families.use(token, new_token(token), FAR)], [1]) == [None]

    asyncio.run(go())


def is_good(instance: Instance, token: RefreshToken) -> bool:
    """As far as it has read."""
    family = instance.families._families.get(token.family.encode())
    return family is not None and family.takes(token.own, time.time())


def compacted(records: list[Record], cut: int) -> list[Record]:
    """Of what stands before `cut` from the end, the last record of each key alone; deletions may be gone too."""
    end = max(0, len(records) - cut)
    latest = {key: index for index, (key, _) in enumerate(records[:end])}
    kept = [records[index] for index in sorted(latest.values()) if records[index][1] is not None]
    return kept + records[end:]


def test_a_token_is_read_in_its_one_spelling() -> None:
    token = new_token()
    assert read_token(token.text) == token
    following = new_token(token)
    assert (following.family, following.text[:42]) == (token.family, token.text[:42])
    assert following.own != token.own
    other = {"A": "B", "Q": "R", "g": "h", "w": "x"}[token.text[-1]]
    for wrong in ("", token.text[:-1], token.text + "A", token.text + "\n", token.text[:-1] + other, "é" * 86):
        assert read_token(wrong) is None


@settings(max_examples=40, deadline=None)
@given(who=st.integers(0, 1), reused=st.booleans(), lags=LAGS)
def test_a_login_lasts_at_every_instance_until_it_ends_and_then_at_none_that_has_read_of_it(
    who: int, reused: bool, lags: list[int]
) -> None:
    async def go() -> None:
        topic = Topic()
        both = [Instance(topic), Instance(topic)]
        token = new_token()
        await settle(both, [both[who].families.begin(token, GRANTED, FAR)], lags)
        asked = [each.families.lasts(token.family, FAR) for each in both]
        assert await settle(both, asked, lags) == [True, True]
        assert both[0].families.holds(token.family)
        assert both[1].families.holds(token.family)
        if reused:
            await settle(both, [both[who].families.use(token, new_token(token), FAR) for _ in range(2)], lags)
        else:
            await settle(both, [both[1 - who].families.end(token, FAR)], lags)
        for each in both:
            each.reader.read(10_000)
            assert not each.families.holds(token.family)
        asked = [each.families.lasts(token.family, FAR) for each in both]
        assert await settle(both, asked, lags) == [False, False]

    asyncio.run(go())


def test_what_has_ended_is_asked_about_once() -> None:
    async def go() -> None:
        topic = Topic()
        one = Instance(topic)
        family = new_token().family
        for _ in range(3):
            assert await settle([one], [one.families.lasts(family, FAR)], [1]) == [False]
        assert len(topic.records) == 1, "one mark"

    asyncio.run(go())


def test_a_use_that_comes_behind_a_logout_does_not_have_the_login_last() -> None:
    token, now, bounds = new_token(), time.time(), Bounds(100.0, 1000.0, 0.0, 10.0)
    key, family = token.family.encode(), begun(GRANTED, token, now, bounds)
    after = used(family, token, new_token(token), now, bounds)

    async def go() -> None:
        topic = Topic()
        topic.records += [(key, msgspec.json.encode(family)), (key, None), (key, msgspec.json.encode(after))]
        one = Instance(topic)
        one.reader.read(3)
        assert not one.families.holds(token.family)

    asyncio.run(go())


def test_while_the_log_is_being_read_nobody_is_known_and_nobody_refused() -> None:
    async def go() -> None:
        topic = Topic()
        one = Instance(topic)
        token = new_token()
        await settle([one], [one.families.begin(token, GRANTED, FAR)], [1])
        one.reader.caught_up = False
        assert not one.families.holds(token.family)
        with pytest.raises(CallFailed):
            await one.families.lasts(token.family, FAR)

    asyncio.run(go())


@settings(max_examples=40, deadline=None)
@given(who=st.lists(st.integers(0, 1), min_size=1, max_size=8), lags=LAGS, together=st.booleans())
def test_of_one_subject_no_more_logins_go_on_than_may_and_those_of_others_all_do(
    who: list[int], lags: list[int], together: bool
) -> None:
    async def go() -> None:
        topic = Topic()
        both = [Instance(topic, per_subject=2) for _ in range(2)]
        bob, tokens = new_token(), [new_token() for _ in who]
        await settle(both, [both[0].families.begin(bob, msgspec.structs.replace(GRANTED, subject="bob"), FAR)], lags)
        begun = [both[i].families.begin(token, GRANTED, FAR) for i, token in zip(who, tokens, strict=True)]
        for asked in [begun] if together else [[each] for each in begun]:
            await settle(both, asked, lags)
        for instance in [*both, late(topic)]:
            instance.reader.read(10_000)
            held = [token for token in tokens if instance.families.holds(token.family)]
            assert len(held) == min(2, len(who))
            assert together or held == tokens[-2:]
            assert instance.families.holds(bob.family)

    asyncio.run(go())


def late(topic: Topic) -> Instance:
    """One that begins with what compaction has left."""
    instance = Instance(topic)
    instance.reader.records = compacted(topic.records, 0)
    return instance
