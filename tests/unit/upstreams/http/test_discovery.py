"""Who is found by name and by file, asked of a real DNS server and written to real files."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import dns.rcode
import pytest
from tests.testbeds.names import NameServer

from castlegate.telemetry.metrics import Registry
from castlegate.upstreams.http.discovery import Discovery, Found, Member, NotFound, Source
from castlegate.upstreams.http.listed import Listing
from castlegate.upstreams.http.names import Addresses, Targets
from castlegate.upstreams.http.sources import Dns, InstanceFile, Srv


@pytest.fixture
def server() -> Iterator[NameServer]:
    with NameServer() as server:
        yield server


def addresses(server: NameServer, name: str = "users.test:8000", **said: object) -> Addresses:
    return Addresses(Dns(name=name, server=f"127.0.0.1:{server.port}", **said))  # type: ignore[arg-type]


def targets(server: NameServer, **said: object) -> Targets:
    return Targets(Srv(name="_http._tcp.users.test", server=f"127.0.0.1:{server.port}", **said))  # type: ignore[arg-type]


def urls(found: Found) -> list[str]:
    return sorted(each.url for each in found.members)


async def test_every_address_of_a_name_is_an_instance_for_as_long_as_its_time_to_live(server: NameServer) -> None:
    server.say("users.test", "A", "10.0.0.1", "10.0.0.2")
    server.ttl = 77
    found = await addresses(server).look()
    assert urls(found) == ["http://10.0.0.1:8000", "http://10.0.0.2:8000"]
    assert 76 <= found.again <= 77


@pytest.mark.parametrize(("ttl", "again"), [(0, 3.0), (1000, 20.0)])
async def test_the_time_to_live_is_bounded(server: NameServer, ttl: int, again: float) -> None:
    server.say("users.test", "A", "10.0.0.1")
    server.ttl = ttl
    assert (await addresses(server, least=3.0, longest=20.0).look()).again == again


async def test_ipv6_is_asked_for_where_there_is_no_ipv4(server: NameServer) -> None:
    server.say("users.test", "AAAA", "fd00::1")
    assert urls(await addresses(server, scheme="https").look()) == ["https://[fd00::1]:8000"]
    server.say("users.test", "A", "10.0.0.1")
    assert urls(await addresses(server).look()) == ["http://10.0.0.1:8000"]


async def test_an_answer_too_long_for_a_datagram_is_asked_for_over_tcp(server: NameServer) -> None:
    server.truncates = True
    server.say("users.test", "A", *[f"10.0.{number // 250}.{number % 250 + 1}" for number in range(700)])
    assert len((await addresses(server).look()).members) == 700
    assert ("tcp", "users.test", "A") in server.asked


async def test_targets_have_their_ports_priorities_and_weights(server: NameServer) -> None:
    server.say(
        "_http._tcp.users.test",
        "SRV",
        "10 60 8001 One.users.test.",
        "10 0 8002 two.users.test.",
        "20 5 8001 one.users.test.",
    )
    found = await targets(server).look()
    assert sorted(found.members) == [
        Member("http://one.users.test:8001", 60, 10), Member("http://two.users.test:8002", 1, 10),
    ]  # fmt: skip


async def test_weights_are_brought_to_a_hundred_steps(server: NameServer) -> None:
    records = ["1 65535 1 a.", "1 32768 1 b.", "1 3 1 c.", "2 7 1 d."]
    server.say("_http._tcp.users.test", "SRV", *records)
    weights = {each.url: each.weight for each in (await targets(server).look()).members}
    assert weights == {"http://a:1": 100, "http://b:1": 50, "http://c:1": 1, "http://d:1": 7}


async def test_the_target_that_says_there_is_no_service_is_none(server: NameServer) -> None:
    server.say("_http._tcp.users.test", "SRV", "0 0 0 .")
    assert (await targets(server).look()).members == []


@pytest.mark.parametrize("kind", ["A", "SRV"])
async def test_why_a_name_cannot_be_looked_up_is_said(server: NameServer, kind: str) -> None:
    def source() -> Source:
        return addresses(server, timeout=0.2) if kind == "A" else targets(server, timeout=0.2)

    with pytest.raises(NotFound, match="there is no such name"):
        await source().look()
    server.rcode = dns.rcode.SERVFAIL
    with pytest.raises(NotFound, match="it could not be looked up"):
        await source().look()
    server.silent = True
    with pytest.raises(NotFound, match="no server answered in time"):
        await source().look()


class Scripted:
    """A source that tests answer for."""

    name = "the script"
    least = 0.001
    patience = 30.0

    def __init__(self) -> None:
        self.answer: list[str] | Exception = []
        self.looks = 0

    async def look(self) -> Found:
        self.looks += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return Found([Member(url) for url in self.answer], 0.001)


@asynccontextmanager
async def looking(source: Source, most: int = 1000) -> AsyncIterator[tuple[Discovery, list[list[str]]]]:
    changes: list[list[str]] = []
    discovery = Discovery("users", source, most, Registry(), lambda: changes.append([m.url for m in discovery.members]))
    await discovery.start()
    try:
        await asyncio.wait_for(discovery.first_look(), 5)
        yield discovery, changes
    finally:
        await discovery.stop()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - whatever it is about
            await asyncio.sleep(0.001)


async def more_looks(source: Scripted, count: int = 3) -> None:
    seen = source.looks
    await until(lambda: source.looks >= seen + count)


@pytest.mark.parametrize("nothing", [[], NotFound("no such name"), RuntimeError("unforeseen")])
async def test_the_last_answer_that_named_somebody_holds(nothing: list[str] | Exception) -> None:
    source = Scripted()
    source.answer = ["http://b:1", "http://a:1"]
    async with looking(source) as (discovery, changes):
        source.answer = nothing
        await until(lambda: bool(discovery.problem))
        assert [each.url for each in discovery.members] == ["http://a:1", "http://b:1"]
        source.answer = ["http://c:1"]
        await until(lambda: not discovery.problem)
        assert changes == [["http://a:1", "http://b:1"], ["http://c:1"]]


async def test_the_same_in_another_order_is_no_change() -> None:
    source = Scripted()
    source.answer = ["http://b:1", "http://a:1"]
    async with looking(source) as (_, changes):
        source.answer = ["http://a:1", "http://b:1", "http://a:1"]
        await more_looks(source)
        assert len(changes) == 1


async def test_no_more_instances_are_taken_than_said() -> None:
    source = Scripted()
    source.answer = [f"http://s{number}:1" for number in range(20)]
    async with looking(source, most=5) as (discovery, _):
        assert len(discovery.members) == 5
        assert "names 20 instances, of which 5 are taken" in discovery.problem


async def test_a_service_without_any_answer_has_no_instances() -> None:
    source = Scripted()
    source.answer = NotFound("no such name")
    async with looking(source) as (discovery, changes):
        assert (discovery.members, discovery.problem, changes) == ([], "no such name", [])


async def test_a_name_is_asked_for_again_when_its_time_to_live_is_over(server: NameServer) -> None:
    server.ttl = 0
    server.say("users.test", "A", "10.0.0.1")
    async with looking(addresses(server, least=0.01)) as (discovery, _):
        server.say("users.test", "A", "10.0.0.2", "10.0.0.3")
        await until(lambda: len(discovery.members) == 2)
        server.say("users.test", "A")
        await until(lambda: bool(discovery.problem))
        server.silent = True
        assert len(discovery.members) == 2


@pytest.mark.parametrize("text", ['["http://a:1", {"url": "http://b:2", "weight": 3}]', "- http://a:1\n- {url: 'http://b:2', weight: 3}\n",
                                  "instances:\n- http://a:1\n- url: http://b:2\n  weight: 3\n"])  # fmt: skip
async def test_a_file_lists_instances(tmp_path: Path, text: str) -> None:
    (tmp_path / "users.yaml").write_text(text)
    found = await Listing(InstanceFile(path="users.yaml"), tmp_path).look()
    assert sorted(found.members) == [Member("http://a:1"), Member("http://b:2", 3)]


async def test_a_file_is_read_again_when_it_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "users.json"
    path.write_text('["http://a:1"]')
    async with looking(Listing(InstanceFile(path="users.json", every=0.01), tmp_path)) as (discovery, changes):
        for content in (["http://a:1", "http://b:1"], ["http://b:1"]):
            (tmp_path / "next").write_text(json.dumps(content))
            (tmp_path / "next").rename(path)
            await until(lambda content=content: [each.url for each in discovery.members] == content)
        path.unlink()
        await until(lambda: "cannot be read: No such file" in discovery.problem)
        assert [each.url for each in discovery.members] == ["http://b:1"]
        assert len(changes) == 3


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[http://a", "users.yaml:2:1: not valid YAML"),
        ("[ftp://a:1]", r"users.yaml:1:2: .*not ftp://"),
        ("- http://a:1\n- https://a:2\n", r"users.yaml:2:3: .*expected http://"),
        ("- url: http://a:1\n  wieght: 3\n", "users.yaml:2:3: unknown key 'wieght'.*'weight'"),
        ("x" * 10, "users.yaml:1:1: .*expected a list"),
        ("- {url: 'http://a:1', weight: 0}\n", "must be at least 1"),
    ],
)
async def test_what_is_wrong_in_a_file_is_said_with_its_place(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "users.yaml").write_text(text)
    with pytest.raises(NotFound, match=reason):
        await Listing(InstanceFile(path="users.yaml"), tmp_path).look()


async def test_an_empty_file_names_nobody(tmp_path: Path) -> None:
    (tmp_path / "users.yaml").write_text("[]")
    assert (await Listing(InstanceFile(path="users.yaml"), tmp_path).look()).members == []
