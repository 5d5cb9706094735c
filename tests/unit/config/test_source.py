"""YAML as it is read: scalars in YAML 1.2's sense, positions, environment. What is refused is told by tests/golden."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from castlegate.config.environment import Environment
from castlegate.config.report import Position, Report
from castlegate.config.source import LARGEST_FILE, Mapping, Node, Scalar, Sequence, compose

HERE = Path(__file__).parent


def read(content: str | bytes, variables: dict[str, str] | None = None) -> tuple[Mapping | None, Report]:
    report = Report()
    raw = content.encode() if isinstance(content, str) else content
    return compose(raw, "g.yaml", Environment(variables or {}, HERE), report), report


def plain(node: Node | None) -> object:
    if isinstance(node, Mapping):
        return {entry.key: plain(entry.node) for entry in node.entries}
    if isinstance(node, Sequence):
        return [plain(item) for item in node.items]
    return node.value if isinstance(node, Scalar) else None


def value(text: str, variables: dict[str, str] | None = None) -> object:
    root, report = read(f"a: {text}\n", variables)
    assert not report, report
    assert root is not None
    return plain(root.entries[0].node)


NOT_WHAT_IT_SEEMS = """no on off yes y N tRue 010 0x10 0o7 1:30 190:20:30 2024-01-01 2024-01-01T10:00:00Z 1_000
    .5 5. .inf .nan = + 0.0.0.0:80 1e5x"""


@pytest.mark.parametrize("text", NOT_WHAT_IT_SEEMS.split())
def test_what_only_yaml_1_1_or_people_in_a_hurry_understand_is_text(text: str) -> None:
    assert value(text) == text


@pytest.mark.parametrize(
    ("text", "meaning"),
    [("true", True), ("False", False), ("null", None), ("~", None), ("", None), ("0", 0), ("-12", -12), ("+3", 3),
     ("1.50", 1.5), ("-0.5e-3", -0.0005), ("1e3", 1000.0), ('"5"', "5"), ("'true'", "true"), ("!", ""), ('""', "")],
)  # fmt: skip
def test_scalars_of_the_core_schema(text: str, meaning: object) -> None:
    assert value(text) == meaning
    assert type(value(text)) is type(meaning)


def test_nodes_know_where_they_stand() -> None:
    root, _ = read("a:\n  - b: 1\n    ç: [x, 'y']\n")
    assert root is not None
    [(key, at_key, items)] = root.entries
    assert (key, at_key) == ("a", Position("g.yaml", 1, 1))
    assert isinstance(items, Sequence)
    [inner] = items.items
    assert isinstance(inner, Mapping)
    assert [entry.position for entry in inner.entries] == [Position("g.yaml", 2, 5), Position("g.yaml", 3, 5)]
    last = inner.entries[1].node
    assert isinstance(last, Sequence)
    assert [item.position.column for item in last.items] == [9, 12]


def test_aliases_stand_for_what_they_name() -> None:
    root, report = read("a: &x [1, 2]\nb: *x\n")
    assert plain(root) == {"a": [1, 2], "b": [1, 2]}
    assert not report


def test_variables_are_put_in_where_they_are_set_or_have_a_default() -> None:
    variables = {"HOST": "kafka", "PORT": "9092", "EMPTY": ""}
    assert value('"${HOST}:${PORT}"', variables) == "kafka:9092"
    assert value("${NONE:-localhost}:1", variables) == "localhost:1"
    assert value("${EMPTY:-x}", variables) == "x"
    assert value("a${EMPTY}b", variables) == "ab"
    assert value("${NONE:-}", variables) is None
    assert value("$${HOST} $HOST $", variables) == "${HOST} $HOST $"


def test_a_variable_alone_and_without_quotes_has_a_type() -> None:
    assert value("${PORT}", {"PORT": "9092"}) == 9092
    assert value('"${PORT}"', {"PORT": "9092"}) == "9092"


def test_what_was_put_in_is_not_read_as_references_or_variables() -> None:
    root, _ = read("a: '{path.id} ${X}'\n", {"X": "{b}${Y}"})
    assert root is not None
    node = root.entries[0].node
    assert isinstance(node, Scalar)
    assert node.text == "{path.id} {b}${Y}"
    assert node.template == "{path.id} {{b}}${{Y}}"


def test_secrets_come_from_files_without_their_line_end(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("s3cret\n")
    report = Report()
    root = compose(
        b"a: ${file:password}\nb: x${file:%s}" % bytes(tmp_path / "password"),
        "g.yaml",
        Environment({}, tmp_path),
        report,
    )
    assert plain(root) == {"a": "s3cret", "b": "xs3cret"}


@pytest.mark.parametrize("content", [b"a" * 70_000, b"\xff\xfe"])
def test_a_file_that_is_no_secret_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "big").write_bytes(content)
    report = Report()
    compose(b"a: ${file:big}", "g.yaml", Environment({}, tmp_path), report)
    assert len(report.mistakes) == 1


def test_a_file_without_end_is_not_read() -> None:
    root, report = read(b"#" * (LARGEST_FILE + 1))
    assert root is None
    assert str(report) == "g.yaml:1:1: the file is larger than 8 MiB"


@given(st.text() | st.lists(st.sampled_from(list("ab:-?[]{},&*!|>'\"%@`#\n \t${}<"))).map("".join))
def test_anything_is_either_read_or_refused_with_its_place(content: str) -> None:
    root, report = read(content.encode("utf-8", "replace"), {"a": "b"})
    assert root is not None or report
    assert all(mistake.position is not None and mistake.text for mistake in report.mistakes)
