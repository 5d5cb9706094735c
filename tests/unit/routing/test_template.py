"""The keys of routes: what they mean. What is wrong with them is told by tests/golden/config/route-keys.*."""

import pytest

from castlegate.config.report import Report
from castlegate.routing.template import Param, RouteKey, parse_key


def key(text: str) -> RouteKey:
    report = Report()
    parsed = parse_key(text, report.place("routes", text))
    assert parsed is not None, report
    return parsed


def test_method_host_and_segments_are_taken_apart() -> None:
    parsed = key("GET API.example.com/orders/{id}/lines/{rest...}")
    assert parsed.method == b"GET"
    assert parsed.host == b"api.example.com"
    assert parsed.path == "/orders/{id}/lines/{rest...}"
    assert parsed.segments == (b"orders", Param("id"), b"lines", Param("rest", rest=True))
    assert parsed.params == ["id", "rest"]


def test_text_is_decoded_since_requests_are_compared_decoded() -> None:
    assert key("GET /caf%C3%A9/a%2Fb").segments == ("café".encode(), b"a/b")


def test_the_root_and_a_slash_at_the_end_are_empty_segments() -> None:
    assert key("GET /").segments == (b"",)
    assert key("GET /a/").segments == (b"a", b"")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("GET /a/{x}", "GET /a/{y}", True),
        ("GET /a/{x}", "POST /a/{x}", False),
        ("GET /a/{x}", "ANY /a/{x}", False),
        ("GET /a/{x}", "GET /a/{x...}", False),
        ("GET /a/{x}", "GET /a/x", False),
        ("GET /a", "GET /a/", False),
        ("GET h/a", "GET H/a", True),
        ("GET h/a", "GET /a", False),
        ("GET /%3A", "GET /:", True),
    ],
)
def test_keys_that_match_the_same_requests_have_the_same_shape(one: str, other: str, same: bool) -> None:
    assert (key(one).shape == key(other).shape) is same
