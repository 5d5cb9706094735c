"""The file of API keys: one a line, `id: {owner: ..., hash: ...}`, in YAML with comments; only hashes are in it.

A line is read once: when the file changes, only the lines that are new cost anything. Those in the form that
`write_line` gives them are JSON too, and read as such, which takes a twentieth of the time. So that nobody waits for a
long file, `read_lines` has its turns.
"""

from __future__ import annotations

import math
import re
from collections.abc import Generator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from castlegate.config.environment import Environment
from castlegate.config.reading import read
from castlegate.config.report import DocumentPath, Place, Position, Report, show
from castlegate.config.source import Mapping as MappingNode
from castlegate.config.source import compose, resolve
from castlegate.config.validation import validate
from castlegate.principal import Principal
from castlegate.schemes.api_key import ID

LARGEST = 64 * 1024 * 1024  # bytes: some 300,000 keys

_HASH = re.compile(r"[0-9a-f]{64}")
LIMIT = re.compile(r"[1-9][0-9]{0,11}/(?:[1-9][0-9]{0,5})?(?:s|sec|second|m|min|minute|h|hour|d|day|month)")
_ENTRY = re.compile(r"([^\s#:{}'\"]+): +(\{.*)")
_LIMITED = re.compile(rb"^[^#\n]*[{,] *\"?limit\"?: ", re.MULTILINE)
_TURN = 16  # lines read for the first time between two turns
_QUICK_TURN = 512  # lines known already


class Key(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What is known of one key."""

    owner: str
    """Whose it is: the subject of the principal."""
    scopes: list[str] = []
    """What it may do."""
    claims: dict[str, Any] = {}
    """More that is known of its owner, for policies and services."""
    limit: str | None = None
    """How often it may be used, such as `100/min`: `{claims.limit}` for the policy that limits."""
    created: str | None = None
    """When it was made, as a note."""
    expires: str | None = None
    """A date, or a time with its zone (`2027-01-31T12:00:00Z`), from which on it is refused. A date begins in UTC."""
    revoked: str | None = None
    """Since when it is refused for good. What is said here does not matter, only that something is."""
    hash: str
    """SHA-256 of the whole key, in hexadecimal."""

    def check(self, at: Place) -> None:
        """The forms of hash, limit and date."""
        if not _HASH.fullmatch(self.hash):
            at.field("hash").mistake("expected the 64 hexadecimal digits of a SHA-256, in lower case")
        if not self.owner:
            at.field("owner").mistake("expected text, found nothing")
        if self.limit is not None and not LIMIT.fullmatch(self.limit):
            at.field("limit").mistake(f"expected a limit such as 100/min, found {show(self.limit)}")
        if "limit" in self.claims:
            at.field("claims", "limit").mistake("say it with 'limit' of the key itself")
        if self.expires is not None:
            try:
                unix_time(self.expires)
            except ValueError as error:
                at.field("expires").refuse(self.expires, error)


class Line:
    """A key and its id, ready to be looked up."""

    __slots__ = ("digest", "expires", "id", "key", "principal")

    def __init__(self, identity: str, key: Key) -> None:
        self.id = identity
        self.key = key
        self.digest = bytes.fromhex(key.hash)
        self.expires = math.inf if key.expires is None else unix_time(key.expires)  # Unix time
        self.principal: Principal | None = None  # made when it is first needed, by whoever looks it up


class KeyFile(NamedTuple):
    """What a file holds."""

    entries: Mapping[str, Line]
    """By the line's text, for whoever reads the file again."""

    @property
    def by_id(self) -> dict[str, Line]:
        """The keys."""
        return {line.id: line for line in self.entries.values()}


EMPTY = KeyFile({})

_decode = msgspec.json.Decoder(Key).decode


def speaks_of_limits(content: bytes) -> bool:
    """Whether a key has a limit of its own, as far as is seen at a glance."""
    return _LIMITED.search(content) is not None


def unix_time(text: str) -> float:
    """Of a date or of a time. Raises `ValueError`."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("expected a date such as 2027-01-31, or a time such as 2027-01-31T12:00:00Z") from None
    if len(text) == len("2027-01-31"):
        moment = moment.replace(tzinfo=UTC)
    if moment.tzinfo is None:
        raise ValueError("expected a time with its zone, such as 2027-01-31T12:00:00Z")
    return moment.timestamp()


def write_line(identity: str, key: Key) -> str:
    """The key as a line of the file."""
    return f"{identity}: {msgspec.json.format(msgspec.json.encode(key), indent=0).decode()}"


def load_text(path: Path) -> bytes:
    """The content. Raises `OSError`, and `ValueError` where there is too much of it."""
    with path.open("rb") as file:
        content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise ValueError(f"it is larger than {LARGEST // 2**20} MiB")
    return content


def read_whole(content: bytes, name: str, report: Report) -> KeyFile:
    """All of it at once."""
    turns = read_lines(content, name, EMPTY, report)
    while True:
        try:
            next(turns)
        except StopIteration as end:
            found: KeyFile = end.value
            return found


def read_lines(content: bytes, name: str, before: KeyFile, report: Report) -> Generator[None, None, KeyFile]:
    """The keys in it, those of `before` not read again; every mistake goes to the report, at its place in the file."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        broken = content.count(b"\n", 0, error.start) + 1
        report.add(Position(name, broken, 1), (), f"not UTF-8: byte 0x{content[error.start]:02x}")
        return EMPTY
    found: dict[str, Line] = {}
    ids: dict[str, int] = {}
    hashes: dict[str, int] = {}
    new = 0
    for number, written in enumerate(text.split("\n"), 1):
        if number % _QUICK_TURN == 0:
            yield
        line = written.rstrip()
        if not line or line.startswith(("#", "---")):
            continue
        entry = before.entries.get(line)
        if entry is None:
            entry = _read_line(line, Position(name, number, 1), report)
            new += 1
            if new % _TURN == 0:
                yield
        if entry is None:
            continue
        first_id = ids.setdefault(entry.id, number)
        first_hash = hashes.setdefault(entry.key.hash, number)
        if not first_id == first_hash == number:
            what, first = ("id", first_id) if first_id != number else ("hash", first_hash)
            report.add(
                Position(name, number, 1),
                (entry.id,),
                f"the {what} of '{entry.id}' is here a second time; the first is in line {first}",
            )
        found[line] = entry
    return KeyFile(found)


def _read_line(line: str, start: Position, report: Report) -> Line | None:
    """One key; None after a mistake."""
    match = _ENTRY.fullmatch(line)
    if match is None:
        report.add(start, (), "expected one key a line, such as 'id: {hash: ..., owner: ...}'")
        return None
    own = Report(report.folder)
    key = _as_written(line, match[1], match[2])
    if key is not None:
        key.check(own.place(match[1]))
    if key is None or own:
        # For its mistakes too: here they have their columns.
        own = Report(report.folder)
        entries = compose(line.encode(), start.file, Environment({}, report.folder), own, first_line=start.line)
        key = _key_of(entries, match[1], own)
    for mistake in own.mistakes:
        at = mistake.position
        if at is not None and at.line != start.line:  # what is missing at the end of it
            at = Position(start.file, start.line, len(line) + 1)
        report.add(at, mistake.path, mistake.text)
    if key is None or own:
        return None
    return Line(match[1], key)


def _as_written(line: str, identity: str, rest: str) -> Key | None:
    """The key of a line that `write_line` made, letter by letter."""
    if not ID.fullmatch(identity) or not isinstance(resolve(identity), str):
        return None
    try:
        key = _decode(rest)
    except (msgspec.DecodeError, RecursionError):
        return None
    return key if write_line(identity, key) == line else None


def _key_of(entries: MappingNode | None, identity: str, report: Report) -> Key | None:
    if entries is None or not entries.entries:
        return None
    entry = entries.entries[0]
    path: DocumentPath = (identity,)
    report.positions[path] = entry.position
    at = report.place(*path)
    if not ID.fullmatch(identity):
        at.mistake("an id has letters, digits and hyphens between them, at most 64")
        return None
    key = read(entry.node, Key, at)
    if key is not None:
        validate(key, at)
    return key
