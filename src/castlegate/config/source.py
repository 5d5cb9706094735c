"""A YAML file as a tree of nodes that know where they stand, in YAML 1.2's sense of scalars.

Built from the parser's events, so that depth, aliases and repeated keys are bounded and refused here. Of plain
scalars only `true` and `false` are booleans, only `null`, `~` and nothing are null, and numbers are decimal ones
without leading zeros: `no`, `on`, `010`, `1:30` and dates are text. Knows nothing of what the document means.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import yaml
from yaml.cyaml import CParser  # type: ignore[attr-defined]  # its stubs do not export it

from castlegate.config.environment import Environment
from castlegate.config.report import Position, Report

LARGEST_FILE = 8 * 1024 * 1024  # bytes
_DEEPEST = 64
_MOST_ALIASED = 10_000  # nodes reached through aliases

_NOT_PRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
_INT = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,17})")
_FLOAT = re.compile(r"[-+]?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]{1,2})?")
_WORDS: dict[str, bool | None] = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
}  # fmt: skip


class Scalar:
    """Text, a number, true, false or null."""

    __slots__ = (
        "begin", "broken", "indent", "plain", "position", "substituted", "template", "text", "value", "written",
    )  # fmt: skip

    def __init__(self, position: Position, written: str, *, plain: bool) -> None:
        self.position = position
        self.written = written
        self.plain = plain  # not in quotes
        self.begin: int | None = None  # columns before its text, where the file holds that letter by letter
        self.indent: int | None = None  # columns before each of its lines, where they stand below (`|`)
        self.text = written  # after substitution
        self.template = written  # the same as a template: what was put in holds no references
        self.value: str | int | float | bool | None = resolve(written) if plain else written
        self.substituted = False
        self.broken = False


class Entry(NamedTuple):
    """A key of a mapping and its value."""

    key: str
    position: Position
    node: Node


class Mapping:
    """Entries in the order of the file."""

    __slots__ = ("entries", "flow", "position")

    def __init__(self, position: Position, *, flow: bool) -> None:
        self.position = position
        self.flow = flow  # written with braces
        self.entries: list[Entry] = []


class Sequence:
    """A list."""

    __slots__ = ("items", "position")

    def __init__(self, position: Position) -> None:
        self.position = position
        self.items: list[Node] = []


Node = Scalar | Mapping | Sequence


def resolve(text: str) -> str | int | float | bool | None:
    """The value of a plain scalar."""
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text):
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text


def compose(
    content: bytes, file: str, environment: Environment, report: Report, *, first_line: int = 1
) -> Mapping | None:
    """The document's tree; what is wrong is in the report, and None where nothing could be made of it. `first_line`:
    where in the file the content begins.
    """
    root = compose_node(content, file, environment, report, first_line=first_line)
    if root is None or isinstance(root, Mapping):
        return root
    if isinstance(root, Scalar) and root.value is None:
        report.add(root.position, (), "the file is empty; it needs at least 'routes'")
    else:
        report.add(root.position, (), "expected a mapping of settings such as 'listen', 'services' and 'routes'")
    return None


def compose_node(
    content: bytes, file: str, environment: Environment, report: Report, *, first_line: int = 1
) -> Node | None:
    """The same for any YAML; nothing at all is null."""
    start = Position(file, first_line, 1)
    if len(content) > LARGEST_FILE:
        report.add(start, (), f"the file is larger than {LARGEST_FILE // 2**20} MiB")
        return None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + first_line
        column = error.start - content.rfind(b"\n", 0, error.start)
        report.add(Position(file, line, column), (), f"not UTF-8: byte 0x{content[error.start]:02x}")
        return None
    if (wrong := _NOT_PRINTABLE.search(text)) is not None:
        line, column = (
            text.count("\n", 0, wrong.start()) + first_line,
            wrong.start() - text.rfind("\n", 0, wrong.start()),
        )
        report.add(Position(file, line, column), (), f"the character U+{ord(wrong[0]):04X} is not allowed in YAML")
        return None
    try:
        root = _Composer(text, start, environment, report).document()
    except _Refused as refused:
        report.add(refused.position, (), refused.text)
        return None
    except yaml.YAMLError as error:
        position, explanation = _explain(error, text, start)
        report.add(position, (), explanation)
        return None
    return Scalar(start, "", plain=True) if root is None else root


class _Refused(Exception):
    """Valid YAML that is not accepted and cannot be read on."""

    def __init__(self, position: Position, text: str) -> None:
        self.position = position
        self.text = text


class _Composer:
    """From events to nodes, one pass."""

    def __init__(self, text: str, start: Position, environment: Environment, report: Report) -> None:
        self._parser: Any = CParser(text)
        self._start = start
        self._lines = text.split("\n")
        self._environment = environment
        self._report = report
        self._anchors: dict[str, tuple[Node, int]] = {}
        self._open: set[str] = set()
        self._nodes = 0
        self._aliased = 0

    def document(self) -> Node | None:
        root: Node | None = None
        while True:
            event = self._parser.get_event()
            if isinstance(event, yaml.StreamEndEvent):
                return root
            if isinstance(event, (yaml.StreamStartEvent, yaml.DocumentEndEvent)):
                continue
            if isinstance(event, yaml.DocumentStartEvent):
                if root is not None:
                    raise _Refused(self._at(event), "a second document begins here; expected one document a file")
                root = self._node(self._parser.get_event(), 0)

    def _node(self, event: Any, depth: int) -> Node:
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event)
        position = self._at(event)
        if depth > _DEEPEST:
            raise _Refused(position, f"nested deeper than {_DEEPEST} levels")
        if event.tag is not None and event.tag != "!":
            self._report.add(position, (), f"the tag '{event.tag}' is not understood; write the value without a tag")
        before = self._nodes
        self._nodes += 1
        if event.anchor is not None:
            self._open.add(event.anchor)
        if isinstance(event, yaml.ScalarEvent):
            node: Node = self._scalar(event, position)
        elif isinstance(event, yaml.SequenceStartEvent):
            node = self._sequence(position, depth)
        else:
            node = self._mapping(event, position, depth)
        if event.anchor is not None:
            self._open.discard(event.anchor)
            self._anchors[event.anchor] = (node, self._nodes - before)
        return node

    def _alias(self, event: Any) -> Node:
        if event.anchor in self._open:
            raise _Refused(self._at(event), f"'*{event.anchor}' stands inside of what it refers to")
        if event.anchor not in self._anchors:
            raise _Refused(self._at(event), f"nothing is marked '&{event.anchor}' above")
        node, nodes = self._anchors[event.anchor]
        self._nodes += nodes
        self._aliased += nodes
        if self._aliased > _MOST_ALIASED:
            raise _Refused(self._at(event), f"aliases multiply to more than {_MOST_ALIASED} values")
        return node

    def _scalar(self, event: Any, position: Position) -> Scalar:
        node = Scalar(position, event.value, plain=event.implicit[0])
        if "${" not in event.value:
            node.begin = _begin(event)
            if event.style == "|":
                node.indent = _indent(event, self._lines)
            return node
        found = self._environment.substitute(event.value)
        for mistake in found.mistakes:
            self._report.add(position, (), mistake)
        node.broken = bool(found.mistakes)
        node.text, node.template = found.text, found.template
        node.substituted = bool(found.values)
        node.value = resolve(found.text) if node.plain else found.text
        self._report.substituted.update(found.values)
        return node

    def _sequence(self, position: Position, depth: int) -> Sequence:
        node = Sequence(position)
        while not isinstance(event := self._parser.get_event(), yaml.SequenceEndEvent):
            node.items.append(self._node(event, depth + 1))
        return node

    def _mapping(self, start: Any, position: Position, depth: int) -> Mapping:
        node = Mapping(position, flow=bool(start.flow_style))
        seen: dict[str, int] = {}
        while not isinstance(event := self._parser.get_event(), yaml.MappingEndEvent):
            key_at = self._at(event)
            problem = self._key_problem(event, depth)
            if problem is None and event.value in seen:
                problem = f"the key '{event.value}' is here a second time; the first is in line {seen[event.value]}"
            value = self._node(self._parser.get_event(), depth + 1)
            if problem is not None:
                self._report.add(key_at, (), problem)
                continue
            seen[event.value] = key_at.line
            node.entries.append(Entry(event.value, key_at, value))
        return node

    def _key_problem(self, event: Any, depth: int) -> str | None:
        """What is wrong with a key, which must be plain text."""
        if not isinstance(event, yaml.ScalarEvent):
            self._node(event, depth + 1)
            return "expected text as the key; put it in quotes if its braces or brackets are meant"
        if event.tag is not None and event.tag != "!":
            return f"the tag '{event.tag}' is not understood; write the key without a tag"
        if event.value == "<<" and event.implicit[0]:
            return "merge keys ('<<') are not understood; repeat what is meant, or use 'defaults'"
        if event.implicit[0] and not isinstance(resolve(event.value), str):
            return f"expected text as the key, found {event.value or 'nothing'}; put it in quotes"
        if "${" in event.value:
            return f"'{event.value}': only values can come from the environment, keys cannot"
        return None

    def _at(self, event: Any) -> Position:
        mark = event.start_mark
        return Position(self._start.file, mark.line + self._start.line, mark.column + 1)


def _begin(event: Any) -> int | None:
    """Where a scalar's text begins behind its mark; None with escapes, folded lines, an anchor or in a block."""
    quotes = 1 if event.style in ("'", '"') else 0
    start, end = event.start_mark, event.end_mark
    whole = start.line == end.line and end.column - start.column == len(event.value) + 2 * quotes
    return quotes if whole else None


def _indent(event: Any, lines: list[str]) -> int | None:
    """How far the lines of a block are moved to the right; None where it has none to tell by."""
    for number, line in enumerate(event.value.split("\n"), event.start_mark.line + 1):
        if line and number < len(lines):
            return len(lines[number].rstrip("\r")) - len(line)
    return None


def _explain(error: yaml.YAMLError, text: str, start: Position) -> tuple[Position, str]:
    """Where the syntax is broken and what to do about it, in words of people rather than of the parser."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    if mark is None:
        return start, f"not valid YAML: {error}"
    lines = text.splitlines() or [""]
    line = lines[mark.line] if mark.line < len(lines) else ""
    character = line[mark.column : mark.column + 1]
    explanation = f"not valid YAML: {getattr(error, 'problem', None) or error}"
    if character == "\t":
        explanation = "a tab; YAML is indented with spaces"
    elif character and character in "@`%":
        explanation = f"a value cannot begin with '{character}'; put it in quotes"
    elif "${" in line and "did not find expected" in explanation:
        explanation += '; inside braces and brackets ${NAME} must stand in quotes: "${NAME}"'
    elif "mapping values are not allowed" in explanation:
        explanation = "not valid YAML: a second ': ' in one line, or a line indented more than its neighbours"
    elif "end of stream" in explanation:
        context = getattr(error, "context_mark", None)
        if context is not None:
            mark = context
        explanation = "not valid YAML: the quotes opened here are never closed"
    return Position(start.file, mark.line + start.line, mark.column + 1), explanation
