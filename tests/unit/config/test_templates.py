"""Templates: each value lands where it belongs, encoded for it, and no value can leave its place."""

from typing import Any
from urllib.parse import parse_qsl, unquote_to_bytes

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.config.requests import request

from castlegate.config.references import NO_PARTS, PartRoot, Scope, request_scope
from castlegate.config.report import Report
from castlegate.config.templates import Sink, TextTemplate, compile_json, compile_text
from castlegate.edge.framing import HeadReader
from castlegate.errors import Kinds, PartUnfit, RequestRefused
from castlegate.message import Request
from castlegate.routing.path import normalise

SCOPE = request_scope(["id", "rest"], ("rest", 1))


def text(template: str, sink: Sink, scope: Scope = SCOPE) -> TextTemplate:
    report = Report()
    compiled = compile_text(template, sink, scope, report.place())
    assert not report, report
    return compiled


def target(template: str, made: Request) -> bytes:
    return text(template, Sink.TARGET).render(made, NO_PARTS)


def sent(value: Any, made: Request, parts: dict[str, Any] | None = None, scope: Scope = SCOPE) -> Any:
    report = Report()
    compiled = compile_json(value, scope, report.place())
    assert not report, report
    return msgspec.json.decode(compiled.render(made, parts or {}))


def refusal(template: str, sink: Sink, made: Request) -> str:
    with pytest.raises(RequestRefused) as raised:
        text(template, sink).render(made, NO_PARTS)
    assert raised.value.kind is Kinds.BAD_INPUT
    return raised.value.detail


# --- JSON


def test_a_lone_reference_keeps_its_type_and_inside_text_it_is_text() -> None:
    made = request(params={"id": "7"}, body=b'{"n":1.5,"deep":{"list":[{"x":true}]},"none":null}')
    value = {
        "id": "{path.id}",
        "n": "{body.n}",
        "x": "{body.deep.list.0.x}",
        "all": "{body.deep}",
        "none": "{body.none}",
        "text": "<{path.id}|{body.n}|{body.deep.list.0.x}>",
        "plain": ["{{path.id}}", 3, None, False],
    }
    assert sent(value, made) == {
        "id": "7",
        "n": 1.5,
        "x": True,
        "all": {"list": [{"x": True}]},
        "none": None,
        "text": "<7|1.5|true>",
        "plain": ["{path.id}", 3, None, False],
    }


def test_types_turn_text_into_values_and_refuse_what_is_none() -> None:
    value = {"i": "{query.i:int}", "n": "{query.n:number}", "b": "{query.b:bool}", "j": "{query.j:json}"}
    assert sent(value, request(query=b"i=-3&n=2.50&b=true&j=%7B%22a%22:1%7D")) == {
        "i": -3,
        "n": 2.5,
        "b": True,
        "j": {"a": 1},
    }
    assert sent("{body.n:string}", request(body=b'{"n":12}')) == "12"
    for query, word in ((b"i=1.0", "whole number"), (b"i=%2B1", "whole number"), (b"i=1_000", "whole number")):
        with pytest.raises(RequestRefused, match=word):
            sent("{query.i:int}", request(query=query))
    for template, word in (
        ("{query.x:number}", "number"),
        ("{query.x:bool}", "true or false"),
        ("{query.x:json}", "JSON"),
    ):
        for wrong in (b"x=nan", b"x=1e999", b"x=yes", b"x="):
            with pytest.raises(RequestRefused, match=word):
                sent(template, request(query=wrong))
    with pytest.raises(RequestRefused, match=r"body\.n must be a whole number"):
        sent("{body.n:int}", request(body=b'{"n":true}'))


def test_what_is_missing_is_refused_unless_it_is_optional() -> None:
    made = request(query=b"a=1", body=b'{"x":null}')
    assert sent({"a": "{query.a?}", "b": "{query.b?}", "l": ["{query.b?}"], "t": "-{query.b?}-"}, made) == {
        "a": "1",
        "l": [None],
        "t": "--",
    }
    assert sent("{query.b?}", made) is None
    for missing in ("query.b", "header.x-b", "body.y", "body.x.y", "body.0"):
        with pytest.raises(RequestRefused) as raised:
            sent({"v": f"{{{missing}}}"}, made)
        assert raised.value.detail == f"{missing} is missing."
    with pytest.raises(RequestRefused, match=r"body is missing"):
        sent("{body}", request())
    with pytest.raises(RequestRefused, match=r"body\.x must be a single value"):
        sent("<{body.x}>", made)


def test_of_a_repeated_parameter_the_first_is_taken_or_all_as_a_list() -> None:
    made = request(query=b"a=1&b=x+y&a=2&c&%61=3&page%5Bsize%5D=9")
    value = {"a": "{query.a}", "all": "{query.a[]:int}", "b": "{query.b}", "c": "{query.c}", "p": "{query.page[size]}"}
    assert sent(value, made) == {"a": "1", "all": [1, 2, 3], "b": "x y", "c": "", "p": "9"}


def test_headers_are_found_in_any_case() -> None:
    assert sent("{header.X-Tenant}", request(headers={b"x-tenant": b"acme"})) == "acme"


def test_a_body_or_query_that_cannot_be_read_is_the_clients_mistake() -> None:
    for body in (b"{", b'{"a":"\xff"}', b'"\\ud800"', b"[" * 100_000):
        with pytest.raises(RequestRefused):
            sent("{body.a}", request(body=body))
    with pytest.raises(RequestRefused):
        sent("{query.a}", request(query=b"a=%FF"))


def test_earlier_parts_are_reached_by_their_names() -> None:
    scope = SCOPE.including({"user": PartRoot("user")})
    assert sent({"n": "{user.name}", "u": "{user}"}, request(), {"user": {"name": "a"}}, scope) == {
        "n": "a",
        "u": {"name": "a"},
    }
    with pytest.raises(PartUnfit, match=r"user\.name is missing"):
        sent("{user.name}", request(), {}, scope)


@pytest.mark.parametrize("template", ["/a/{user}", "/a/{user.name:int}", "/a/{user.up}", "/a?b={user}"])
def test_what_a_part_answered_is_not_the_client_s_mistake(template: str) -> None:
    scope = SCOPE.including({"user": PartRoot("user")})
    with pytest.raises(PartUnfit) as raised:
        text(template, Sink.TARGET, scope).render(request(), {"user": {"name": "a", "up": ".."}})
    assert raised.value.status == 502


ORDERS = {"orders": [{"id": 1, "lines": [{"sku": "a"}, {"sku": "b"}]}, {"id": 2, "lines": [{}, {"sku": "c"}]}, {}]}


@pytest.mark.parametrize(
    ("reference", "found"),
    [
        ("{orders[]}", ORDERS["orders"]),
        ("{orders[].id}", [1, 2]),
        ("{orders[].lines[].sku}", ["a", "b", "c"]),
        ("{orders[].lines[]}", [{"sku": "a"}, {"sku": "b"}, {}, {"sku": "c"}]),
        ("{orders.0.lines[].sku}", ["a", "b"]),
        ("{orders[].none}", []),
    ],
)
def test_brackets_go_through_the_lists_of_a_part(reference: str, found: object) -> None:
    scope = SCOPE.including({"orders": PartRoot("orders")})
    assert sent(reference, request(), ORDERS, scope) == found


@pytest.mark.parametrize("reference", ["{orders.0[].id}", "{orders.id[]}"])
def test_what_is_no_list_is_missing_where_brackets_go_through_it(reference: str) -> None:
    scope = SCOPE.including({"orders": PartRoot("orders")})
    with pytest.raises(PartUnfit, match="is missing"):
        sent(reference, request(), ORDERS, scope)


def test_what_never_changes_is_encoded_once() -> None:
    report = Report()
    constant = compile_json({"a": [1, "x {{y}}"]}, SCOPE, report.place())
    assert constant.constant == b'{"a":[1,"x {y}"]}'
    assert compile_json({"a": "{path.id}"}, SCOPE, report.place()).constant is None
    assert text("/a?b", Sink.TARGET).constant == b"/a?b"


def test_it_is_known_before_whether_the_body_is_needed() -> None:
    report = Report()
    assert compile_json({"a": ["{body.x}"]}, SCOPE, report.place()).needs_body
    assert not compile_json({"a": ["{query.x}"]}, SCOPE, report.place()).needs_body
    assert text("{body.id}", Sink.KEY).needs_body
    assert not text("{path.id}", Sink.KEY).needs_body


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(st.text(), json_values)
def test_no_value_leaves_its_place_in_json(value: str, body: Any) -> None:
    made = request(params={"id": value}, body=msgspec.json.encode({"v": body}))
    shape = {"a": "{path.id}", "b": [1, "x{path.id}y"], "c": "{body.v}"}
    assert sent(shape, made) == {"a": value, "b": [1, f"x{value}y"], "c": body}


# --- targets


@pytest.mark.parametrize(
    ("template", "value", "rendered"),
    [
        ("/u/{path.id}", "42", b"/u/42"),
        ("/u/{path.id}", "a b", b"/u/a%20b"),
        ("/u/{path.id}", "a/b", b"/u/a%2Fb"),
        ("/u/{path.id}", "é", b"/u/%C3%A9"),
        ("/u/{path.id}", "%2e%2e", b"/u/%252e%252e"),
        ("/u/{path.id}", "a.b", b"/u/a.b"),
        ("/u/{path.id}", "...", b"/u/..."),
        ("/u/{path.id}.json", "x?y#z", b"/u/x%3Fy%23z.json"),
        ("/u/v{path.id}", ".", b"/u/v."),
        ("/u?x={path.id}", "a&b=c", b"/u?x=a%26b%3Dc"),
        ("/u?x={path.id}&y=1", "../..", b"/u?x=..%2F..&y=1"),
        ("/u?x=a{path.id}b", "#", b"/u?x=a%23b"),
        ("/u?{path.id}=1", "a=b", b"/u?a%3Db=1"),
    ],
)
def test_a_value_is_encoded_for_its_place_in_the_target(template: str, value: str, rendered: bytes) -> None:
    assert target(template, request(params={"id": value})) == rendered


@pytest.mark.parametrize(
    ("template", "value"),
    [
        ("/u/{path.id}", ""),
        ("/u/{path.id}", "."),
        ("/u/{path.id}", ".."),
        ("/u/{path.id}/x", "../admin"),
        ("/u/{path.id}", "a/../b"),
        ("/u/{path.id}", "..;x"),
        ("/u/{path.id}", "..\\admin"),
        ("/u/{path.id}", "a\x00b"),
        ("/u/{path.id}", "a\r\nb"),
        ("/u/.{path.id}", "."),
        ("/u/{path.id}.", "."),
        ("/u/a%2F{path.id}", ".."),
        ("/u/{path.id}{query.none?}", ""),
    ],
)
def test_a_value_that_would_not_stay_one_segment_is_refused(template: str, value: str) -> None:
    assert refusal(template, Sink.TARGET, request(params={"id": value})) == "path.id cannot stand in a path."


def test_a_wildcard_is_spliced_in_as_it_was_matched() -> None:
    made = request(path=b"/files/a%2Fb/c%20d/", params={"rest": "a/b/c d/"})
    assert target("/store/{path.rest}", made) == b"/store/a%2Fb/c%20d/"
    assert target("/store?p={path.rest}", made) == b"/store?p=a%2Fb%2Fc%20d%2F"
    assert target("/store/{path.rest}", request(path=b"/files/", params={"rest": ""})) == b"/store/"


def test_a_pair_of_the_query_that_is_missing_is_left_out_and_a_list_is_repeated() -> None:
    template = "/u?a={query.a?}&b={query.b[]?}&c=1"
    assert target(template, request(query=b"b=x&b=y")) == b"/u?b=x&b=y&c=1"
    assert target("/u?a={query.a?}", request()) == b"/u"
    assert target("/u?a={query.a?}", request(query=b"a=")) == b"/u?a="
    assert refusal("/u?a={query.a}", Sink.TARGET, request()) == "query.a is missing."


def test_a_target_knows_whether_it_says_a_query() -> None:
    assert text("/u?a={query.a?}", Sink.TARGET).has_query
    assert text("/u?", Sink.TARGET).has_query
    assert not text("/u/{query.a?}", Sink.TARGET).has_query


@given(st.text(), st.sampled_from(["/u/{path.id}/z", "/u/a{path.id}/z", "/u/{path.id}.b/z", "/u/a%20{path.id}-/z"]))
def test_no_value_leaves_its_segment(value: str, template: str) -> None:
    try:
        rendered = target(template, request(params={"id": value}))
    except RequestRefused:
        return
    path, *segments = rendered.split(b"/")
    assert (path, segments[0], segments[2:]) == (b"", b"u", [b"z"])
    plain = unquote_to_bytes(template.replace("{path.id}", "\0").encode()).decode().split("/")[2]
    assert unquote_to_bytes(segments[1]).decode() == plain.replace("\0", value)
    assert normalise(rendered).count(b"/") == 3


@given(st.text())
def test_no_value_leaves_its_pair_of_the_query(value: str) -> None:
    rendered = target("/u?x={path.id}&y=a{path.id}b&{path.id}=z", request(params={"id": value}))
    path, _, query = rendered.partition(b"?")
    assert path == b"/u"
    assert parse_qsl(query.decode(), keep_blank_values=True) == [("x", value), ("y", f"a{value}b"), (value, "z")]
    assert b"#" not in query


# --- headers and keys


@given(st.text())
def test_no_value_leaves_its_header(value: str) -> None:
    try:
        rendered = text("a {path.id} b", Sink.HEADER).render(request(params={"id": value}), NO_PARTS)
    except RequestRefused:
        assert any(
            ord(character) > 255 or (ord(character) < 32 and character != "\t") or character == "\x7f"
            for character in value
        )
        return
    assert rendered == b"a " + value.encode("latin-1") + b" b"
    assert not set(rendered) & {0, 10, 13}


@pytest.mark.parametrize("value", ["a\r\nX: y", "a\nb", "a\x00", "\x7f", "日"])
def test_a_value_that_would_not_stay_one_header_is_refused(value: str) -> None:
    assert refusal("{path.id}", Sink.HEADER, request(params={"id": value})) == "path.id cannot stand in a header field."


def test_a_header_is_copied_byte_by_byte() -> None:
    for value in (b"caf\xc3\xa9", b"caf\xe9", b"a\tb"):
        assert text("{header.x}", Sink.HEADER).render(request(headers={b"x": value}), NO_PARTS) == value


def test_a_key_is_the_text_of_its_value() -> None:
    made = request(params={"id": "é"}, body=b'{"n":5,"o":{}}')
    assert text("{path.id}", Sink.KEY).render(made, NO_PARTS) == "é".encode()
    assert text("{body.n}", Sink.KEY).render(made, NO_PARTS) == b"5"
    assert text("u:{body.n}", Sink.KEY).render(made, NO_PARTS) == b"u:5"
    assert text("{query.x?}", Sink.KEY).render(made, NO_PARTS) == b""
    assert refusal("{body.o}", Sink.KEY, made) == "body.o must be a single value."


@pytest.mark.parametrize(
    "field",
    [
        "Host: h", "Content-Length: 0", "Transfer-Encoding: chunked", "Connection: close", "Keep-Alive: 5", "TE: trailers",
        "Trailer: x", "Upgrade: h2c", "Proxy-Connection: close", "Expect: 100-continue", "X-Request-Id: 1",
        "traceparent: 1", "tracestate: a=1", "Forwarded: for=a", "Via: 1.1 a", "X-Forwarded-For: a", "X_Forwarded_Host: a",
        "X-Forwarded-Foo: a", "X-Real-IP: a", "User-Agent: a", "Authorization: a", "Cookie: a=1", "X-Tenant: a", "Tea: a",
        "Content-Type: a/b", "Origin: a", "X-Host: a",
    ],
)  # fmt: skip
def test_a_field_can_be_referred_to_unless_it_ends_at_the_edge(field: str) -> None:
    host = "" if field.startswith("Host") else "host: h\r\n"
    _, _, read = HeadReader(100, 8192).read(f"GET / HTTP/1.1\r\n{host}{field}\r\n\r\n".encode(), None)
    name = field.partition(":")[0]
    report = Report()
    compile_text(f"{{header.{name}?}}", Sink.HEADER, SCOPE, report.place())
    assert (name.lower().encode() in read.headers) is not bool(report)
