"""Whatever a service sends becomes JSON or a failure; shapes do what they say on any JSON."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from castlegate.composition.caching import strictest, united
from castlegate.composition.contents import Digest
from castlegate.composition.reshaping import expression_shape, members_shape
from castlegate.errors import CallFailed
from castlegate.headers import Headers

KINDS = [None, b"application/json", b"text/plain", b"text/html; charset=iso-8859-1", b"image/png", b"a/b+json; x"]
NAMES = ["a", "b", "c"]
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(NAMES), inner),
    max_leaves=20,
)
# Bytes near to JSON: a document with some of it replaced.
NEARLY = st.builds(
    lambda value, at, instead: (text := json.dumps(value).encode())[: at % (len(text) + 1)] + instead + text[at:],
    JSON, st.integers(0, 40), st.binary(max_size=3) | st.sampled_from([b'"', b",", b"}", b"]", b"\\", b"\xff"]),
)  # fmt: skip


def digest(kind: bytes | None, *more: tuple[bytes, bytes]) -> Digest:
    fields = [] if kind is None else [(b"content-type", kind)]
    return Digest(Headers.of([*fields, *more]), ())


@given(st.binary() | NEARLY, st.sampled_from(KINDS))
def test_what_is_taken_is_json_to_anybody(content: bytes, kind: bytes | None) -> None:
    with contextlib.suppress(CallFailed):
        json.loads(digest(kind).take(content).decode(), parse_constant=_refuse)


def _refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is no JSON")


@given(JSON)
def test_json_is_taken_byte_for_byte(value: Any) -> None:
    content = json.dumps(value, ensure_ascii=False).encode()
    assert digest(b"application/json").take(content) == content


@given(st.text())
def test_text_becomes_a_string(text: str) -> None:
    content = text.encode()
    assert json.loads(digest(b"text/plain").take(content)) == text


@given(JSON, st.lists(st.sampled_from(NAMES)), st.dictionaries(st.sampled_from(NAMES), st.sampled_from(["x", "y"])))
def test_members_are_picked_dropped_and_renamed_in_objects_and_their_lists(
    value: Any, names: list[str], renamed: dict[str, str]
) -> None:
    content = json.dumps(value).encode()
    for shape, model in (
        (members_shape(names, [], {}), lambda found: {name: found[name] for name in names if name in found}),
        (members_shape(None, names, {}), lambda found: {n: v for n, v in found.items() if n not in names}),
        (members_shape(None, [], renamed), lambda found: {renamed.get(n, n): v for n, v in found.items()}),
    ):
        assert json.loads(content if shape is None else shape(content)) == _each_object(value, model)


def _each_object(value: Any, model: Any) -> Any:
    if isinstance(value, list):
        return [_each_object(item, model) for item in value]
    return model(value) if isinstance(value, dict) else value


@pytest.mark.parametrize(
    ("pick", "found"),
    [
        (["a.b"], {"a": {"b": 1}}),
        (["a.b", "a"], {"a": {"b": 1, "c": 2}}),
        (["a", "a.b"], {"a": {"b": 1, "c": 2}}),
        (["d.x"], {"d": [{"x": 1}, {"x": 2}]}),
        (["e.x"], {"e": 5}),
    ],
)
def test_paths_lead_into_objects_and_through_lists(pick: list[str], found: object) -> None:
    value = {"a": {"b": 1, "c": 2}, "d": [{"x": 1, "y": 1}, {"x": 2}], "e": 5}
    shape = members_shape(pick, [], {})
    assert shape is not None
    assert json.loads(shape(json.dumps(value).encode())) == found


@given(JSON)
def test_an_expression_gives_json_or_a_failure(value: Any) -> None:
    for text in ("a.b[0]", "a[?b > `1`].c", "{x: a, y: keys(@)}", "sort(a)"):
        with contextlib.suppress(CallFailed):
            json.loads(expression_shape(text, 10_000)(json.dumps(value).encode()))


CONTROLS = st.sampled_from([None, b"max-age=60", b"private, max-age=10", b"no-store", b"no-cache", b"public, s-maxage=5",
    b"max-age=60, age=20", b"max-age=x", b"max-age=60, must-revalidate"])  # fmt: skip


@given(st.lists(CONTROLS, min_size=1, max_size=5), st.randoms())
def test_the_strictest_does_not_hang_on_the_order_and_more_parts_never_allow_more(
    controls: list[bytes | None], random: Any
) -> None:
    shuffled = controls[:]
    random.shuffle(shuffled)
    whole = strictest(tuple(controls))
    assert strictest(tuple(shuffled)) == whole
    assert _seconds(whole) <= min(_seconds(strictest((each,))) for each in controls)


def _seconds(control: bytes) -> int:
    return int(control.partition(b"max-age=")[2].split(b",")[0]) if b"max-age=" in control else 0


def test_age_is_time_that_is_gone() -> None:
    assert strictest((b"max-age=60, age=20", b"max-age=50")) == b"max-age=40"


@pytest.mark.parametrize(
    ("control", "ages", "left"),
    [
        (b"max-age=5, max-age=600", [], 5),
        (b"max-age=600, max-age=5", [], 5),
        (b"max-age=600, s-maxage=5", [], 5),
        (b"max-age=60", [b"50", b"10"], 10),
        (b"max-age=60", [b"10", b"50"], 10),
        (b"max-age=60", [b"10, 50"], 10),
        (b"max-age=60", [b"100"], 0),
        (b"max-age=60", [b"x"], 60),
    ],
)
def test_of_what_is_said_twice_the_stricter_counts(control: bytes, ages: list[bytes], left: int) -> None:
    digest = Digest(Headers.of([(b"cache-control", control), *((b"age", age) for age in ages)]), ())
    assert _seconds(strictest((digest.control,))) == left


def test_an_answer_that_only_says_when_it_expires_is_asked_for_again() -> None:
    assert Digest(Headers.of([(b"expires", b"0")]), ()).control == b"no-cache"


@pytest.mark.parametrize("permits", [b"public", b"must-revalidate", b"s-maxage=60"])
def test_with_authorization_shared_caches_keep_only_what_all_parts_let_them(permits: bytes) -> None:
    may, may_not = b"max-age=60, " + permits, b"max-age=60"
    one = b"max-age=60, must-revalidate"
    assert strictest((may, one), authorized=True) == one
    assert strictest((may_not, one), authorized=True) == b"private, " + one
    assert strictest((may_not, one)) == one
    assert strictest((may_not, b"private, " + one), authorized=True) == b"private, " + one
    assert not set(strictest((may_not, may), authorized=True).split(b", ")) & {b"public", b"s-maxage=60"}


@pytest.mark.parametrize("forbids", [b"proxy-revalidate", b"s-maxage=70"])
def test_shared_caches_that_may_keep_nothing_stale_of_one_part_may_not_of_the_whole(forbids: bytes) -> None:
    assert strictest((b"max-age=60", b"max-age=60, " + forbids)) == b"max-age=60, proxy-revalidate"


def test_vary_names_what_any_part_varies_by_but_how_parts_are_asked() -> None:
    assert united((b"Accept-Encoding, X-Tenant", b"cookie")) == b"cookie, x-tenant"
