"""Messages that are unusual and right: name → (bytes, what a service is to see of each request in them)."""

from typing import NamedTuple

H = b"Host: h\r\n"


class Expected(NamedTuple):
    """One request as a service sees it."""

    line: bytes
    body: bytes = b""
    present: tuple[bytes, ...] = ()  # lines
    absent: tuple[bytes, ...] = ()  # anywhere in the head


Table = dict[str, tuple[bytes, tuple[Expected, ...]]]

X = Expected(b"GET /a/x HTTP/1.1")
HELLO = Expected(b"POST /a/x HTTP/1.1", b"hello")


def _get(target: bytes = b"/a/x", fields: bytes = b"", method: bytes = b"GET") -> bytes:
    return b"%b %b HTTP/1.1\r\n%b%b\r\n" % (method, target, H, fields)


def _post(fields: bytes, body: bytes) -> bytes:
    return b"POST /a/x HTTP/1.1\r\n%b%b\r\n%b" % (H, fields, body)


def _chunked(body: bytes, fields: bytes = b"Transfer-Encoding: chunked\r\n") -> bytes:
    return _post(fields, body)


def _one(messages: dict[str, tuple[bytes, Expected]]) -> Table:
    return {name: (message, (expected,)) for name, (message, expected) in messages.items()}


LINES = _one({
    "an empty line before it": (b"\r\n" + _get(), X),
    "HTTP/1.0 without Host": (b"GET /a/x HTTP/1.0\r\n\r\n", X),
    "no fields in HTTP/1.0 but keep-alive": (b"GET /a/x HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", X),
    "an empty Host": (b"GET /a/x HTTP/1.1\r\nHost:\r\n\r\n", X),
    "a Host with a port": (b"GET /a/x HTTP/1.1\r\nHost: h:8080\r\n\r\n", X._replace(present=(b"x-forwarded-host: h:8080",))),
    "a Host of IPv6": (b"GET /a/x HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", X._replace(present=(b"x-forwarded-host: [::1]:80",))),
    "an absolute form": (_get(b"http://other.example/a/x"), X._replace(present=(b"x-forwarded-host: other.example",), absent=(b'host="h"',))),
    "an absolute form in capitals": (_get(b"HTTP://other.example:80/a/x"), X._replace(present=(b"x-forwarded-host: other.example:80",))),
    "an absolute form with a query": (_get(b"http://h/a/x?a=/b"), Expected(b"GET /a/x?a=/b HTTP/1.1")),
    "HEAD": (_get(method=b"HEAD"), Expected(b"HEAD /a/x HTTP/1.1")),
    "DELETE": (_get(method=b"DELETE"), Expected(b"DELETE /a/x HTTP/1.1")),
    "PATCH": (b"PATCH /a/x HTTP/1.1\r\n" + H + b"Content-Length: 5\r\n\r\nhello", Expected(b"PATCH /a/x HTTP/1.1", b"hello")),
    "PUT of nothing": (b"PUT /a/x HTTP/1.1\r\n" + H + b"\r\n", Expected(b"PUT /a/x HTTP/1.1", present=(b"content-length: 0",))),
    "OPTIONS": (_get(method=b"OPTIONS"), Expected(b"OPTIONS /a/x HTTP/1.1")),
    "PROPFIND": (_get(method=b"PROPFIND"), Expected(b"PROPFIND /a/x HTTP/1.1")),
    "QUERY": (b"QUERY /a/x HTTP/1.1\r\n" + H + b"Content-Length: 5\r\n\r\nhello", Expected(b"QUERY /a/x HTTP/1.1", b"hello")),
    "GET with a body": (b"GET /a/x HTTP/1.1\r\n" + H + b"Content-Length: 5\r\n\r\nhello", X._replace(body=b"hello")),
    "DELETE with chunks": (b"DELETE /a/x HTTP/1.1\r\n" + H + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", Expected(b"DELETE /a/x HTTP/1.1", b"hello")),
})  # fmt: skip

FIELDS = _one({
    "no space behind the colon": (_get(fields=b"X-A:1\r\n"), X._replace(present=(b"x-a: 1",))),
    "much space behind the colon": (_get(fields=b"X-A: \t  1 \t \r\n"), X._replace(present=(b"x-a: 1",))),
    "an empty value": (_get(fields=b"X-A:\r\n"), X._replace(present=(b"x-a: ",))),
    "tab in a value": (_get(fields=b"X-A: a\tb\r\n"), X._replace(present=(b"x-a: a\tb",))),
    "Latin-1 in a value": (_get(fields=b"X-A: caf\xe9\r\n"), X._replace(present=(b"x-a: caf\xe9",))),
    "every sign of a token in a name": (_get(fields=b"!#$%&'*+-.^_`|~09aZ: 1\r\n"), X._replace(present=(b"!#$%&'*+-.^_`|~09az: 1",))),
    "a field twice": (_get(fields=b"X-A: 1\r\nX-A: 2\r\n"), X._replace(present=(b"x-a: 1", b"x-a: 2"))),
    "two cookies": (_get(fields=b"Cookie: a=1\r\nCookie: b=2\r\n"), X._replace(present=(b"cookie: a=1", b"cookie: b=2"))),
    "99 fields": (_get(fields=b"X-A: 1\r\n" * 99), X),
    "a field of 20 KB": (_get(fields=b"X-A: " + b"y" * 20_000 + b"\r\n"), X),
    "a field named by Connection": (_get(fields=b"Connection: X-A, x-b\r\nX-A: 1\r\nX-B: 1\r\nX-C: 1\r\n"), X._replace(present=(b"x-c: 1",), absent=(b"x-a:", b"x-b:", b"connection:"))),
    "a field named by Connection before its place": (_get(fields=b"X-A: 1\r\nConnection: x-a\r\n"), X._replace(absent=(b"x-a:",))),
    "two Connections": (_get(fields=b"Connection: x-a\r\nConnection: x-b\r\nX-A: 1\r\nX-B: 1\r\n"), X._replace(absent=(b"x-a:", b"x-b:"))),
    "fields of the gateway's own named by Connection": (_get(fields=b"Connection: host, x-forwarded-for, x-request-id, via, traceparent, forwarded, content-length\r\n"), X._replace(present=(b"via: 1.1 castlegate", b"x-forwarded-host: h"))),
    "an upgrade that is not offered": (_get(fields=b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n"), X._replace(absent=(b"\r\nupgrade:", b"\r\nconnection:"))),
    "h2c": (_get(fields=b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"), X._replace(absent=(b"h2c", b"http2-settings"))),
    "TE": (_get(fields=b"TE: trailers, deflate;q=0.5\r\nConnection: TE\r\n"), X._replace(absent=(b"\r\nte:",))),
    "Keep-Alive and Proxy-Connection": (_get(fields=b"Keep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\n"), X._replace(absent=(b"keep-alive",))),
    "lengths and codings in other spellings": (_get(fields=b"Content_Length: 5\r\nTransfer_Encoding: chunked\r\nContent-Lenght: 7\r\n"), X._replace(absent=(b"content_length", b"transfer_encoding"))),
    "Expect in HTTP/1.0": (b"GET /a/x HTTP/1.0\r\nExpect: 100-continue\r\n\r\n", X._replace(absent=(b"expect",))),
})  # fmt: skip

BODIES = _one({
    "a length with zeros": (_post(b"Content-Length: 0005\r\n", b"hello"), HELLO._replace(present=(b"content-length: 5",))),
    "a length with space around": (_post(b"Content-Length: \t 5 \t\r\n", b"hello"), HELLO._replace(present=(b"content-length: 5",))),
    "a length of zero": (_post(b"Content-Length: 0\r\n", b""), HELLO._replace(body=b"", present=(b"content-length: 0",))),
    "a POST without a length": (_post(b"", b""), HELLO._replace(body=b"", present=(b"content-length: 0",))),
    "a body that looks like a request": (_post(b"Content-Length: 28\r\n", b"GET /a/y HTTP/1.1\r\nHost:h\r\n\r"), HELLO._replace(body=b"GET /a/y HTTP/1.1\r\nHost:h\r\n\r")),
    "an upgrade with a body": (_post(b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 5\r\n", b"hello"), HELLO._replace(absent=(b"h2c",))),
    "chunks": (_chunked(b"5\r\nhello\r\n0\r\n\r\n"), HELLO),
    "a coding in capitals": (_chunked(b"5\r\nhello\r\n0\r\n\r\n", b"TRANSFER-ENCODING: Chunked\r\n"), HELLO),
    "a coding without space": (_chunked(b"5\r\nhello\r\n0\r\n\r\n", b"Transfer-Encoding:chunked\r\n"), HELLO),
    "many chunks": (_chunked(b"1\r\nh\r\n1\r\ne\r\n2\r\nll\r\n1\r\no\r\n0\r\n\r\n"), HELLO),
    "sizes with zeros": (_chunked(b"0005\r\nhello\r\n000\r\n\r\n"), HELLO),
    "sizes in both cases": (_chunked(b"a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n"), HELLO._replace(body=b"0123456789" * 2)),
    "extensions": (_chunked(b'5;a;b=c; d="e f"\r\nhello\r\n0;last\r\n\r\n'), HELLO),
    "an extension behind space": (_chunked(b"5 ; a\r\nhello\r\n0\r\n\r\n"), HELLO),
    "trailers": (_chunked(b"5\r\nhello\r\n0\r\nX-T: 1\r\nX-U:\r\n\r\n"), HELLO._replace(absent=(b"x-t",))),
    "trailers of framing": (_chunked(b"5\r\nhello\r\n0\r\nContent-Length: 50\r\nTransfer-Encoding: x\r\nHost: evil\r\n\r\n"), HELLO._replace(absent=(b"evil",))),
    "chunks of nothing": (_chunked(b"0\r\n\r\n"), HELLO._replace(body=b"")),
    "chunks that hold line ends": (_chunked(b"4\r\n\r\n\r\n\r\n5\r\n0\r\n\r\n\r\n0\r\n\r\n"), HELLO._replace(body=b"\r\n\r\n0\r\n\r\n")),
    "an expectation with its body": (_post(b"Expect: 100-continue\r\nContent-Length: 5\r\n", b"hello"), HELLO._replace(absent=(b"expect",))),
    "an expectation in capitals": (_post(b"Expect: 100-CONTINUE\r\nContent-Length: 5\r\n", b"hello"), HELLO),
})  # fmt: skip

PATHS = _one({
    "dot segments": (_get(b"/b/../a/./x"), X),
    "encoded dot segments": (_get(b"/b/%2e%2E/a/%2e/x"), X),
    "slashes": (_get(b"//a///x"), X),
    "escapes of plain letters": (_get(b"/%61/%78"), X),
    "an encoded slash": (_get(b"/a/x%2fy"), Expected(b"GET /a/x%2Fy HTTP/1.1")),
    "an encoded percent sign": (_get(b"/a/100%25"), Expected(b"GET /a/100%25 HTTP/1.1")),
    "an encoded escape": (_get(b"/a/x%2520y"), Expected(b"GET /a/x%2520y HTTP/1.1")),
    "parameters": (_get(b"/a/x;v=1"), Expected(b"GET /a/x;v=1 HTTP/1.1")),
    "UTF-8": (_get(b"/a/%c3%a9"), Expected(b"GET /a/%C3%A9 HTTP/1.1")),
    "signs that others encode": (_get(b"/a/<x>|{y}"), Expected(b"GET /a/%3Cx%3E%7C%7By%7D HTTP/1.1")),
    "three dots": (_get(b"/a/.../x"), Expected(b"GET /a/.../x HTTP/1.1")),
    "a query of anything": (_get(b"/a/x?../..;%00%zz?\"<>"), Expected(b'GET /a/x?../..;%00%zz?"<> HTTP/1.1')),
    "an empty query": (_get(b"/a/x?"), X),
    "a slash at the end": (_get(b"/a/x/"), Expected(b"GET /a/x/ HTTP/1.1")),
    "8 KB of it": (_get(b"/a/" + b"x" * 8000), Expected(b"GET /a/" + b"x" * 8000 + b" HTTP/1.1")),
})  # fmt: skip

NEXT = Expected(b"GET /a/next HTTP/1.1")
_next = _get(b"/a/next")

PIPELINED: Table = {
    "two requests": (_get() + _next, (X, NEXT)),
    "a body and a request": (_post(b"Content-Length: 5\r\n", b"hello") + _next, (HELLO, NEXT)),
    "chunks and a request": (_chunked(b"5\r\nhello\r\n0\r\n\r\n") + _next, (HELLO, NEXT)),
    "trailers and a request": (_chunked(b"5\r\nhello\r\n0\r\nX: 1\r\n\r\n") + _next, (HELLO, NEXT)),
    "an empty line between": (_post(b"Content-Length: 5\r\n", b"hello") + b"\r\n" + _next, (HELLO, NEXT)),
    "the same head three times": (_get() * 3, (X, X, X)),
    "the same fields, another method": (_get(method=b"HEAD") + _get(), (Expected(b"HEAD /a/x HTTP/1.1"), X)),
    "the same fields, another version": (_get() + b"GET /a/x HTTP/1.0\r\n" + H + b"\r\n", (X, X)),
    "the same fields around an absolute form": (
        _get(b"/a/1") + _get(b"http://other.example/a/2") + _get(b"/a/3"),
        (
            Expected(b"GET /a/1 HTTP/1.1", present=(b"x-forwarded-host: h",)),
            Expected(b"GET /a/2 HTTP/1.1", present=(b"x-forwarded-host: other.example",), absent=(b'host="h"',)),
            Expected(b"GET /a/3 HTTP/1.1", present=(b"x-forwarded-host: h",), absent=(b"other.example",)),
        ),
    ),
    "the same fields with bodies": (
        _post(b"Content-Length: 5\r\n", b"hello") + _post(b"Content-Length: 5\r\n", b"world"),
        (HELLO, HELLO._replace(body=b"world")),
    ),
    "the same fields with chunks": (_chunked(b"5\r\nhello\r\n0\r\n\r\n") * 2, (HELLO, HELLO)),
    "fields that are named by Connection in one of two": (
        _get(fields=b"Connection: x-a\r\nX-A: 1\r\n") + _get(fields=b"X-A: 1\r\n"),
        (X._replace(absent=(b"x-a",)), X._replace(present=(b"x-a: 1",))),
    ),
    "a request id in one of two": (
        _get(fields=b"X-Request-Id: mine\r\n") + _get(),
        (X._replace(present=(b"x-request-id: mine",)), X._replace(absent=(b"mine",))),
    ),
    "a trace in one of two": (
        _get(fields=b"Traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\nTracestate: a=b\r\n") + _get(),
        (X._replace(present=(b"tracestate: a=b",)), X._replace(absent=(b"tracestate", b"4bf92f3577b34da6"))),
    ),
}  # fmt: skip

PASSED: Table = LINES | FIELDS | BODIES | PATHS | PIPELINED
