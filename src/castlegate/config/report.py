"""What is wrong with a configuration: every mistake, each with where it stands.

A `Place` is a spot in the document, known by its path; whoever checks or compiles something is handed the place of it
and says `at.mistake(...)`. For a document that was read from a file a place has a line and column, for one built in
Python its path is shown instead. Values that came from the environment or from files are never printed.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

DocumentPath = tuple[str | int, ...]

_COLLECTIONS = {"routes": "route", "services": "service"}
_LONGEST_SHOWN = 80
_SHORTEST_SECRET = 4  # a shorter value would be found by chance in the words of a message


class Position(NamedTuple):
    """A spot in a file; lines and columns count from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


class Block(NamedTuple):
    """A text that stands line by line below where it is announced (`|`)."""

    indent: int
    text: str


class Mistake(NamedTuple):
    """One thing to be corrected."""

    position: Position | None
    path: DocumentPath
    text: str

    def __str__(self) -> str:
        if self.position is not None:
            return f"{self.position}: {self.text}"
        return f"{show_path(self.path)}: {self.text}" if self.path else self.text


class Report:
    """Every mistake of one document, and where its nodes stand in the file if it was read from one."""

    def __init__(self, folder: Path = Path()) -> None:
        self.folder = folder  # which files named in the document are relative to
        self.positions: dict[DocumentPath, Position] = {}
        self.begins: dict[DocumentPath, int] = {}  # columns from a scalar's position to its text, if that is known
        self.blocks: dict[DocumentPath, Block] = {}
        self.written: dict[DocumentPath, str] = {}  # scalars whose value differs from what the file says
        self.substituted: dict[str, str] = {}  # value → `${NAME}` it came from
        self.unknown: set[DocumentPath] = set()  # values that the environment was to say and does not
        self._mistakes: dict[Mistake, None] = {}
        self._warnings: dict[Mistake, None] = {}
        self._spoilt: set[DocumentPath] = set()

    def __bool__(self) -> bool:
        return bool(self._mistakes)

    def __str__(self) -> str:
        return "\n".join(map(str, self.mistakes))

    @property
    def mistakes(self) -> list[Mistake]:
        """All of them, in the order of the file."""
        return sorted(self._mistakes, key=lambda m: (m.position is not None, m.position or ()))

    @property
    def warnings(self) -> list[Mistake]:
        """What is allowed and most likely not meant, in the order of the file."""
        return sorted(self._warnings, key=lambda m: (m.position is not None, m.position or ()))

    def warn(self, position: Position | None, path: DocumentPath, text: str) -> None:
        """Note a warning."""
        self._warnings[Mistake(position, path, self.without_secrets(text))] = None

    def add(self, position: Position | None, path: DocumentPath, text: str) -> None:
        """Note a mistake; the same one noted twice is one. What stands at `path` counts as spoilt."""
        self._mistakes[Mistake(position, path, self.without_secrets(text))] = None
        self.spoil(path)

    def spoil(self, path: DocumentPath) -> None:
        """What stands at `path` is not what was meant, so that complaints which only follow from it are held back."""
        self._spoilt.add(path)

    def is_spoilt(self, path: DocumentPath) -> bool:
        """Whether a mistake was noted at `path`."""
        return path in self._spoilt

    def position(self, path: DocumentPath) -> Position | None:
        """Of the node at `path`, or of the nearest one around it."""
        for end in range(len(path), -1, -1):
            found = self.positions.get(path[:end])
            if found is not None:
                return found
        return None

    def place(self, *path: str | int) -> Place:
        """The place at `path`; without one, the document's root."""
        return Place(self, path)

    def position_inside(self, path: DocumentPath, offset: int) -> Position | None:
        """Of the character at `offset` of the text at `path`; of the whole where that cannot be told."""
        position, begin = self.position(path), self.begins.get(path)
        block = self.blocks.get(path)
        if position is not None and block is not None:
            before = block.text[:offset]
            column = block.indent + offset - before.rfind("\n")
            return position._replace(line=position.line + 1 + before.count("\n"), column=column)
        if position is None or begin is None:
            return position
        return position._replace(column=position.column + begin + offset)

    def raise_if_any(self) -> None:
        """Raise `ConfigError` if there is a mistake."""
        if self._mistakes:
            raise ConfigError(self)

    def without_secrets(self, text: str) -> str:
        """`text` with names in place of what came from the environment. Messages ask `Place.shown` for values; this
        catches the one that forgot to.
        """
        for value, name in self.substituted.items():
            # A default stands in the mark itself, for everybody to see.
            if len(value) >= _SHORTEST_SECRET and value in text and value not in name:
                text = text.replace(value, name)
        return text


class ConfigError(Exception):
    """The configuration cannot be used; says every mistake, one a line."""

    def __init__(self, report: Report) -> None:
        super().__init__(str(report))
        self.report = report


class Place:
    """A node of the document: where a mistake is reported."""

    __slots__ = ("_offset", "path", "report")

    def __init__(self, report: Report, path: DocumentPath = (), offset: int | None = None) -> None:
        self.report = report
        self.path = path
        self._offset = offset  # in the text that stands here; None: all of it

    def field(self, *names: str | int) -> Place:
        """A field, an entry or an item of it."""
        return Place(self.report, self.path + names)

    def inside(self, offset: int) -> Place:
        """The same node, from that character of its text on: for what is wrong with a part of it."""
        return Place(self.report, self.path, offset)

    def mistake(self, text: str) -> None:
        """Report that what stands here is wrong: `text` says what was found and what was expected."""
        position = self.report.position(self.path)
        if self._offset is not None:
            position = self.report.position_inside(self.path, self._offset)
        if position is not None and self.path:
            text = f"{describe(self.path)}: {text}"
        self.report.add(position, self.path, text)

    def warning(self, text: str) -> None:
        """Report that what stands here can be used, but is most likely not meant."""
        position = self.report.position(self.path)
        if position is not None and self.path:
            text = f"{describe(self.path)}: {text}"
        self.report.warn(position, self.path, text)

    def refuse(self, value: str, error: ValueError) -> None:
        """Report that `value`, which stands here, cannot be used. What `error` says after a semicolon may repeat parts
        of the value, so it is only told where that stands in the file itself.
        """
        reason = str(error).partition(";")[0] if self.path in self.report.written else str(error)
        self.mistake(f"found {self.shown(value)}, {reason}")

    @property
    def known(self) -> bool:
        """Whether nothing in what stands here is left to an environment that does not say it."""
        length = len(self.path)
        return not any(path[:length] == self.path for path in self.report.unknown)

    @property
    def spoilt(self) -> bool:
        """Whether a mistake was reported right here: what depends on its value then says nothing."""
        return self.report.is_spoilt(self.path)

    def shown(self, value: object) -> str:
        """`value`, which stands here, fit for a message: as the file says it, so that no secret is printed."""
        return show(self.report.written.get(self.path, value))


def show(value: object) -> str:
    """A value in a message: text in quotes and cut to a bearable length."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str):
        return str(value)
    text = value.encode("unicode_escape").decode() if not value.isprintable() else value
    return f"'{text}'" if len(text) <= _LONGEST_SHOWN else f"'{text[:_LONGEST_SHOWN]}...'"


def show_path(path: DocumentPath) -> str:
    """`routes['GET /x'].call`, `services.users.http.instances[0]`."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        elif step.replace("-", "_").isidentifier():
            text += f".{step}" if text else step
        else:
            text += f"['{step}']"
    return text


def describe(path: DocumentPath) -> str:
    """The node at `path` in words: `'timeout' of route 'GET /x'`."""
    if not path:
        return "the document"
    if path[0] not in _COLLECTIONS or len(path) == 1:
        return f"'{show_path(path)}'"
    owner = f"{_COLLECTIONS[path[0]]} '{path[1]}'"
    return owner if len(path) == 2 else f"'{show_path(path[2:])}' of {owner}"


def near(word: str, known: Iterable[str]) -> str | None:
    """The one of `known` that `word` most likely stands for."""
    by_letters = {name.lower().replace("-", "_"): name for name in known}
    word = word.lower().replace("-", "_")
    found = get_close_matches(word, by_letters, n=1, cutoff=0.7)
    if not found:
        # GTE for GET, `integer` for `int`: less alike by count of letters than by look.
        found = [each for each in by_letters if sorted(each) == sorted(word) or (len(each) > 2 and each in word)]
    return by_letters[found[0]] if found else None


def suggest(word: str, known: Iterable[str], what: str = "") -> str:
    """`; did you mean 'x'?`, or else `; WHAT are a, b and c`."""
    names = list(known)
    found = near(word, names)
    if found is not None:
        return f"; did you mean '{found}'?"
    return f"; {what} {listed(names)}" if what and names else ""


def listed(names: Iterable[object], last: str = "and") -> str:
    """`a, b and c`; of many, the first ones."""
    words = [str(name) for name in names]
    if len(words) > 25:
        words = [*words[:25], f"{len(words) - 25} more"]
    return f" {last} ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
