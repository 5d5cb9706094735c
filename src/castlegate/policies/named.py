"""Policies with names: conditions in CEL that routes refer to, with the cases that show what they mean.

An expression knows `principal` (`.subject`, `.scheme`, `.credential`, `.scopes`, `.claims`), `method`, `path`,
`query`, `headers`, `client` and `now`; see `castlegate.policies.facts`.
"""

from __future__ import annotations

import math
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, NamedTuple
from urllib.parse import urlencode

import msgspec

from castlegate.config.environment import Environment
from castlegate.config.reading import read
from castlegate.config.report import ConfigError, Place, Report
from castlegate.config.source import compose
from castlegate.config.units import ExpressionText, Seconds
from castlegate.expressions.program import Condition, Undecided, compile_condition
from castlegate.expressions.syntax import Unreadable
from castlegate.headers import Headers
from castlegate.message import Request
from castlegate.policies.facts import RequestFacts
from castlegate.principal import Principal
from castlegate.telemetry.trace import Trace

_CALLER = "'subject', 'scheme', 'scopes' and 'claims'"


class WrittenPrincipal(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Who calls, as people write it down."""

    subject: str = "someone"
    """Who it is."""
    scheme: str = ""
    """By which scheme of `auth`."""
    scopes: list[str] = []
    """What it may do."""
    claims: dict[str, Any] = {}
    """What is known of it."""

    def principal(self) -> Principal:
        """As a scheme makes it."""
        scopes = frozenset(self.scopes)
        return Principal(subject=self.subject, scheme=self.scheme, scopes=scopes, claims=self.claims)


def read_caller(path: Path) -> Principal:
    """From a file of JSON, or of YAML, of which that is a part. Raises `ConfigError`."""
    report = Report(path.parent)
    try:
        content = path.read_bytes()
    except OSError as error:
        report.add(None, (), f"{path}: cannot be read: {error.strerror}")
        raise ConfigError(report) from error
    # JSON may be indented with tabs, YAML may not; in texts they are written as \\t.
    root = compose(content.replace(b"\t", b" "), str(path), Environment({}, path.parent), report, holds=_CALLER)
    found = None if root is None else read(root, WrittenPrincipal, report.place())
    report.raise_if_any()
    assert found is not None, "what could not be read has mistakes"
    return found.principal()


class Example(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A request, and whether the policy allows it. What it does not say, the request does not have."""

    allow: bool
    """What the policy must say of it."""
    principal: WrittenPrincipal | None = None
    """Who calls; nobody if nothing is said."""
    method: str | None = None
    """Such as `GET`."""
    path: dict[str, str] = {}
    """Path parameters."""
    query: dict[str, str] = {}
    """Query parameters."""
    headers: dict[str, str] = {}
    """Header fields."""
    client: str | None = None
    """Address of the client."""
    now: str | None = None
    """When it is asked, such as `2030-01-31T08:00:00Z`."""

    def check(self, at: Place) -> None:
        """The time."""
        if self.now is not None:
            try:
                _seconds(self.now)
            except ValueError:
                place = at.field("now")
                place.mistake(f"expected a time such as 2030-01-31T08:00:00Z, found {place.shown(self.now)}")


class NamedPolicy(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A condition on requests. A plain text stands for `allow` alone."""

    short: ClassVar[str] = "allow"

    allow: ExpressionText | None = None
    """An expression in CEL over `principal`, `method`, `path`, `query`, `headers`, `client` and `now`. What it is not
    true of is refused, also what it cannot decide because something is missing. At most 4,096 characters; it goes
    through lists (`exists`, `all`, ...) one at a time, of at most 1,000 values in all, 100 where it makes lists of them
    (`filter`, `map`). Texts that it has `matches` for are no longer than 4,096 characters, or it cannot decide."""
    python: str | None = None
    """In place of `allow`, a function `package.module:function` of a module beside the configuration file. It takes any
    of the same facts by their names and returns `bool`. What it does not return `True` for is refused, also what it
    fails on."""
    timeout: Seconds | None = None
    """How long a function may take; then the request is refused. 1 s if nothing is said."""
    examples: list[Example] = []
    """Requests with what the policy must say of them; `castlegate check` tries them."""

    def check(self, at: Place) -> None:
        """The expression, and what it says of the examples."""
        place = at.field("allow")
        if self.allow is None or self.python is not None:
            self._check_function(at)
            return
        if self.timeout is not None:
            at.field("timeout").mistake("this is for functions ('python'); a condition takes no time")
        try:
            rule = self.rule()
        except Unreadable as wrong:
            place.inside(wrong.offset).mistake(wrong.text)
            return
        for index, example in enumerate(() if at.field("examples").spoilt else self.examples):
            _try(rule, example, at.field("examples", index))

    def _check_function(self, at: Place) -> None:
        if self.python is None:
            if not at.field("allow").spoilt and not at.field("python").spoilt:
                at.mistake("neither 'allow' nor 'python' is said; write the condition as 'allow'")
        elif self.allow is not None:
            at.mistake("both 'allow' and 'python' are said; write two policies, of which a route names both")
        elif self.examples:
            at.field("examples").mistake("these are for 'allow'; try a function in tests of its own")

    @property
    def fields(self) -> list[str]:
        """The header fields that it asks for."""
        try:
            return [] if self.allow is None else sorted(self.rule().facts.fields)
        except Unreadable:
            return []

    def rule(self) -> Rule:
        """The condition. Raises `Unreadable`."""
        assert self.allow is not None, "a function is no condition"
        return _compiled(self.allow)


class Rule(NamedTuple):
    """A compiled policy."""

    condition: Condition
    facts: RequestFacts


@lru_cache(1024)  # it is compiled for its own check, that of its routes, and to serve
def _compiled(text: str) -> Rule:
    facts = RequestFacts()
    return Rule(compile_condition(text, facts), facts)


def _try(rule: Rule, example: Example, at: Place) -> None:
    asked = [name for name in ("method", "client", "now") if name in rule.facts.used]
    unsaid = [name for name in asked if getattr(example, name) is None]
    if at.field("now").spoilt:
        return
    if unsaid:
        at.mistake(f"the policy asks for '{unsaid[0]}'; say one here")
        return
    why = ""
    try:
        allowed = rule.condition.holds(_request(example), 0.0 if example.now is None else _seconds(example.now))
    except Undecided as undecided:
        allowed, why = False, f": {undecided}"
    if allowed != example.allow:
        told = "allows" if allowed else "refuses"
        at.field("allow").mistake(f"the policy {told} this{why}")


def _request(example: Example) -> Request:
    method = (example.method or "GET").encode()
    fields = Headers.of([(name.lower().encode(), value.encode()) for name, value in example.headers.items()])
    query = urlencode(example.query).encode()
    request = Request(
        b"", Trace(b"", None), example.client or "", b"http", b"", method, b"/", query, fields, b"", math.inf
    )
    request.params = example.path
    request.principal = None if example.principal is None else example.principal.principal()
    return request


def _seconds(text: str) -> float:
    time = datetime.fromisoformat(text)
    if time.tzinfo is None:
        raise ValueError("a time without its zone")
    return time.timestamp()
