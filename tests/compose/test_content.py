"""What services answer, and what of it the client gets: the whole is valid JSON, whatever a service sent."""

import json
from collections.abc import Iterator

import pytest
from tests.compose.conftest import Gateway, Services, Start, ask, http

ROUTES = """
  GET /one: {compose: {fine: {call: s, get: /fine}, x: {call: s, get: /x, optional: true}}}
  GET /merged: {compose: {a: {call: s, get: /fine, merge: true}, x: {call: s, get: /x, merge: true, optional: true}}}
  GET /needed: {compose: {x: {call: s, get: /x, optional: true}, y: {call: s, get: "/fine?of={x.id?}"}}}
  GET /small: {compose: {x: {call: s, get: /x, limit: 100B, optional: true}}}
"""
CHUNKED = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"


@pytest.fixture(scope="module")
def services() -> object:
    """Shared by the tests of this module, as the gateway is."""
    with Services() as services:
        services.says("/fine", {"id": 1})
        yield services


@pytest.fixture(scope="module")
def gateway(services: Services, tmp_path_factory: pytest.TempPathFactory) -> object:
    config = f"""
services: {{s: {{http: ["http://127.0.0.1:{services.port}"]}}}}
defaults: {{public: true, timeout: 5s}}
routes:{ROUTES}"""
    with Gateway(tmp_path_factory.mktemp("content"), config) as gateway:
        yield gateway


@pytest.fixture(autouse=True)
def _hung_up(services: Services) -> Iterator[None]:
    """No connection outlives a test: descriptors are counted."""
    yield
    services.hang_up()


@pytest.mark.parametrize(
    ("answer", "content"),
    [
        (http(b'{"a":1}'), b'{"a":1}'),
        (http(b' [1.0, 1e400, "\\u00e9"] '), b' [1.0, 1e400, "\\u00e9"] '),
        (http(b'{"a":1,"a":2}'), b'{"a":1,"a":2}'),
        (http("{\"é\":\"ü\"}".encode()), "{\"é\":\"ü\"}".encode()),
        (http(b'{"a":1}', kind="application/hal+json; charset=utf-8"), b'{"a":1}'),
        (http(b'{"a":1}', kind=None), b'{"a":1}'),
        (http(b'say "hi"\n', kind="text/plain"), b'"say \\"hi\\"\\n"'),
        (http(b"\xe9", kind="text/html; charset=iso-8859-1"), '"é"'.encode()),
        (http(b"", status=200), b"null"),
        (b"HTTP/1.1 204 x\r\n\r\n", b"null"),
        (CHUNKED + b'4\r\n{"a"\r\n3\r\n:1}\r\n0\r\n\r\n', b'{"a":1}'),
        (http(b'"' + b"x" * 500_000 + b'"'), b'"' + b"x" * 500_000 + b'"'),
    ],
    ids=lambda value: repr(value[-30:]),
)  # fmt: skip
def test_bytes_of_json_are_passed_on_as_they_are_and_text_as_a_string(
    services: Services, gateway: Gateway, answer: bytes, content: bytes
) -> None:
    services.answers["/x"] = answer
    got = ask(gateway, "/one")
    assert got.body == b'{"fine":{"id": 1},"x":' + content + b"}"
    assert got.parts == {"fine": "ok", "x": "ok"}


GARBAGE = {
    "cut": http(b'{"a":'),
    "two": http(b"{}{}"),
    "closing": http(b'1},"fine":2'),
    "not-utf-8": http(b'"\xff"'),
    "surrogate": http(b'"\\ud800"'),
    "control": http(b'"\x01"'),
    "nan": http(b"NaN"),
    "bom": http(b"\xef\xbb\xbf{}"),
    "html": http(b"<html>", kind="application/json"),
    "image": http(b"\x89PNG", kind="image/png"),
    "gzip": http(b"\x1f\x8b", fields=("content-encoding: gzip",)),
    "text-not-utf-8": http(b"\xff", kind="text/plain"),
    "charset": http(b"x", kind="text/plain; charset=klingon"),
    "deep": http(b"[" * 100_000 + b"]" * 100_000),
    "10MB": http(b'"' + b"x" * 10_000_000 + b'"'),
    "10MB-chunked": CHUNKED + b"989680\r\n" + b" " * 10_000_000 + b"\r\n0\r\n\r\n",
    "cut-off": b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n{",
    "hung-up": b"",
}  # fmt: skip


@pytest.mark.parametrize("path", ["/one", "/merged", "/needed"])
@pytest.mark.parametrize("answer", GARBAGE.values(), ids=GARBAGE)
def test_no_service_can_break_the_whole(services: Services, gateway: Gateway, answer: bytes, path: str) -> None:
    services.answers["/x"] = answer
    if not answer or answer.endswith(b"\r\n\r\n{"):
        services.cuts.add("/x")
    got = ask(gateway, path)
    services.cuts.clear()
    assert got.status == 200
    assert got.parts["x"] == "error"
    assert got.json == {
        "/one": {"fine": {"id": 1}, "x": None}, "/merged": {"id": 1}, "/needed": {"x": None, "y": {"id": 1}},
    }[path]  # fmt: skip


def test_an_answer_is_as_large_as_it_may_be_and_no_larger(services: Services, gateway: Gateway) -> None:
    services.answers["/x"] = http(b'"' + b"x" * 98 + b'"')
    assert ask(gateway, "/small").parts == {"x": "ok"}
    services.answers["/x"] = http(b'"' + b"x" * 99 + b'"')
    assert ask(gateway, "/small", "Prefer: parts").json["_parts"]["x"]["detail"] == (
        "The service's answer is larger than 100 bytes."
    )


USER = {"id": 1, "name": "Ada", "secret": 1, "address": {"city": "London", "zip": "N1"}, "tags": [{"a": 1, "b": 2}]}


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("pick: [name, address.city]", {"name": "Ada", "address": {"city": "London"}}),
        ("pick: [tags.a, none]", {"tags": [{"a": 1}]}),
        ("drop: [secret, id, address.zip, tags]", {"name": "Ada", "address": {"city": "London"}}),
        ("pick: [id], rename: {id: user_id}", {"user_id": 1}),
        ('shape: "{n: name, c: address.city}"', {"n": "Ada", "c": "London"}),
        ("pick: [], rename: {}", {}),
    ],
)
def test_a_part_is_passed_on_in_the_shape_that_is_asked_for(
    shaped: tuple[Services, Start], said: str, found: object
) -> None:
    services, start = shaped
    services.says("/x", USER)
    assert ask(start(f"  GET /a: {{compose: {{x: {{call: s, get: /x, {said}}}}}}}"), "/a").json == {"x": found}


@pytest.fixture
def shaped(services: Services, tmp_path_factory: pytest.TempPathFactory) -> object:
    """The shared service, and gateways of the test's own."""
    running: list[Gateway] = []

    def start(routes: str) -> Gateway:
        config = f"""
services: {{s: {{http: ["http://127.0.0.1:{services.port}"]}}}}
defaults: {{public: true}}
routes:
{routes}"""
        running.append(Gateway(tmp_path_factory.mktemp("shaped"), config))
        return running[-1]

    yield services, start
    for each in running:
        each.stop()


def test_members_are_merged_in_the_order_that_is_written_however_fast_parts_are(shaped: tuple[Services, Start]) -> None:
    services, start = shaped
    services.says("/x", {"a": 1, "b": 1})
    services.says("/y", {"b": 2, "c": 2})
    gateway = start("""
  GET /a:
    compose:
      x: {call: s, get: /x, merge: true, when: "y.c == 2"}
      y: {call: s, get: /y, merge: true}
      z: {value: {d: 3}}
  GET /b:
    compose:
      y: {call: s, get: /y, merge: true}
      x: {call: s, get: /x, merge: true}
""")
    assert ask(gateway, "/a").body == b'{"a":1,"b":2,"c":2,"z":{"d":3}}'
    assert ask(gateway, "/b").body == b'{"c":2,"a":1,"b":1}'


def test_numbers_keep_every_digit_where_members_are_picked(shaped: tuple[Services, Start]) -> None:
    services, start = shaped
    services.answers["/x"] = http(b'{"n":12345678901234567890123.10,"e":1e400,"o":1}')
    gateway = start("  GET /a: {compose: {x: {call: s, get: /x, pick: [n, e]}}}")
    assert ask(gateway, "/a").body == b'{"x":{"n":12345678901234567890123.10,"e":1e400}}'


def test_the_whole_has_the_shape_that_the_route_says_and_hidden_parts_are_for_others(
    shaped: tuple[Services, Start],
) -> None:
    services, start = shaped
    services.says("/x", USER)
    services.says("/N1", [{"n": 1}, {"n": 2}])
    gateway = start("""
  GET /a:
    shape: "{who: user.name, all: near[].n}"
    compose:
      user: {call: s, get: /x, pick: [name]}
      near: {call: s, get: "/{user.address.zip}"}
  GET /b:
    compose:
      user: {call: s, get: /x, hidden: true}
      near: {call: s, get: "/{user.address.zip}"}
""")
    assert ask(gateway, "/a").json == {"who": "Ada", "all": [1, 2]}
    hidden = ask(gateway, "/b")
    assert hidden.json == {"near": [{"n": 1}, {"n": 2}]}
    assert list(hidden.parts) == ["user", "near"]


def test_what_cannot_be_reshaped_fails(shaped: tuple[Services, Start]) -> None:
    services, start = shaped
    services.says("/x", {"name": "Ada"})
    gateway = start("""
  GET /type: {compose: {x: {call: s, get: /x, shape: "abs(name)"}}}
  GET /most: {compose: {x: {call: s, get: /x, shape: {expression: name, most: 5B}, optional: true}}}
  GET /whole: {shape: "abs(x.name)", compose: {x: {call: s, get: /x}}}
""")
    for path in ("/type", "/whole"):
        answer = ask(gateway, path)
        assert (answer.status, json.loads(answer.body)["type"]) == (502, "urn:castlegate:bad_answer")
    assert ask(gateway, "/most").parts == {"x": "error"}


@pytest.mark.parametrize("depth", [500, 900, 960, 980, 990])
@pytest.mark.parametrize(
    "more",
    ["pick: [a.b]", "drop: [a]", "rename: {a: b}", "merge: true, pick: [a]", "shape: a"],
    ids=lambda text: text[:5],
)
def test_what_is_nested_too_deeply_to_be_looked_into_is_its_part_s_failure(
    services: Services, start: Start, more: str, depth: int
) -> None:
    services.answers["/deep"] = http(b"[" * depth + b"]" * depth)
    services.says("/fine", {"k": 1})
    gateway = start(
        f"  GET /a: {{compose: {{a: {{call: s, get: /deep, optional: true, {more}}}, b: {{call: s, get: /fine}}}}}}"
    )
    answer = ask(gateway, "/a")
    assert (answer.status, answer.json["b"]) == (200, {"k": 1})
