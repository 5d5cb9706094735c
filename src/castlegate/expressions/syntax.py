"""The syntax of CEL: text to a tree whose nodes know where they stand (the grammar of the CEL specification).

The library that evaluates expressions tells neither a tree nor positions. This reads what it reads, without messages
and what it has not switched on (`.?`, `[?`), and is stricter where that is clearer: names do not begin with `_`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

DEEPEST = 32  # brackets inside one another: the evaluating library has a bound of its own beyond this
LONGEST_CHAIN = 250  # operators, selections and indexes of an expression

_TOKEN = re.compile(
    r"""(?P<space>(?:[ \t\r\n\f]|//[^\n]*)+)
    |(?P<double>[0-9]+\.[0-9]+(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+|\.[0-9]+(?:[eE][-+]?[0-9]+)?)
    |(?P<int>(?:0[xX][0-9A-Fa-f]+|[0-9]+)[uU]?)
    |(?P<text>(?P<prefix>[rRbB]{0,2})(?P<quoted>\"{3}(?:[^\\]|\\.)*?\"{3}|'{3}(?:[^\\]|\\.)*?'{3}
        |\"(?:[^\\\"\r\n]|\\.)*\"|'(?:[^\\'\r\n]|\\.)*'))
    |(?P<name>[A-Za-z_][A-Za-z0-9_]*)
    |(?P<sign>&&|\|\||[<>=!]=|[-+*/%<>!?:.,()\[\]{}])""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPE = re.compile(r"\\(?:x([0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|([0-3][0-7]{2})|(.))", re.DOTALL)
_PLAIN = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"} | dict.fromkeys("\\?\"'`")
_RESERVED = frozenset(
    ("as", "break", "const", "continue", "else", "for", "function", "if", "import", "let", "loop", "package",
     "namespace", "return", "var", "void", "while")
)  # fmt: skip
_CONSTANTS = {"true": True, "false": False, "null": None}

# From the loosest to the tightest.
_BINARY: tuple[frozenset[str], ...] = (
    frozenset(("||",)),
    frozenset(("&&",)),
    frozenset(("<", "<=", ">=", ">", "==", "!=", "in")),
    frozenset(("+", "-")),
    frozenset(("*", "/", "%")),
)


class Unreadable(Exception):
    """The text is no expression: what is wrong, and from which character on."""

    def __init__(self, offset: int, text: str) -> None:
        super().__init__(text)
        self.offset = offset
        self.text = text


@dataclass(frozen=True, slots=True)
class Node:
    """A part of an expression; `start` and `end` are offsets into its text."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Literal(Node):
    """A constant. `kind` is the name of its type."""

    kind: str
    value: object


@dataclass(frozen=True, slots=True)
class Name(Node):
    """A variable."""

    name: str


@dataclass(frozen=True, slots=True)
class Select(Node):
    """`target.name`; `at` is where the name begins."""

    target: Node
    name: str
    at: int


@dataclass(frozen=True, slots=True)
class Index(Node):
    """`target[key]`."""

    target: Node
    key: Node


@dataclass(frozen=True, slots=True)
class Call(Node):
    """`name(...)` or `target.name(...)`; `at` is where the name begins."""

    target: Node | None
    name: str
    at: int
    arguments: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Items(Node):
    """A list."""

    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Members(Node):
    """A map."""

    members: tuple[tuple[Node, Node], ...]


@dataclass(frozen=True, slots=True)
class Unary(Node):
    """`!` or `-`."""

    sign: str
    operand: Node


@dataclass(frozen=True, slots=True)
class Binary(Node):
    """Two operands; `at` is where the sign between them begins."""

    sign: str
    at: int
    left: Node
    right: Node


@dataclass(frozen=True, slots=True)
class Choice(Node):
    """`condition ? yes : no`."""

    condition: Node
    yes: Node
    no: Node


class _Token(NamedTuple):
    kind: str
    text: str
    start: int
    end: int


def parse(text: str) -> Node:
    """The tree. Raises `Unreadable`."""
    return _Parser(_tokens(text), len(text)).whole()


def conjuncts(node: Node) -> list[Node]:
    """The parts of an expression that must all be true."""
    if isinstance(node, Binary) and node.sign == "&&":
        return [*conjuncts(node.left), *conjuncts(node.right)]
    return [node]


def _tokens(text: str) -> list[_Token]:
    tokens, end = [], 0
    while end < len(text):
        found = _TOKEN.match(text, end)
        if found is None:
            what = "a text that does not end" if text[end] in "\"'" else f"the character '{text[end]}'"
            hint = "; write '==' to compare" if text[end] == "=" else ""
            raise Unreadable(end, f"{what} cannot stand here{hint}")
        kind = found.lastgroup or ""
        kind = "text" if kind in ("prefix", "quoted") else kind
        if kind != "space":
            tokens.append(_Token(kind, found[0], end, found.end()))
        end = found.end()
    return tokens


class _Parser:
    """Recursive descent: one method for each level of the grammar."""

    def __init__(self, tokens: Sequence[_Token], length: int) -> None:
        self._tokens = tokens
        self._next = 0
        self._end = _Token("end", "the end", length, length)
        self._depth = 0
        self._links = 0

    def whole(self) -> Node:
        node = self._expression()
        left = self._peek()
        if left.kind != "end":
            raise Unreadable(left.start, f"'{left.text}' cannot stand here")
        return node

    def _peek(self) -> _Token:
        return self._tokens[self._next] if self._next < len(self._tokens) else self._end

    def _take(self) -> _Token:
        token = self._peek()
        self._next += 1
        return token

    def _accept(self, *signs: str) -> _Token | None:
        token = self._peek()
        if token.text in signs and token.kind in ("sign", "name"):
            return self._take()
        return None

    def _expect(self, sign: str) -> _Token:
        token = self._take()
        if token.kind != "sign" or token.text != sign:
            found = "the end" if token.kind == "end" else f"'{token.text}'"
            raise Unreadable(token.start, f"expected '{sign}', found {found}")
        return token

    def _count(self, link: _Token) -> None:
        self._links += 1
        if self._links > LONGEST_CHAIN:
            raise Unreadable(link.start, f"more than {LONGEST_CHAIN} operators and selections")

    def _expression(self) -> Node:
        self._depth += 1
        if self._depth > DEEPEST:
            raise Unreadable(self._peek().start, f"nested deeper than {DEEPEST} levels")
        condition = self._binary(0)
        if self._accept("?"):
            yes = self._binary(0)
            self._expect(":")
            no = self._expression()
            condition = Choice(condition.start, no.end, condition, yes, no)
        self._depth -= 1
        return condition

    def _binary(self, level: int) -> Node:
        if level == len(_BINARY):
            return self._unary()
        left = self._binary(level + 1)
        while sign := self._accept(*_BINARY[level]):
            self._count(sign)
            right = self._binary(level + 1)
            left = Binary(left.start, right.end, sign.text, sign.start, left, right)
        return left

    def _unary(self) -> Node:
        signs = []
        while sign := self._accept("!", "-"):
            signs.append(sign)
            if len(signs) > DEEPEST:
                raise Unreadable(sign.start, f"nested deeper than {DEEPEST} levels")
        operand = self._member()
        for sign in reversed(signs):
            operand = Unary(sign.start, operand.end, sign.text, operand)
        return operand

    def _member(self) -> Node:
        node = self._primary()
        while sign := self._accept(".", "["):
            self._count(sign)
            if sign.text == "[":
                key = self._expression()
                node = Index(node.start, self._expect("]").end, node, key)
                continue
            name = self._take()
            if name.kind != "name" or name.text in ("in", *_CONSTANTS):
                raise Unreadable(name.start, "expected a name after the dot; write ['...'] for other texts")
            if self._accept("("):
                arguments, end = self._arguments()
                node = Call(node.start, end, node, name.text, name.start, arguments)
            else:
                node = Select(node.start, name.end, node, name.text, name.start)
        return node

    def _arguments(self) -> tuple[tuple[Node, ...], int]:
        """Behind the opening bracket: what is in it, and where it ends."""
        if close := self._accept(")"):
            return (), close.end
        arguments = [self._expression()]
        while self._accept(","):
            arguments.append(self._expression())
        return tuple(arguments), self._expect(")").end

    def _primary(self) -> Node:
        token = self._take()
        if token.kind in ("int", "double", "text"):
            return _literal(token)
        if token.kind == "name":
            return self._name(token)
        if token.kind == "sign" and token.text == "(":
            inner = self._expression()
            return replace(inner, start=token.start, end=self._expect(")").end)
        if token.kind == "sign" and token.text == "[":
            return self._items(token)
        if token.kind == "sign" and token.text == "{":
            return self._members(token)
        found = "the end" if token.kind == "end" else f"'{token.text}'"
        raise Unreadable(token.start, f"expected a value, found {found}")

    def _name(self, token: _Token) -> Node:
        if token.text in _CONSTANTS:
            kind = "null" if token.text == "null" else "bool"
            return Literal(token.start, token.end, kind, _CONSTANTS[token.text])
        if token.text in _RESERVED or token.text == "in":
            raise Unreadable(token.start, f"'{token.text}' is a reserved word")
        if token.text.startswith("_"):
            raise Unreadable(token.start, "names that begin with '_' are not for expressions")
        if self._accept("("):
            arguments, end = self._arguments()
            return Call(token.start, end, None, token.text, token.start, arguments)
        return Name(token.start, token.end, token.text)

    def _items(self, opening: _Token) -> Items:
        items: list[Node] = []
        while not (close := self._accept("]")):
            items.append(self._expression())
            if not self._accept(","):
                close = self._expect("]")
                break
        return Items(opening.start, close.end, tuple(items))

    def _members(self, opening: _Token) -> Members:
        members: list[tuple[Node, Node]] = []
        while not (close := self._accept("}")):
            key = self._expression()
            self._expect(":")
            members.append((key, self._expression()))
            if not self._accept(","):
                close = self._expect("}")
                break
        return Members(opening.start, close.end, tuple(members))


def _literal(token: _Token) -> Literal:
    if token.kind == "double":
        return Literal(token.start, token.end, "double", float(token.text))
    if token.kind == "int":
        unsigned = token.text[-1] in "uU"
        digits = token.text.rstrip("uU")
        value = int(digits, 16 if digits[:2] in ("0x", "0X") else 10)
        if value > (2**64 - 1 if unsigned else 2**63):
            raise Unreadable(token.start, "a number of at most 64 bits is expected")
        return Literal(token.start, token.end, "uint" if unsigned else "int", value)
    prefix = token.text[: len(token.text) - len(token.text.lstrip("rRbB"))].lower()
    quoted = token.text[len(prefix) :]
    quotes = 3 if quoted[:3] in ('"""', "'''") else 1
    inner = quoted[quotes:-quotes]
    value_text = inner if "r" in prefix else _unescape(inner, token.start + len(prefix) + quotes)
    return Literal(token.start, token.end, "bytes" if "b" in prefix else "string", value_text)


def _unescape(text: str, offset: int) -> str:
    def replace(found: re.Match[str]) -> str:
        number = found[1] or found[2] or found[3]
        if number is not None and int(number, 16) <= 0x10FFFF:
            return chr(int(number, 16))
        if found[4] is not None:
            return chr(int(found[4], 8))
        if number is not None or found[5] not in _PLAIN:
            raise Unreadable(offset + found.start(), f"'{found[0]}' is no escape; write '\\\\' for a backslash")
        return _PLAIN[found[5]] or found[5]

    return _ESCAPE.sub(replace, text)
