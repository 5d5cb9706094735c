"""The form of keys, the file of their hashes, and looking one up among many."""

import asyncio
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from castlegate.body import Budget
from castlegate.config.report import Report
from castlegate.means import Means
from castlegate.resources import Resources
from castlegate.schemes.api_key import hash_of, is_well_formed, new_id, new_key
from castlegate.schemes.api_keys import Keys, KeysScheme
from castlegate.schemes.key_file import EMPTY, Key, KeyFile, read_lines, read_whole, write_line
from castlegate.telemetry.metrics import Registry
from castlegate.wire.timer import Timer

HASH = "a" * 64


def read(text: str) -> tuple[KeyFile, list[str]]:
    report = Report()
    return read_whole(text.encode(), "f.keys", report), [str(each) for each in report.mistakes]


def test_a_key_says_whose_form_it_has_and_no_two_are_alike() -> None:
    keys = {new_key(new_id()) for _ in range(1000)}
    assert len(keys) == 1000
    assert all(key.startswith("cg_") and key.isascii() and is_well_formed(key.encode()) for key in keys)


@given(st.integers(0, 59), st.characters(codec="ascii"))
def test_a_mistyped_key_is_told_from_an_unknown_one(at: int, other: str) -> None:
    key = new_key("k123456789")
    at = min(at, len(key) - 1)
    changed = key[:at] + other + key[at + 1 :]
    assert is_well_formed(changed.encode()) == (changed == key)
    swapped = key[:at] + key[at + 1 : at + 2] + key[at] + key[at + 2 :]
    assert is_well_formed(swapped.encode()) == (swapped == key)


@given(
    st.builds(
        Key,
        owner=st.text(min_size=1),
        scopes=st.lists(st.text()),
        claims=st.dictionaries(st.text().filter(lambda name: name != "limit"), st.none() | st.booleans() | st.text()),
        limit=st.none() | st.just("100/min"),
        expires=st.none() | st.just("2027-01-31"),
        hash=st.just(HASH),
    )
)
def test_what_is_written_is_read_again(key: Key) -> None:
    line = write_line("some-id", key)
    found, mistakes = read(f"# keys\n{line}\n")
    assert mistakes == []
    assert [each.key for each in found.entries.values()] == [key]


def test_what_people_write_is_read_too() -> None:
    found, mistakes = read(f"---\n\n# ours\nold:  {{ owner: acme, hash: {HASH} , scopes: [a, 'b'] }} # since 2019\r\n")
    assert mistakes == []
    assert found.by_id["old"].key == Key(owner="acme", scopes=["a", "b"], hash=HASH)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("nothing", "f.keys:2:1: expected one key a line, such as 'id: {hash: ..., owner: ...}'"),
        ("keys:", "f.keys:2:1: expected one key a line, such as 'id: {hash: ..., owner: ...}'"),
        ("  a: {owner: b}", "f.keys:2:1: expected one key a line, such as 'id: {hash: ..., owner: ...}'"),
        ("a_b: {owner: b, hash: HASH}", "f.keys:2:1: 'a_b': an id has letters, digits and hyphens between them, at most 64"),
        ("true: {owner: b, hash: HASH}", "f.keys:2:1: expected text as the key, found true; put it in quotes"),
        ("a: {owner: b}", "f.keys:2:1: 'a': 'hash' is missing: text"),
        ("a: {owner: b, hash: HASH", "f.keys:2:85: not valid YAML: did not find expected ',' or '}'"),
        ("a: {owner: b, hash: 12ab}", "f.keys:2:21: 'a.hash': expected the 64 hexadecimal digits of a SHA-256, in lower case"),
        ('a: {"owner": "b", "hash": "12ab"}', "f.keys:2:27: 'a.hash': expected the 64 hexadecimal digits of a SHA-256, in lower case"),
        ("a: {ownr: b, owner: b, hash: HASH}", "f.keys:2:5: unknown key 'ownr' in 'a'; did you mean 'owner'?"),
        ("a: {owner: b, owner: c, hash: HASH}", "f.keys:2:15: the key 'owner' is here a second time; the first is in line 2"),
        ('a: {"owner": "b", "owner": "c", "hash": "HASH"}', "f.keys:2:19: the key 'owner' is here a second time; the first is in line 2"),
        ("a: {owner: b, scopes: a b, hash: HASH}", "f.keys:2:23: 'a.scopes': expected a list, found 'a b'; write [a b]"),
        ("a: {owner: b, limit: often, hash: HASH}", "f.keys:2:22: 'a.limit': expected a limit such as 100/min, found 'often'"),
        ("a: {owner: b, claims: {limit: 3}, hash: HASH}", "f.keys:2:31: 'a.claims.limit': say it with 'limit' of the key itself"),
        ("a: {owner: b, expires: 2027-02-30, hash: HASH}", "f.keys:2:24: 'a.expires': found '2027-02-30', expected a date such as 2027-01-31, or a time such as 2027-01-31T12:00:00Z"),
        ("a: {owner: b, expires: '2027-01-31T12:00:00', hash: HASH}", "f.keys:2:24: 'a.expires': found '2027-01-31T12:00:00', expected a time with its zone, such as 2027-01-31T12:00:00Z"),
        ("a: {owner: ${HOME}, hash: HASH}", "f.keys:2:13: not valid YAML: did not find expected ',' or '}'"),
        ("first: {owner: b, hash: %s}" % ("b" * 64), "f.keys:2:1: the id of 'first' is here a second time; the first is in line 1"),
        ("a: {owner: b, hash: FIRST}", "f.keys:2:1: the hash of 'a' is here a second time; the first is in line 1"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_place(line: str, said: str) -> None:
    first = "0123456789abcdef" * 4
    line = line.replace("HASH", HASH).replace("FIRST", first)
    _, mistakes = read(f"first: {{owner: acme, hash: {first}}}\n{line}\n")
    assert [each[: len(said)] for each in mistakes] == [said]


def test_of_a_file_that_has_changed_only_new_lines_are_read() -> None:
    lines = [write_line(f"k{n}", Key(owner="acme", hash=f"{n:064x}")) for n in range(2000)]
    before, _ = read("\n".join(lines))
    lines[1000] = write_line("k1000", Key(owner="acme", hash=f"{1000:064x}", revoked="2026-11-24"))
    turns = read_lines("\n".join(lines).encode(), "f.keys", before, Report())
    count = 0
    while True:
        try:
            next(turns)
            count += 1
        except StopIteration as end:
            after: KeyFile = end.value
            break
    assert count < 10, "lines known already cost a turn for hundreds of them"
    fresh = [each.id for line, each in after.entries.items() if before.entries.get(line) is not each]
    assert fresh == ["k1000"]


def steps_of(scheme: KeysScheme, credential: bytes) -> int:
    """How many instructions of the interpreter, and calls, it takes to look a credential up."""
    count = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal count
        frame.f_trace_opcodes = True
        count += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        scheme.known(credential)
    finally:
        sys.settrace(before)
    return count


class Tired(ThreadPoolExecutor):
    """Threads of which so many cannot be begun, as when the machine allows no more."""

    failures = 0

    def submit(self, *arguments: Any, **more: Any) -> Any:
        if self.failures:
            self.failures -= 1
            raise RuntimeError("can't start new thread")
        return super().submit(*arguments, **more)


async def scheme_of(folder: Path, count: int) -> tuple[KeysScheme, Resources]:
    lines = [write_line(f"k{n}", Key(owner=f"owner-{n}", hash=hash_of(b"key %d" % n))) for n in range(count)]
    (folder / "f.keys").write_text("\n".join(lines))
    timer, resources, unused = Timer(asyncio.get_running_loop()), Resources(), Any
    means = Means(resources, Registry(), timer, Budget(0), folder, 1, unused, unused, unused, unused)
    scheme = KeysScheme("keys", Keys(file="f.keys", watch=0.02), means)
    await resources.start()
    return scheme, resources


async def test_one_key_of_a_hundred_thousand_is_found_in_as_many_steps_as_one_of_ten(tmp_path: Path) -> None:
    found = {}
    for count in (10, 100_000):
        scheme, resources = await scheme_of(tmp_path, count)
        principal = scheme.known(b"key %d" % (count - 1))
        assert principal is not None
        assert principal.subject == f"owner-{count - 1}"
        steps_of(scheme, b"key 0")  # Python 3.12.1 tells of instructions from the second time on that code is traced
        found[count] = steps_of(scheme, b"key %d" % (count - 1)), steps_of(scheme, b"key %d" % count)
        await resources.retire([])
    assert found[10] == found[100_000]
    assert found[10][0] > 10


async def test_keys_go_on_being_watched(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    executor = Tired()
    asyncio.get_running_loop().set_default_executor(executor)
    scheme, resources = await scheme_of(tmp_path, 1)
    assert scheme.known(b"key 0") is not None
    executor.failures = 3
    (tmp_path / "f.keys").write_text(write_line("k1", Key(owner="owner-1", hash=hash_of(b"key 1"))))
    async with asyncio.timeout(10):
        while scheme.known(b"key 0") is not None:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    await resources.retire([])
    assert executor.failures == 0
    assert sum("watching the keys of auth 'keys' failed" in each for each in caplog.messages) == 1


def test_nothing_is_no_key() -> None:
    assert read("") == (EMPTY, [])
    assert not is_well_formed(b"")
