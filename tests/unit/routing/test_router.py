"""The router against a naive model, and the rules that people rely on one by one."""

from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from castlegate.config.report import Report
from castlegate.errors import Kinds, RequestRefused
from castlegate.routing.router import Router
from castlegate.routing.template import Param, RouteKey, parse_key


def key(text: str) -> RouteKey:
    report = Report()
    parsed = parse_key(text, report.place("routes", text))
    assert parsed is not None, report
    return parsed


def router(*keys: str) -> Router[str]:
    return Router((key(text), text) for text in keys)


def refusal(found: Router[str], method: bytes, path: bytes, host: bytes = b"h") -> RequestRefused:
    with pytest.raises(RequestRefused) as raised:
        found.match(method, host, path)
    return raised.value


def test_text_goes_before_a_placeholder_and_that_before_a_wildcard() -> None:
    found = router("GET /a/{x}", "GET /a/{rest...}", "GET /a/b", "GET /{x}/b/c")
    assert found.match(b"GET", b"h", b"/a/b") == ("GET /a/b", {})
    assert found.match(b"GET", b"h", b"/a/c") == ("GET /a/{x}", {"x": "c"})
    assert found.match(b"GET", b"h", b"/a/c/d") == ("GET /a/{rest...}", {"rest": "c/d"})
    assert found.match(b"GET", b"h", b"/a/b/c") == ("GET /a/{rest...}", {"rest": "b/c"})
    assert found.match(b"GET", b"h", b"/z/b/c") == ("GET /{x}/b/c", {"x": "z"})


def test_a_dead_end_behind_text_leads_back_to_the_placeholder() -> None:
    found = router("GET /a/b/c", "GET /{x}/b/d", "GET /{x}/{y}/e")
    assert found.match(b"GET", b"h", b"/a/b/d") == ("GET /{x}/b/d", {"x": "a"})
    assert found.match(b"GET", b"h", b"/a/b/e") == ("GET /{x}/{y}/e", {"x": "a", "y": "b"})


def test_a_wildcard_takes_also_nothing_but_not_the_path_without_slash() -> None:
    found = router("GET /files/{path...}")
    assert found.match(b"GET", b"h", b"/files/") == ("GET /files/{path...}", {"path": ""})
    assert found.match(b"GET", b"h", b"/files/a/") == ("GET /files/{path...}", {"path": "a/"})
    assert refusal(found, b"GET", b"/files").kind is Kinds.NOT_FOUND


def test_a_slash_at_the_end_counts_and_a_placeholder_is_never_empty() -> None:
    found = router("GET /a", "GET /b/", "GET /c/{x}")
    assert refusal(found, b"GET", b"/a/").status == 404
    assert refusal(found, b"GET", b"/b").status == 404
    assert refusal(found, b"GET", b"/c/").status == 404


def test_the_same_place_may_have_other_names_for_other_methods() -> None:
    found = router("GET /a/{x}", "POST /a/{y}", "GET /a/{z}/b")
    assert found.match(b"POST", b"h", b"/a/1") == ("POST /a/{y}", {"y": "1"})
    assert found.match(b"GET", b"h", b"/a/1/b") == ("GET /a/{z}/b", {"z": "1"})


def test_another_method_is_405_and_says_which_are_allowed_by_any_template() -> None:
    found = router("GET /a/b", "POST /a/{x}", "DELETE /a/{rest...}", "GET /other")
    refused = refusal(found, b"PUT", b"/a/b")
    assert refused.kind is Kinds.METHOD_NOT_ALLOWED
    assert refused.headers == ((b"allow", b"DELETE, GET, HEAD, OPTIONS, POST"),)
    assert found.allowed(b"h", b"/a/b") == b"DELETE, GET, HEAD, OPTIONS, POST"
    assert found.allowed(b"h", b"/a/x") == b"DELETE, OPTIONS, POST"
    assert found.allowed(b"h", b"/nothing") is None


def test_a_template_without_the_method_gives_way_to_the_next_that_has_it() -> None:
    found = router("GET /a/b", "POST /a/{x}", "ANY /a/{rest...}")
    assert found.match(b"POST", b"h", b"/a/b") == ("POST /a/{x}", {"x": "b"})
    assert found.match(b"PUT", b"h", b"/a/b") == ("ANY /a/{rest...}", {"rest": "b"})


def test_head_is_answered_by_get_unless_it_has_a_route() -> None:
    assert router("GET /a").match(b"HEAD", b"h", b"/a")[0] == "GET /a"
    assert router("HEAD /a", "GET /a").match(b"HEAD", b"h", b"/a")[0] == "HEAD /a"
    assert router("GET /a", "HEAD /a").match(b"HEAD", b"h", b"/a")[0] == "HEAD /a"
    assert router("GET /{x}", "ANY /{x}").match(b"HEAD", b"h", b"/a")[0] == "GET /{x}"


def test_any_takes_every_method_that_has_no_route_of_its_own() -> None:
    found = router("ANY /a", "POST /a", "ANY /b/{x}")
    assert found.match(b"POST", b"h", b"/a")[0] == "POST /a"
    assert found.match(b"PROPFIND", b"h", b"/a")[0] == "ANY /a"
    assert found.match(b"OPTIONS", b"h", b"/b/1")[0] == "ANY /b/{x}"
    assert found.allowed(b"h", b"/b/1") == b"DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"


def test_routes_of_a_host_go_first_and_the_others_follow() -> None:
    found = router("GET api.example.com/a", "GET /a", "POST /a", "GET [::1]/a")
    assert found.match(b"GET", b"API.Example.com:8080", b"/a")[0] == "GET api.example.com/a"
    assert found.match(b"GET", b"api.example.com.", b"/a")[0] == "GET api.example.com/a"
    assert found.match(b"POST", b"api.example.com", b"/a")[0] == "POST /a"
    assert found.match(b"GET", b"[::1]:80", b"/a")[0] == "GET [::1]/a"
    assert found.match(b"GET", b"", b"/a")[0] == "GET /a"
    assert refusal(found, b"PUT", b"/a", b"api.example.com").headers == ((b"allow", b"GET, HEAD, OPTIONS, POST"),)


def test_values_are_decoded_once() -> None:
    found = router("GET /a/{x}", "GET /f/{rest...}")
    assert found.match(b"GET", b"h", b"/a/b%20c%252F") == ("GET /a/{x}", {"x": "b c%2F"})
    assert found.match(b"GET", b"h", b"/a/b%2Fc") == ("GET /a/{x}", {"x": "b/c"})
    assert found.match(b"GET", b"h", b"/a/%C3%A9;v=1") == ("GET /a/{x}", {"x": "é;v=1"})
    assert found.match(b"GET", b"h", b"/f/a%20b/c%2Fd") == ("GET /f/{rest...}", {"rest": "a b/c/d"})
    assert refusal(found, b"GET", b"/a/%FF").kind is Kinds.BAD_PATH


def test_other_spellings_of_a_protected_path_do_not_slip_past_it_to_a_wildcard() -> None:
    found = router("GET /adm:in/x", "GET /{rest...}")
    for path in (b"/adm%3Ain/x", b"/adm:in;v=1/x", b"/adm:in/x;y"):
        assert found.match(b"GET", b"h", path)[0] == "GET /adm:in/x"


def test_an_encoded_slash_does_not_divide_segments() -> None:
    found = router("GET /a/b", "GET /a%2Fb")
    assert found.match(b"GET", b"h", b"/a%2Fb")[0] == "GET /a%2Fb"
    assert found.match(b"GET", b"h", b"/a/b")[0] == "GET /a/b"


def test_two_routes_for_the_same_requests_are_refused() -> None:
    with pytest.raises(ValueError, match="same requests"):
        router("GET /a/{x}", "GET /a/{y}")


SEGMENTS = ["a", "b", "{p}", "{q}", "c%2Fd", ""]
templates = st.tuples(
    st.sampled_from(["GET", "POST", "HEAD", "ANY"]),
    st.sampled_from(["", "", "one.example"]),
    st.lists(st.sampled_from(SEGMENTS), min_size=1, max_size=4),
    st.booleans(),
)
requests = st.tuples(
    st.sampled_from([b"GET", b"POST", b"HEAD", b"PUT"]),
    st.sampled_from([b"one.example:80", b"two.example"]),
    st.lists(st.sampled_from([b"a", b"b", b"x", b"%61", b"c%2Fd", b"a;v", b""]), min_size=1, max_size=5),
)


def _keys(drawn: list[tuple[str, str, list[str], bool]]) -> list[RouteKey]:
    keys: dict[object, RouteKey] = {}
    for method, host, segments, rest in drawn:
        inner = [segment for segment in segments[:-1] if segment] + segments[-1:]
        named = [f"{{p{index}}}" if segment in ("{p}", "{q}") else segment for index, segment in enumerate(inner)]
        path = "/" + "/".join([*[each for each in named if each], "{rest...}"] if rest else named)
        parsed = key(f"{method} {host}{path}")
        keys.setdefault(parsed.shape, parsed)
    return list(keys.values())


def _matches(found: RouteKey, host: bytes, segments: list[bytes]) -> bool:
    if found.host not in (None, host.partition(b":")[0]):
        return False
    for index, expected in enumerate(found.segments):
        if isinstance(expected, Param) and expected.rest:
            return len(segments) > index
        if index >= len(segments):
            return False
        if isinstance(expected, Param):
            if not segments[index]:
                return False
        elif unquote(segments[index].partition(b";")[0].decode()).encode() != expected:
            return False
    return len(segments) == len(found.segments)


def _precedence(found: RouteKey) -> tuple[object, ...]:
    ranks = [
        2 if isinstance(each, Param) and each.rest else 1 if isinstance(each, Param) else 0 for each in found.segments
    ]
    return found.host is None, ranks


def _by_method(group: list[RouteKey], method: bytes) -> RouteKey | None:
    methods = {each.method: each for each in group}
    return methods.get(method) or (methods.get(b"GET") if method == b"HEAD" else None) or methods.get(b"ANY")


@given(st.lists(templates, min_size=1, max_size=12), requests)
def test_it_finds_what_a_walk_over_all_routes_finds(
    drawn: list[tuple[str, str, list[str], bool]], request: tuple[bytes, bytes, list[bytes]]
) -> None:
    keys = _keys(drawn)
    method, host, segments = request
    path = b"/" + b"/".join(segments)
    matching = sorted((each for each in keys if _matches(each, host, segments)), key=_precedence)
    groups: dict[object, list[RouteKey]] = {}
    for each in matching:
        groups.setdefault(each.shape[1:], []).append(each)
    expected = next((best for group in groups.values() if (best := _by_method(group, method))), None)
    answer: RouteKey | int
    try:
        answer = Router((each, each) for each in keys).match(method, host, path)[0]
    except RequestRefused as refused:
        answer = refused.status
    assert answer == (expected or (405 if matching else 404))


@pytest.mark.parametrize(
    ("path", "refused"),
    [
        (b"/admin%2Fx", True), (b"/admin%3Bx", True), (b"/admin%3Bx%2Fy", True), (b"/x%2F%2Fy", False), (b"/x%3B%2F%3B", True),
        (b"/item/a%2Fb", False), (b"/item/a%3Bb", False), (b"/other%2Fx", False), (b"/item/a%2Fparts", True),
    ],
)  # fmt: skip
def test_an_escape_is_no_way_past_a_more_specific_route(path: bytes, refused: bool) -> None:
    found = router("ANY /{rest...}", "GET /admin", "GET /admin/{rest...}", "GET /item/{id}", "GET /item/{id}/parts")
    target, _ = found.match(b"GET", b"h", path)
    if refused:
        with pytest.raises(RequestRefused) as raised:
            found.confirm(b"GET", b"h", path, target, lambda _: False)
        assert raised.value.kind is Kinds.BAD_PATH
    else:
        found.confirm(b"GET", b"h", path, target, lambda _: False)
