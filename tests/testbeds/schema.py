"""Configurations held against the schema that editors are given: every one that a test starts a gateway with is valid."""

from functools import cache
from pathlib import Path
from typing import Any

import jsonschema_rs

from castlegate.config.environment import Environment
from castlegate.config.report import Report
from castlegate.config.source import Mapping, Node, Scalar, Sequence, compose
from castlegate.schema import schema


def assert_in_schema(path: Path) -> None:
    """An editor would mark nothing in this file."""
    assert not (found := marked(path.read_bytes())), f"{path} is marked wrong: {found}"


def marked(content: bytes) -> list[str]:
    """What an editor would mark: it sees the file as it is written, `${NAME}` and all."""
    root = compose(content, "g.yaml", Environment({}, Path()), Report())
    assert root is not None
    errors = _validator().iter_errors(_plain(root))
    return [f"/{chr(47).join(map(str, error.instance_path))}: {error.message}" for error in errors]


@cache
def _validator() -> Any:
    return jsonschema_rs.Draft202012Validator(schema())


def _plain(node: Node) -> Any:
    if isinstance(node, Scalar):
        return node.written if "${" in node.written else node.value
    if isinstance(node, Sequence):
        return [_plain(each) for each in node.items]
    assert isinstance(node, Mapping)
    return {entry.key: _plain(entry.node) for entry in node.entries}
