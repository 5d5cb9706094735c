"""Answers in other shapes: members picked, dropped, renamed, and whatever can be said in JMESPath.

What is not looked into is passed on as the bytes that it came in, so numbers keep every digit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import jmespath
import msgspec
from jmespath.exceptions import JMESPathError, LexerError, ParseError

from castlegate.composition.contents import bad_answer, parse, too_deep
from castlegate.errors import CallFailed, Kinds, Outcome
from castlegate.expressions.syntax import Unreadable

LONGEST = 4096  # characters of an expression
_MOST_LISTS = 8  # within one another

Shape = Callable[[bytes], bytes]
Members = dict[str, msgspec.Raw]
Tree = Mapping[str, "Tree | None"]  # names, and what is wanted inside of them; None for all

_members = msgspec.json.Decoder(Members).decode
_items = msgspec.json.Decoder(list[msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode


def is_object(content: bytes) -> bool:
    """Of bytes that are JSON."""
    return content.lstrip()[:1] == b"{"


def is_list(content: bytes) -> bool:
    """Of bytes that are JSON."""
    return content.lstrip()[:1] == b"["


def members_of(content: bytes) -> Members:
    """Those of bytes that are a JSON object; of members with one name the last."""
    return _members(content)


def items_of(content: bytes) -> list[msgspec.Raw]:
    """Those of bytes that are a JSON list."""
    return _items(content)


def members_shape(pick: Sequence[str] | None, drop: Sequence[str], rename: Mapping[str, str]) -> Shape | None:
    """What picks, drops and renames, in this order; None where nothing is to be done."""
    if pick is None and not drop and not rename:
        return None
    wanted, unwanted = None if pick is None else _tree(pick), _tree(drop)

    def shape(content: bytes) -> bytes:
        if wanted is not None:
            content = _picked(content, wanted)
        if unwanted:
            content = _dropped(content, unwanted)
        return _renamed(content, rename) if rename else content

    return shape


def expression_shape(text: str, most: int) -> Shape:
    """What an expression makes of at most so many bytes."""
    expression = compiled(text)

    def shape(content: bytes) -> bytes:
        if len(content) > most:
            raise bad_answer(f"The answer has more than {most} bytes, too many to be reshaped.")
        try:
            return _encode(expression.search(parse(content)))
        except (JMESPathError, RecursionError, TypeError, ValueError) as error:
            detail = "The answer does not have the form that it is to be reshaped from."
            raise CallFailed(Kinds.BAD_ANSWER, Outcome.ANSWERED, detail) from error

    return shape


@lru_cache(1024)
def compiled(text: str) -> Any:
    """A JMESPath expression. Raises `Unreadable`."""
    if len(text) > LONGEST:
        raise Unreadable(0, f"expected at most {LONGEST} characters, found {len(text)}")
    try:
        expression = jmespath.compile(text)
        _check_functions(expression.parsed)
    except LexerError as error:
        raise Unreadable(error.lexer_position, f"this is not JMESPath: {error.message}") from error
    except ParseError as error:
        raise Unreadable(min(error.lex_position, len(text)), "this is not JMESPath") from error
    except JMESPathError as error:
        raise Unreadable(0, f"this is not JMESPath: {error}") from error
    return expression


def _check_functions(node: Any) -> None:
    """The library looks functions up when they are called."""
    if node["type"] == "function_expression" and node["value"] not in jmespath.functions.Functions.FUNCTION_TABLE:
        known = ", ".join(sorted(jmespath.functions.Functions.FUNCTION_TABLE))
        raise Unreadable(0, f"JMESPath has no function '{node['value']}'; it has {known}")
    for child in node["children"]:
        if isinstance(child, dict):
            _check_functions(child)


def _tree(paths: Sequence[str]) -> Tree:
    tree: dict[str, Any] = {}
    for path in paths:
        *steps, last = path.split(".")
        inner: Any = tree
        for step in steps:
            inner = inner.setdefault(step, {})
            if inner is None:
                break  # all of it is named elsewhere
        else:
            inner[last] = None
    return tree


def _within(content: bytes, change: Callable[[Members], Members], lists: int = _MOST_LISTS) -> bytes:
    """An object changed, or each in a list; anything else as it is. Each list within a list is gone through once more,
    so there may not be many.
    """
    if is_object(content):
        return _encode(change(_members(content)))
    if is_list(content):
        if not lists:
            raise too_deep()
        return b"[" + b",".join([_within(bytes(item), change, lists - 1) for item in _items(content)]) + b"]"
    return content


def _picked(content: bytes, tree: Tree) -> bytes:
    def change(members: Members) -> Members:
        return {
            name: members[name] if inner is None else msgspec.Raw(_picked(bytes(members[name]), inner))
            for name, inner in tree.items()
            if name in members
        }

    return _within(content, change)


def _dropped(content: bytes, tree: Tree) -> bytes:
    def change(members: Members) -> Members:
        left = {}
        for name, member in members.items():
            inner = tree.get(name, {})
            if inner is not None:
                left[name] = msgspec.Raw(_dropped(bytes(member), inner)) if inner else member
        return left

    return _within(content, change)


def _renamed(content: bytes, names: Mapping[str, str]) -> bytes:
    return _within(content, lambda members: {names.get(name, name): member for name, member in members.items()})
