"""What clients may send: what is passed on as it was matched, what is refused and never seen behind."""

import json

import pytest
from tests.testbeds.gateway import Gateway
from tests.testbeds.wire import Client, Origin
from tests.wire.conftest import Start

H = b"Host: shop.example\r\n"

AMBIGUOUS = {
    "length and coding (C1)": (b"POST /a/x HTTP/1.1\r\n" + H + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "coding and length (C1)": (b"POST /a/x HTTP/1.1\r\n" + H + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", 400),
    "two lengths": (b"POST /a/x HTTP/1.1\r\n" + H + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello", 400),
    "two equal lengths": (b"POST /a/x HTTP/1.1\r\n" + H + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", 400),
    "a list of lengths": (b"POST /a/x HTTP/1.1\r\n" + H + b"Content-Length: 5, 5\r\n\r\nhello", 400),
    "a signed length": (b"POST /a/x HTTP/1.1\r\n" + H + b"Content-Length: +5\r\n\r\nhello", 400),
    "a negative length": (b"POST /a/x HTTP/1.1\r\n" + H + b"Content-Length: -5\r\n\r\nhello", 400),
    "an unknown coding": (b"POST /a/x HTTP/1.1\r\n" + H + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 400),
    "two codings": (b"POST /a/x HTTP/1.1\r\n" + H + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400),
    "chunked twice": (b"POST /a/x HTTP/1.1\r\n" + H + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "a coding in HTTP/1.0": (b"POST /a/x HTTP/1.0\r\n" + H + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "space before the colon": (b"GET /a/x HTTP/1.1\r\nHost : shop.example\r\n\r\n", 400),
    "a folded line": (b"GET /a/x HTTP/1.1\r\n" + H + b"X-A: 1\r\n 2\r\n\r\n", 400),
    "a bare LF": (b"GET /a/x HTTP/1.1\r\n" + H + b"X-A: 1\nX-B: 2\r\n\r\n", 400),
    "a NUL in a value": (b"GET /a/x HTTP/1.1\r\n" + H + b"X-A: 1\x002\r\n\r\n", 400),
    "a bare CR in a value": (b"GET /a/x HTTP/1.1\r\n" + H + b"X-A: 1\r2\r\n\r\n", 400),
    "no Host (C7)": (b"GET /a/x HTTP/1.1\r\n\r\n", 400),
    "two Hosts (C7)": (b"GET /a/x HTTP/1.1\r\n" + H + H + b"\r\n", 400),
    "HTTP/9.9 (C7)": (b"GET /a/x HTTP/9.9\r\n" + H + b"\r\n", 505),
    "HTTP/2.0": (b"GET /a/x HTTP/2.0\r\n" + H + b"\r\n", 505),
    "HTTP/0.9": (b"GET /a/x\r\n\r\n", 400),
    "RTSP": (b"GET /a/x RTSP/1.0\r\n" + H + b"\r\n", 400),
    "CONNECT (C7)": (b"CONNECT shop.example:443 HTTP/1.1\r\n" + H + b"\r\n", 501),
    "a tab in the request line (C7)": (b"GET\t/a/x HTTP/1.1\r\n" + H + b"\r\n", 400),
    "two spaces in the request line": (b"GET  /a/x HTTP/1.1\r\n" + H + b"\r\n", 400),
    "a lower-case method": (b"get /a/x HTTP/1.1\r\n" + H + b"\r\n", 400),
    "a fragment": (b"GET /a/x#y HTTP/1.1\r\n" + H + b"\r\n", 400),
    "a long URI": (b"GET /a/" + b"x" * 9000 + b" HTTP/1.1\r\n" + H + b"\r\n", 414),
    "a large head": (b"GET /a/x HTTP/1.1\r\n" + H + b"X-A: " + b"y" * 40_000 + b"\r\n\r\n", 431),
    "an endless head": (b"GET /a/x HTTP/1.1\r\n" + H + b"X-A: " + b"y" * 40_000, 431),
    "too many fields": (b"GET /a/x HTTP/1.1\r\n" + H + b"X-A: 1\r\n" * 120 + b"\r\n", 431),
    "an unknown expectation": (b"POST /a/x HTTP/1.1\r\n" + H + b"Expect: magic\r\nContent-Length: 5\r\n\r\n", 417),
    "a body over the limit (C5)": (b"POST /a/x HTTP/1.1\r\n" + H + b"Content-Length: 1001\r\n\r\n", 413),
}  # fmt: skip


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_what_is_ambiguous_is_refused_closed_and_never_seen_behind(gateway: Gateway, origin: Origin, name: str) -> None:
    message, status = AMBIGUOUS[name]
    with Client(gateway.port) as client:
        found, fields, body = client.send(message).read_answer()
        assert (found, fields["content-type"]) == (status, "application/problem+json")
        assert json.loads(body)["status"] == status
        assert client.closed()
    assert origin.seen == []


BROKEN_CHUNKS = {
    "a size that is none": b"zz\r\nhello\r\n0\r\n\r\n",
    "a chunk longer than it says": b"3\r\nhello\r\n0\r\n\r\n",
    "a bare LF after the size": b"5\nhello\r\n0\r\n\r\n",
    "an endless extension": b"5;" + b"x" * 2000 + b"\r\nhello\r\n0\r\n\r\n",
    "a malformed trailer": b"5\r\nhello\r\n0\r\nbad trailer\r\n\r\n",
}


@pytest.mark.parametrize("name", BROKEN_CHUNKS)
def test_a_broken_chunked_body_is_refused_and_closed(gateway: Gateway, origin: Origin, name: str) -> None:
    head = b"POST /a/x HTTP/1.1\r\n" + H + b"Transfer-Encoding: chunked\r\n\r\n"
    with Client(gateway.port) as client:
        assert client.send(head + BROKEN_CHUNKS[name]).read_answer()[0] == 400
        assert client.closed()
    assert origin.seen == []


def test_a_refusal_is_counted_by_its_reason(gateway: Gateway) -> None:
    with Client(gateway.port) as client:
        client.send(AMBIGUOUS["two Hosts (C7)"][0]).read_answer()
    assert gateway.metrics()['castlegate_refused_total{reason="framing"}'] == 1


PATHS = {
    b"/a/../admin": b"/admin",
    b"/a/%2e%2e/admin": b"/admin",
    b"//admin": b"/admin",
    b"/a/b%41": b"/a/bA",
    b"http://other.example/a/abs": b"/a/abs",
    b"/item/7": b"/things/7?full=1",
    b"/item/a%2Fb": b"/things/a%2Fb?full=1",
    b"/a/x?y=%2e&z": b"/a/x?y=%2e&z",
}


@pytest.mark.parametrize("path", PATHS)
def test_what_is_forwarded_is_what_was_matched(gateway: Gateway, origin: Origin, path: bytes) -> None:
    with Client(gateway.port) as client:
        assert client.send(b"GET %b HTTP/1.1\r\n%b\r\n" % (path, H)).read_answer()[0] == 200
    assert origin.seen[0].startswith(b"GET %b HTTP/1.1\r\n" % PATHS[path])


@pytest.mark.parametrize("path", [b"/a/%00", b"/a/..;/admin", b"/a/..%2Fadmin", b"/a/%5Cadmin", b"/a/%zz"])
def test_a_path_in_disguise_is_refused(gateway: Gateway, origin: Origin, path: bytes) -> None:
    with Client(gateway.port) as client:
        assert client.send(b"GET %b HTTP/1.1\r\n%b\r\n" % (path, H)).read_answer()[0] == 400
    assert origin.seen == []


def test_prefixes_are_stripped_and_put_before(gateway: Gateway, origin: Origin) -> None:
    with Client(gateway.port) as client:
        client.send(b"POST /stripped/x/y?q=1 HTTP/1.1\r\n" + H + b"Content-Length: 2\r\n\r\nhi").read_answer()
    assert origin.seen[0].startswith(b"POST /v2/x/y?q=1 HTTP/1.1\r\n")
    assert origin.seen[0].endswith(b"\r\n\r\nhi")


def test_pipelined_requests_are_answered_in_order(gateway: Gateway, origin: Origin) -> None:
    def number(connection: object, request: bytes) -> bool:
        path = request.split(b" ")[1]
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(path), path))  # type: ignore[attr-defined]
        return True

    origin.script = number
    with Client(gateway.port) as client:
        client.send(b"".join(b"GET /a/%d HTTP/1.1\r\n%b\r\n" % (index, H) for index in range(100)))
        assert [client.read_answer()[2] for _ in range(100)] == [b"/a/%d" % index for index in range(100)]


def test_requests_before_a_malformed_one_are_answered_first(gateway: Gateway, origin: Origin) -> None:
    with Client(gateway.port) as client:
        client.send(b"GET /a/1 HTTP/1.1\r\n" + H + b"\r\n" + b"GET /a/2 HTTP/1.1\r\n\r\n")
        assert [client.read_answer()[0], client.read_answer()[0]] == [200, 400]
        assert client.closed()
    assert len(origin.seen) == 1


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_any_split_of_a_message_gives_the_same(gateway: Gateway, origin: Origin, size: int) -> None:
    message = (
        b"POST /a/x HTTP/1.1\r\n"
        + H
        + b"Transfer-Encoding: chunked\r\n\r\n5;e=1\r\nhello\r\n3\r\nyou\r\n0\r\nX-T: 1\r\n\r\n"
    )
    with Client(gateway.port) as client:
        for at in range(0, len(message), size):
            client.send(message[at : at + size])
        assert client.read_answer()[0] == 200
        assert client.send(b"GET /a/next HTTP/1.1\r\n" + H + b"\r\n").read_answer()[0] == 200
    assert _dechunked(origin.seen[0]) == b"helloyou"
    assert b"x-t" not in origin.seen[0].lower()


def _dechunked(request: bytes) -> bytes:
    body, found = request.partition(b"\r\n\r\n")[2], b""
    while size := int(body.partition(b"\r\n")[0], 16):
        body = body.partition(b"\r\n")[2]
        found, body = found + body[:size], body[size + 2 :]
    return found


def test_a_client_that_expects_it_is_told_to_continue(gateway: Gateway, origin: Origin) -> None:
    with Client(gateway.port) as client:
        client.send(b"POST /a/x HTTP/1.1\r\n" + H + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        assert client.read_answer()[0] == 100
        assert client.send(b"hello").read_answer()[0] == 200
    assert origin.seen[0].endswith(b"hello")
    assert b"expect" not in origin.seen[0].lower()


def test_a_chunked_body_over_the_limit_is_refused_when_it_crosses_it(gateway: Gateway) -> None:
    with Client(gateway.port) as client:
        client.send(b"POST /a/x HTTP/1.1\r\n" + H + b"Transfer-Encoding: chunked\r\n\r\n")
        client.send(b"200\r\n" + b"x" * 512 + b"\r\n" + b"200\r\n" + b"x" * 512 + b"\r\n")
        assert client.read_answer()[0] == 413
        assert client.closed()


@pytest.mark.parametrize("begun", [b"GET /a/x HTT", b"POST /a/x HTTP/1.1\r\n" + H + b"Content-Length: 9\r\n\r\nhalf"])
def test_a_request_that_stalls_is_answered_408_and_closed(gateway: Gateway, begun: bytes) -> None:
    with Client(gateway.port) as client:
        assert client.send(begun).read_answer()[0] == 408
        assert client.closed()


def test_head_has_the_fields_of_get_and_no_body(gateway: Gateway) -> None:
    with Client(gateway.port) as client:
        status, fields, _ = client.send(b"HEAD /a/x HTTP/1.1\r\n" + H + b"\r\n").read_answer(bodiless=True)
        assert (status, fields["content-length"]) == (200, "2")
        assert client.send(b"GET /a/x HTTP/1.1\r\n" + H + b"\r\n").read_answer()[2] == b"ok"


@pytest.mark.parametrize(
    ("version", "field", "stays"),
    [(b"1.1", b"", True), (b"1.1", b"Connection: close\r\n", False), (b"1.0", b"", False),
     (b"1.0", b"Connection: keep-alive\r\n", True)],
)  # fmt: skip
def test_the_connection_lives_as_the_client_says(gateway: Gateway, version: bytes, field: bytes, stays: bool) -> None:
    request = b"GET /a/x HTTP/%b\r\n%b%b\r\n" % (version, H, field)
    with Client(gateway.port) as client:
        assert client.send(request).read_answer()[0] == 200
        assert (client.send(request).read_answer()[0] == 200) if stays else client.closed()


def test_options_and_a_wrong_method_name_what_is_allowed(gateway: Gateway) -> None:
    with Client(gateway.port) as client:
        status, fields, _ = client.send(b"OPTIONS /admin HTTP/1.1\r\n" + H + b"\r\n").read_answer()
        assert (status, fields["allow"]) == (204, "GET, HEAD, OPTIONS")
        status, fields, _ = client.send(b"DELETE /admin HTTP/1.1\r\n" + H + b"\r\n").read_answer()
        assert (status, fields["allow"]) == (405, "GET, HEAD, OPTIONS")


PREFLIGHT = b"OPTIONS %b HTTP/1.1\r\n" + H + b"Origin: http://page\r\nAccess-Control-Request-Method: %b\r\n\r\n"


def test_a_preflight_never_reaches_the_endpoint_it_asks_about(start: Start, origin: Origin) -> None:
    gateway = start(f"""
services: {{origin: {{http: ["http://127.0.0.1:{origin.port}"]}}}}
defaults: {{public: true}}
routes:
  DELETE /x: {{call: origin, delete: /things/1}}
  ANY /fixed: {{call: origin, post: /things}}
  ANY /own: {{call: origin}}
""")
    with Client(gateway.port) as client:
        status, fields, _ = client.send(PREFLIGHT % (b"/x", b"DELETE")).read_answer()
        assert (status, fields["allow"]) == (204, "DELETE, OPTIONS")
        assert client.send(PREFLIGHT % (b"/x", b"PUT")).read_answer()[0] == 405
        assert client.send(PREFLIGHT % (b"/fixed", b"POST")).read_answer()[0] == 204
        assert client.send(PREFLIGHT % (b"/nowhere", b"GET")).read_answer()[0] == 404
        assert origin.seen == []
        assert client.send(PREFLIGHT % (b"/own", b"POST")).read_answer()[0] == 200
    assert origin.seen[0].startswith(b"OPTIONS /own HTTP/1.1\r\n")
    assert gateway.metrics()['castlegate_requests_total{route="DELETE /x",status="204"}'] == 1


def test_what_a_client_says_of_itself_is_replaced(gateway: Gateway, origin: Origin) -> None:
    """C10, without identity."""
    with Client(gateway.port) as client:
        client.send(
            b"GET /a/x HTTP/1.1\r\n"
            + H
            + b"X-Forwarded-For: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\nX-Request-Id: bad id\r\n"
            b"traceparent: 00-zz\r\nConnection: X-Request-Id, X-Custom\r\nX-Custom: gone\r\nKeep-Alive: 1\r\nX-Kept: 1\r\n\r\n"
        ).read_answer()
    seen = origin.seen[0].lower()
    assert b"6.6.6.6" not in seen
    assert b"x-forwarded-for: 127.0.0.1\r\n" in seen
    assert b'forwarded: for=127.0.0.1;proto=http;host="shop.example"\r\n' in seen
    assert b"via: 1.1 castlegate\r\n" in seen
    assert b"x-kept: 1\r\n" in seen
    assert b"bad id" not in seen
    assert seen.count(b"x-request-id: ") == seen.count(b"traceparent: 00-") == 1
    assert b"x-custom" not in seen
    assert b"keep-alive" not in seen


def test_a_well_formed_trace_and_request_id_are_continued(gateway: Gateway, origin: Origin) -> None:
    trace = b"4bf92f3577b34da6a3ce929d0e0e4736"
    with Client(gateway.port) as client:
        _, fields, _ = client.send(
            b"GET /a/x HTTP/1.1\r\n"
            + H
            + b"X-Request-Id: abc-1\r\ntraceparent: 00-"
            + trace
            + b"-00f067aa0ba902b7-01\r\n\r\n"
        ).read_answer()
    assert fields["x-request-id"] == "abc-1"
    assert b"x-request-id: abc-1\r\n" in origin.seen[0]
    assert b"traceparent: 00-" + trace in origin.seen[0]
    assert b"00f067aa0ba902b7" not in origin.seen[0]


def test_fields_are_set_and_removed_both_ways(gateway: Gateway, origin: Origin) -> None:
    origin.script = lambda connection, _: (
        not connection.sendall(b"HTTP/1.1 200 OK\r\nx-inner: 1\r\nx-outer: 2\r\ncontent-length: 0\r\n\r\n")
    )
    with Client(gateway.port) as client:
        _, fields, _ = client.send(b"GET /fields?v=a%20b HTTP/1.1\r\n" + H + b"Cookie: s=1\r\n\r\n").read_answer()
    assert b"x-set: a b\r\n" in origin.seen[0]
    assert b"cookie" not in origin.seen[0].lower()
    assert "x-inner" not in fields
    assert fields["x-outer"] == "2"


def test_every_request_is_logged_once_with_secrets_redacted(gateway: Gateway) -> None:
    with Client(gateway.port) as client:
        client.send(b"GET /a/x?token=hunter2&q=1 HTTP/1.1\r\n" + H + b"\r\n").read_answer()
    (line,) = gateway.wait_logged(1)
    assert (line["method"], line["path"], line["query"], line["route"], line["status"]) == (
        "GET", "/a/x", "token=[redacted]&q=1", "ANY /a/{rest...}", 200,
    )  # fmt: skip


def test_sigterm_finishes_what_is_in_flight_and_exits_0(gateway: Gateway, origin: Origin) -> None:
    def slowly(connection: object, _request: bytes) -> bool:
        gateway.program.send_signal(__import__("signal").SIGTERM)
        gateway.program.wait_until(lambda: _refused(gateway.port), "the gateway to accept no more")
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nlate")  # type: ignore[attr-defined]
        return True

    origin.script = slowly
    with Client(gateway.port) as client:
        status, fields, body = client.send(b"GET /a/x HTTP/1.1\r\n" + H + b"\r\n").read_answer()
        assert (status, body, fields["connection"]) == (200, b"late", "close")
        assert client.closed()
    assert gateway.program.wait() == 0


def _refused(port: int) -> bool:
    try:
        Client(port).socket.close()
    except ConnectionRefusedError:
        return True
    return False
