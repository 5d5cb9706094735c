"""The schema for editors: what is valid is never marked, typical mistakes are."""

from pathlib import Path
from typing import Any, Literal, Union

import jsonschema_rs
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.testbeds.cache import REPO
from tests.testbeds.schema import marked
from tests.unit.test_document import SHOP

from castlegate.config.environment import Environment
from castlegate.config.reading import read
from castlegate.config.report import Report
from castlegate.config.shapes import Shape, fields_of, is_struct, shape_of
from castlegate.config.source import compose
from castlegate.config.validation import validate
from castlegate.document import Document
from castlegate.schema import schema

FILES = sorted({*(REPO / "examples").rglob("gateway*.yaml"), *(REPO / "tests").rglob("gateway*.yaml")})
BAD = REPO / "tests/golden/config"


def test_it_is_a_schema() -> None:
    assert jsonschema_rs.meta.is_valid(schema())


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(REPO)))
def test_files_that_are_valid_are_not_marked(path: Path) -> None:
    assert marked(path.read_bytes()) == []


def test_what_the_benchmarks_and_the_other_tests_write_is_not_marked() -> None:
    http = (REPO / "benchmarks/gateway_http.yaml").read_text()
    for text in (SHOP, http + "".join(f"  {key}: {{call: origin}}\n" for key in ("GET /a", "ANY /b")),
                 (REPO / "benchmarks/gateway_kafka.yaml").read_text()):  # fmt: skip
        assert marked(text.encode()) == []


@pytest.mark.parametrize(
    "name",
    ["unknown-keys", "wrong-types", "durations", "sizes", "numbers", "booleans-of-yaml-1.1", "reference-without-quotes",
     "kafka-services", "wrong-log"],
)  # fmt: skip
def test_typical_mistakes_are_marked(name: str) -> None:
    assert marked((BAD / f"{name}.yaml").read_bytes())


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("drain: 5", "/drain"), ("drain: 5 sec", "/drain"), ("listen: {limits: {uri: 8kb}}", "/listen"),
        ("lisen: 0.0.0.0:80", "/"), ("services: {a: {kafka: ness}}", "/services/a/kafka"),
        ("services: {a: {http: http://a}}", "/services/a/http"), ("kafka: {inbox: x}", "/kafka"),
        ("routes: {GET /x: {public: yes}}", "/routes/GET ~1x/public"),
        ("routes: {GET /x: {status: 404}}", "/routes/GET ~1x/status"), ("routes: [GET /x]", "/routes"),
    ],
)  # fmt: skip
def test_a_mistake_is_marked_where_it_stands(text: str, path: str) -> None:
    [found] = marked(text.encode())
    assert found.startswith(f"{path.replace('~1', '/')}: "), found


def _values(shape: Shape) -> st.SearchStrategy[Any]:
    """YAML values that may stand there, and now and then one that may not."""
    odd = st.sampled_from([None, True, 3, -1, 2.5, "", "x", "5s", "64KiB", "${X}", "a ${X}", [], {}, ["x"], {"x": 1}])
    found: st.SearchStrategy[Any]
    if shape.kind is Any:
        found = st.recursive(odd, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text("ab"), inner))
    elif shape.unit is not None:
        found = st.sampled_from(["250us", "1.5 s", " 2m ", "1h", "1d", "7B", "10MiB", "2 GB", "1KB", "${T}s"])
    elif shape.kind is Literal:
        found = st.sampled_from([*shape.options, "${X}"])
    elif shape.kind is Union:
        found = st.one_of([_values(shape_of(option)) for option in shape.options])
    elif shape.kind is list:
        found = st.lists(_values(shape_of(shape.options[0])), max_size=2)
    elif shape.kind is dict:
        found = st.dictionaries(st.sampled_from(["GET /x", "a", "b"]), _values(shape_of(shape.options[0])), max_size=2)
    elif is_struct(shape.kind):
        fields = {name: _values(shape_of(field.type)) for name, field in fields_of(shape.kind).items()}
        found = st.fixed_dictionaries({}, optional=fields)
        short = getattr(shape.kind, "short", None)
        found = found if short is None else found | fields[short]
    else:
        found = {str: st.sampled_from(["x", "/a", "${X}", "5"]), int: st.integers(-1, 300) | st.just("${N}"),
                 float: st.floats(-1, 5) | st.integers(0, 3), bool: st.booleans() | st.just("${B}")}[shape.kind]  # fmt: skip
    return st.integers(0, 60).flatmap(lambda chance: odd if chance == 0 else found)


def _has_number_for_text(value: Any, shape: Shape) -> bool:
    """Whether a number stands for a section whose short form is text."""
    if shape.kind is Union:
        return any(_has_number_for_text(value, shape_of(option)) for option in shape.options)
    if is_struct(shape.kind):
        fields, short = fields_of(shape.kind), getattr(shape.kind, "short", None)
        if isinstance(value, (bool, int, float)):
            return short is not None and shape_of(fields[short].type).kind is str
        known = value if isinstance(value, dict) else {}
        return any(_has_number_for_text(known[name], shape_of(fields[name].type)) for name in known if name in fields)
    if shape.kind in (list, dict) and isinstance(value, (list, dict)):
        inner = shape_of(shape.options[0])
        return any(_has_number_for_text(each, inner) for each in (value if isinstance(value, list) else value.values()))
    return False


@settings(max_examples=300, deadline=None)
@given(_values(Shape(Document)))
def test_what_can_be_read_is_never_marked(value: Any) -> None:
    content = msgspec.json.encode(value)
    report = Report()
    root = compose(content, "g.yaml", Environment({"X": "x", "T": "5", "N": "7", "B": "true"}, Path()), report)
    if root is None:
        return
    document = read(root, Document, report.place())
    if report or document is None:
        return
    validate(document, report.place())
    out_of_range = any("must be" in mistake.text for mistake in report.mistakes)
    # A number in place of an address can be read, and is refused by the check of what it stands for.
    short = _has_number_for_text(value, Shape(Document))
    if not out_of_range and not short:
        assert marked(content) == []
