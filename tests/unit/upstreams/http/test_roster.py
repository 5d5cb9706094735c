"""What workers are told of instances: whatever they were told before, the latest is what holds."""

import asyncio
from collections.abc import Iterator

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from castlegate.rules.instances import Out
from castlegate.telemetry.metrics import Registry
from castlegate.upstreams.http.discovery import Member
from castlegate.upstreams.http.roster import CHECK, Roster, own_outs
from castlegate.upstreams.http.settings import HttpService
from castlegate.upstreams.http.sources import Dns, InstanceFile, Sources
from castlegate.upstreams.http.upstream import HttpUpstream
from castlegate.wire.timer import Timer

FILE = HttpService(file=InstanceFile(path="x"))
NAMES = st.sampled_from([f"h{number}:80" for number in range(5)])
OUTS = st.builds(Out, st.sampled_from(["status 500", "not reached"]), st.floats(0, 100))
ROSTERS = st.builds(
    Roster,
    st.dictionaries(NAMES, st.tuples(st.integers(1, 3), st.integers(0, 2))).map(
        lambda found: [Member(f"http://{name}", *said) for name, said in found.items()]
    ),
    st.dictionaries(NAMES, OUTS),
    st.dictionaries(NAMES, st.floats(0, 100)),
    found_by=st.just(FILE.found_by),
)


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


def upstream(loop: asyncio.AbstractEventLoop, service: HttpService) -> HttpUpstream:
    return HttpUpstream("users", service, Timer(loop), Registry(), panic=0.25)


@given(rosters=st.lists(ROSTERS, min_size=1, max_size=6))
def test_the_latest_holds(loop: asyncio.AbstractEventLoop, rosters: list[Roster]) -> None:
    found = upstream(loop, FILE)
    for now, roster in enumerate(rosters):
        # It travels as bytes.
        msgspec.json.decode(msgspec.json.encode(roster), type=Roster).settle(found, float(now))
    last = rosters[-1]
    assert last.members is not None
    members = {each.name: each for each in found.instances.members}
    assert {(f"http://{name}", each.weight, each.priority) for name, each in members.items()} == {
        (each.url, each.weight, each.priority) for each in last.members
    }
    for name, each in members.items():
        assert (each.outs[CHECK].why if CHECK in each.outs else None) == (
            last.ill[name].why if name in last.ill else None
        )
        assert (each.drained_since is not None) == (name in last.drained)
        assert not (each.available and name in last.drained)
    assert own_outs(found) == {}


def test_listed_instances_stay_those_of_the_configuration(loop: asyncio.AbstractEventLoop) -> None:
    found = upstream(loop, HttpService(instances=["http://h0:80", "http://h1:80"]))
    ill = {"h0:80": Out("ill", 0.0), "h9:80": Out("ill", 0.0)}
    Roster([Member("http://h2:80")], ill, {"h1:80": 1.0}, found_by=FILE.found_by).settle(found, 2.0)
    assert [each.name for each in found.instances.members] == ["h0:80", "h1:80"]
    assert [each.well for each in found.instances.members] == [False, False]
    Roster().settle(found, 3.0)
    assert [each.well for each in found.instances.members] == [True, True]


@pytest.mark.parametrize(
    "source", [InstanceFile(path="x", scheme="https"), InstanceFile(path="y"), Dns(name="x:443", scheme="https")]
)
def test_what_another_source_found_is_nothing_to_it(loop: asyncio.AbstractEventLoop, source: Sources) -> None:
    """A reload has changed the source: requests are still to end on the generation before."""
    found = upstream(loop, FILE)
    Roster([Member("http://h0:80")], found_by=FILE.found_by).settle(found, 1.0)
    other = HttpService(dns=source) if isinstance(source, Dns) else HttpService(file=source)  # type: ignore[arg-type]
    Roster([Member("https://h1:443")], found_by=other.found_by).settle(found, 2.0)
    assert [each.name for each in found.instances.members] == ["h0:80"]


def test_a_thousand_instances_are_taken_in_at_once(loop: asyncio.AbstractEventLoop) -> None:
    found = upstream(loop, FILE)
    changes: list[int] = []
    found.instances.watch(lambda: changes.append(len(found.instances.members)))
    names = [f"h{number}:80" for number in range(1000)]
    members, ill = [Member(f"http://{name}") for name in names], {name: Out("ill", 0.0) for name in names[:500]}
    Roster(members, ill, found_by=FILE.found_by).settle(found, 1.0)
    assert changes == [1000], "one change, not a thousand"
    assert len(found.instances.available) == 500


def test_what_a_worker_has_taken_out_itself_is_told_without_what_it_was_told(loop: asyncio.AbstractEventLoop) -> None:
    found = upstream(loop, HttpService(instances=["http://h0:80", "http://h1:80"]))
    first, second = found.instances.members
    found.instances.take_out(first, "ejection", "5 failures in a row", 7.0)
    Roster(None, {"h0:80": Out("ill", 0.0), "h1:80": Out("ill", 0.0)}).settle(found, 8.0)
    assert own_outs(found) == {"h0:80": {"ejection": Out("5 failures in a row", 7.0)}}
    Roster().settle(found, 9.0)
    assert (first.well, second.well) == (False, True)
