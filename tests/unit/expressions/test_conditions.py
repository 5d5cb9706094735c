"""What conditions decide, what they cannot decide, and that neither text nor values can do more than that."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from castlegate.expressions.program import (
    LONGEST,
    LONGEST_MATCHED,
    MOST_BUILT,
    MOST_VALUES,
    Undecided,
    compile_condition,
)
from castlegate.expressions.syntax import Unreadable
from castlegate.headers import Headers
from castlegate.message import Request
from castlegate.policies.facts import RequestFacts
from castlegate.principal import Principal
from castlegate.telemetry.trace import Trace

MORNING = 1_767_258_000.0  # 2026-01-01T09:00:00Z, a Thursday
ANN = Principal(
    subject="ann",
    scheme="tokens",
    scopes=frozenset({"orders:read", "admin"}),
    claims={
        "team": "sales",
        "level": 3,
        "roles": ["editor", "author"],
        "realm_access": {"roles": ["a"], "nothing": None},
        "https://example.com/plan": "gold",
    },
)


def request(principal: Principal | None = ANN, client: str = "10.1.2.3", query: bytes = b"page=2&page=3") -> Request:
    fields = Headers.of([(b"x-tenant", b"acme"), (b"x-twice", b"1"), (b"x-twice", b"2")])
    made = Request(b"1", Trace(b"", None), client, b"http", b"x", b"GET", b"/", query, fields, b"", math.inf)
    made.principal = principal
    made.params = {"user": "ann", "id": "7"}
    return made


def decide(text: str, **about: Any) -> bool | None:
    """None: undecided."""
    try:
        return compile_condition(text, RequestFacts()).holds(request(**about), MORNING)
    except Undecided:
        return None


@pytest.mark.parametrize(
    "text",
    [
        "principal.subject == path.user",
        "principal . subject // a comment\n == path['user']",
        "(principal).subject == 'ann' && (principal.claims).team == 'sales'",
        "'admin' in principal.scopes && !('root' in principal.scopes)",
        "'admin'in(principal.scopes)",
        "principal.scheme == 'tokens' && principal.credential == ''",
        "principal.claims.team == 'sales'",
        "principal.claims['https://example.com/plan'] == 'gold'",
        "principal.claims.realm_access.roles[0] == 'a'",
        "'a' in principal.claims.realm_access.roles",
        "has(principal.claims.team) && !has(principal.claims.tenant)",
        "'team' in principal.claims && !('tenant' in principal.claims)",
        "has(principal.claims.realm_access.nothing) && principal.claims.realm_access.nothing == null",
        "principal.claims.roles.exists(r, r == 'author') && principal.claims.roles.all(r, r != 'owner')",
        "principal.claims.roles.filter(r, r.startsWith('a')).size() == 1",
        "principal.claims.exists(name, name == 'level')",
        "principal.claims.level > 2 && principal.claims.level + 1 == 4",
        "principal != null && null != principal",
        "method == 'GET' && method in ['GET', 'HEAD']",
        "int(path.id) == 7 && path.id.matches('^[0-9]+$')",
        "query.page == '2' && has(query.page) && !has(query.size)",
        "headers['x-tenant'] == 'acme' && headers['x-twice'] == '1, 2'",
        "has(headers.accept) || 'x-tenant' in headers",
        "client.inNetwork('10.0.0.0/8') && !client.inNetwork('192.168.0.0/16', 'fd00::/8')",
        "now > timestamp('2020-01-01T00:00:00Z') && now.getHours() == 9 && now.getDayOfWeek() == 4",
        "now - timestamp('2026-01-01T00:00:00Z') < duration('10h')",
        "method == 'GET' ? true : false",
        "principal.subject in {'ann': 1, 'bob': 2}",
        r"""'\x61nn' == principal.subject && r'\d' == '\\d' && '''a''' == "a" """,
        "principal.claims.nothing == 1 || true",
    ],
)
def test_what_holds(text: str) -> None:
    assert decide(text) is True


@pytest.mark.parametrize(
    "text",
    [
        "principal.subject == 'bob'",
        "principal.claims.level == '3'",
        "principal.claims.nothing == 1 && false",
        "client.inNetwork('11.0.0.0/8')",
    ],
)
def test_what_does_not(text: str) -> None:
    assert decide(text) is False


@pytest.mark.parametrize(
    "text",
    [
        "principal.claims.tenant == 'acme'",
        "principal.claims.tenant != 'acme'",
        "!(principal.claims.tenant == 'acme')",
        "principal.claims.team.name == 'x'",
        "has(principal.claims.tenant.name)",
        "!has(principal.claims.tenant.name)",
        "principal.claims.roles[7] == 'x'",
        "principal.claims.level > 'a'",
        "principal.claims.team",
        "principal.claims.level",
        "headers['x-other'] == 'a'",
        "query.size != '1'",
        "path.other == 'a'",
        "1 / (principal.claims.level - 3) == 1",
        "int(principal.claims.team) == 1",
    ],
)
def test_what_is_missing_or_cannot_be_computed_is_undecided(text: str) -> None:
    assert decide(text) is None


@pytest.mark.parametrize(
    ("text", "decided"),
    [
        ("principal == null", True),
        ("principal != null", False),
        ("principal == null || principal.subject == 'ann'", True),
        ("principal.subject == 'ann'", None),
        ("principal.subject != 'ann'", None),
        ("principal.claims.team != 'sales'", None),
        ("!has(principal.claims.team)", None),
        ("!('a' in principal.scopes)", None),
    ],
)
def test_of_nobody_nothing_is_known(text: str, decided: bool | None) -> None:
    assert decide(text, principal=None) is decided


@pytest.mark.parametrize(
    ("client", "decided"),
    [("10.1.2.3", True), ("::ffff:10.1.2.3", True), ("11.1.2.3", False), ("fd00::1", False), ("unknown", None)],
)
def test_addresses_in_networks(client: str, decided: bool | None) -> None:
    assert decide("client.inNetwork('10.0.0.0/8')", client=client) is decided


@pytest.mark.parametrize("wrap", [lambda value: value, lambda value: [value], lambda value: {"a": [value]}])
def test_numbers_that_would_not_stay_what_they_are_are_undecided(wrap: Any) -> None:
    def equal(one: int, other: int) -> bool | None:
        about = Principal(subject="ann", scheme="tokens", claims={"one": wrap(one), "other": wrap(other)})
        return decide("principal.claims.one == principal.claims.other", principal=about)

    assert equal(2**63 - 1, 2**63 - 1) is True
    assert equal(2**63 - 1, 2**63 - 2) is False
    assert equal(2**64, 2**64 + 1) is None


def test_values_that_are_nested_deeply_are_undecided() -> None:
    deep: Any = 1
    for _ in range(100_000):
        deep = [deep]
    about = Principal(subject="ann", scheme="tokens", claims={"deep": deep})
    assert decide("principal.claims.deep == 1", principal=about) is None


def test_lists_that_would_take_long_are_not_gone_through() -> None:
    long = Principal(subject="ann", scheme="tokens", claims={"roles": ["a"] * (MOST_VALUES + 1)})
    assert decide("principal.claims.roles.exists(r, r == 'a')", principal=long) is None
    assert decide("'a' in principal.claims.roles", principal=long) is True


def test_the_parts_of_a_condition_can_be_asked_one_by_one() -> None:
    parts = compile_condition(
        "principal.subject == 'ann' && (method == 'PUT' || false) && true", RequestFacts()
    ).parts()
    held = [(part.text, part.holds(request(), MORNING)) for part in parts]
    assert held == [("principal.subject == 'ann'", True), ("(method == 'PUT' || false)", False), ("true", True)]


@pytest.mark.parametrize(
    "text",
    [
        "x" * (LONGEST + 1),
        "true" + " && true" * 300,
        "!" * 100 + "true",
        "(" * 100 + "true" + ")" * 100,
        "principal.claims" + ".a" * 300 + " == 1",
        "[" * 100 + "]" * 100 + " == []",
        "true ? " * 100 + "true" + " : true" * 100,
    ],
)
def test_what_is_too_large_is_refused(text: str) -> None:
    with pytest.raises(Unreadable):
        compile_condition(text, RequestFacts())


@pytest.mark.parametrize(
    "text", ["principal.claims.a.filter(x, x != 'b').size() > 0", "principal.claims.a.map(x, x) != []"]
)
def test_lists_are_made_of_few_values_since_each_is_copied_for_the_next(text: str) -> None:
    few = Principal(subject="ann", scheme="tokens", claims={"a": ["a"] * (MOST_BUILT - 1)})
    many = Principal(subject="ann", scheme="tokens", claims={"a": ["a"] * MOST_BUILT})
    assert decide(text, principal=few) is True
    assert decide(text, principal=many) is None
    assert decide("principal.claims.a.exists(x, x == 'a')", principal=many) is True


@pytest.mark.parametrize("claim", ["a" * (LONGEST_MATCHED + 1), ["a" * (LONGEST_MATCHED + 1)], {"b": "a" * 60_000}])
def test_patterns_are_for_short_texts(claim: Any) -> None:
    """The time that this one takes for 60,000 characters is seconds."""
    pattern = "matches('(?:[a-z]{1,100}){1,50}b')"
    longer = Principal(subject="ann", scheme="tokens", claims={"a": claim})
    place = "" if isinstance(claim, str) else "[0]" if isinstance(claim, list) else ".b"
    assert decide(f"!principal.claims.a{place}.{pattern}", principal=longer) is None
    short = Principal(subject="ann", scheme="tokens", claims={"a": "a" * 40})
    assert decide(f"!principal.claims.a.{pattern}", principal=short) is True


WORDS = [
    "principal", ".subject", ".claims", ".team", ".scopes", "headers", "['x-tenant']", "path.id", "method", "client",
    ".inNetwork('10.0.0.0/8')", "has(", "(", ")", "[", "]", "{", "}", "'a'", "1", "2u", "1.5", "null", "true", "==",
    "!=", " in ", "&&", "||", "!", "-", "+", "?", ":", ",", ".exists(x, ", ".map(x, ", "x", "size(", "timestamp(", "now",
    ".matches('a')", "// c\n", " ",
]  # fmt: skip


@given(st.lists(st.sampled_from(WORDS), max_size=12).map("".join))
def test_any_text_is_refused_or_decides(text: str) -> None:
    try:
        condition = compile_condition(text, RequestFacts())
    except Unreadable:
        return
    for principal in (ANN, None):
        try:
            assert condition.holds(request(principal), MORNING) in (True, False)
        except Undecided:
            pass


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
)


@given(JSON)
def test_any_claim_can_be_given(value: Any) -> None:
    about = Principal(subject="ann", scheme="tokens", claims={"team": value})
    assert decide("principal.claims.team == 'sales'", principal=about) in (value == "sales", None)
    decide("principal.claims.team.exists(x, x == 1) || principal.claims.team > 2", principal=about)
