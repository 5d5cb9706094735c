"""Whatever an answer holds: it is a clear yes with an owner, a clear no, or nonsense."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from castlegate.schemes.answers import Accepted, Nonsense, Rejected, Verdict
from castlegate.schemes.verdict import read_answer, read_introspection

NOW = 1_800_000_000.0
NAMES = ("active", "subject", "sub", "scopes", "scope", "claims", "ttl", "exp", "jti", "client_id", "other")
VALUES: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["ann", "a b", NOW + 9, NOW]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=8,
)
OBJECTS = st.fixed_dictionaries({}, optional=dict.fromkeys(NAMES, VALUES))


def is_sound(verdict: Verdict) -> bool:
    if isinstance(verdict, Rejected):
        return True
    principal, keep = verdict
    return bool(
        isinstance(principal.subject, str)
        and principal.subject
        and all(isinstance(each, str) for each in principal.scopes)
        and principal.expires > NOW
        and (keep is None or math.isfinite(keep))
    )


@given(VALUES | OBJECTS)
def test_no_answer_is_anything_between(told: Any) -> None:
    body = json.dumps(told).encode()
    for read in (read_answer, read_introspection):
        try:
            verdict = read(body, "s", NOW)
        except Nonsense:
            continue
        assert is_sound(verdict)
        if isinstance(verdict, Accepted):
            assert isinstance(told, dict)
            assert told.get("active", read is read_answer) is True


@given(st.binary())
def test_what_is_no_json_is_nonsense_or_a_no(body: bytes) -> None:
    for read in (read_answer, read_introspection):
        try:
            assert not isinstance(read(body, "s", NOW), Accepted)
        except Nonsense:
            continue


@pytest.mark.parametrize(
    ("told", "subject", "scopes", "keep"),
    [
        ({"subject": "ann"}, "ann", set(), None),
        ({"sub": 7, "scope": "a  b"}, "7", {"a", "b"}, None),
        ({"sub": "ann", "scopes": ["a"], "exp": NOW + 5, "ttl": 3}, "ann", {"a"}, 3),
        ({"sub": "ann", "exp": NOW + 5, "ttl": None}, "ann", set(), 5),
        ({"subject": "ann", "claims": {"exp": NOW + 4}, "exp": NOW + 5}, "ann", set(), 4),
    ],
)
def test_a_yes_is_read_in_every_way_it_is_written(
    told: dict[str, Any], subject: str, scopes: set[str], keep: float | None
) -> None:
    verdict = read_answer(json.dumps(told).encode(), "s", NOW)
    assert isinstance(verdict, Accepted)
    assert (verdict.principal.subject, set(verdict.principal.scopes), verdict.keep) == (subject, scopes, keep)
