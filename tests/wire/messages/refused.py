"""Messages that no service may see anything of: name → (bytes, status). Each is refused, and the connection closed.

Most are what two servers in a row are known to read in two ways (RFC 9112 §11.2, and the public tables of request
smuggling); the rest is no HTTP at all.
"""

H = b"Host: h\r\n"
GET = b"GET /a/x HTTP/1.1\r\n" + H
POST = b"POST /a/x HTTP/1.1\r\n" + H
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
HIDDEN = b"GET /a/hidden HTTP/1.1\r\n" + H + b"\r\n"  # what a smuggler wants to be taken for a request

Table = dict[str, tuple[bytes, int]]


def _lines(lines: dict[str, bytes], status: int = 400) -> Table:
    return {f"request line: {name}": (line + H + b"\r\n", status) for name, line in lines.items()}


def _fields(fields: dict[str, bytes], status: int = 400) -> Table:
    return {f"field: {name}": (GET + field + b"\r\n", status) for name, field in fields.items()}


def _framed(fields: dict[str, bytes], status: int = 400) -> Table:
    """Fields of framing before a body that is a request in disguise under one of its readings."""
    return {f"framing: {name}": (POST + field + b"\r\n0\r\n\r\n" + HIDDEN, status) for name, field in fields.items()}


def _chunks(bodies: dict[str, bytes], status: int = 400) -> Table:
    return {f"chunks: {name}": (CHUNKED + body, status) for name, body in bodies.items()}


def _paths(paths: dict[str, bytes], status: int = 400) -> Table:
    return {f"path: {name}": (b"GET %b HTTP/1.1\r\n%b\r\n" % (path, H), status) for name, path in paths.items()}


REQUEST_LINES = (
    _lines({
        "no version (0.9)": b"GET /a/x\r\n",
        "RTSP": b"GET /a/x RTSP/1.0\r\n",
        "ICE": b"SOURCE /a/x ICE/1.0\r\n",
        "version in lower case": b"GET /a/x http/1.1\r\n",
        "version without minor": b"GET /a/x HTTP/1.\r\n",
        "version with a sign": b"GET /a/x HTTP/+1.1\r\n",
        "version with space behind": b"GET /a/x HTTP/1.1 \r\n",
        "version with a tab before": b"GET /a/x\tHTTP/1.1\r\n",
        "version with text behind": b"GET /a/x HTTP/1.1x\r\n",
        "two versions": b"GET /a/x HTTP/1.1 HTTP/1.1\r\n",
        "two spaces before the target": b"GET  /a/x HTTP/1.1\r\n",
        "two spaces before the version": b"GET /a/x  HTTP/1.1\r\n",
        "space in the target": b"GET /a/x /a/y HTTP/1.1\r\n",
        "space before the method": b" GET /a/x HTTP/1.1\r\n",
        "tab behind the method": b"GET\t/a/x HTTP/1.1\r\n",
        "vertical tab behind the method": b"GET\x0b/a/x HTTP/1.1\r\n",
        "form feed in the target": b"GET /a/\x0cx HTTP/1.1\r\n",
        "no target": b"GET HTTP/1.1\r\n",
        "empty target": b"GET  HTTP/1.1\r\n",
        "lower-case method": b"get /a/x HTTP/1.1\r\n",
        "mixed-case method": b"Get /a/x HTTP/1.1\r\n",
        "method with a colon": b"GET: /a/x HTTP/1.1\r\n",
        "method with NUL": b"G\x00ET /a/x HTTP/1.1\r\n",
        "method of letters beyond ASCII": b"G\xc3\x89T /a/x HTTP/1.1\r\n",
        "very long method": b"G" * 100 + b" /a/x HTTP/1.1\r\n",
        "NUL in the target": b"GET /a/\x00x HTTP/1.1\r\n",
        "DEL in the target": b"GET /a/\x7fx HTTP/1.1\r\n",
        "raw UTF-8 in the target": b"GET /a/\xc3\xa9 HTTP/1.1\r\n",
        "raw Latin-1 in the query": b"GET /a/x?q=\xe9 HTTP/1.1\r\n",
        "fragment": b"GET /a/x#y HTTP/1.1\r\n",
        "fragment in the query": b"GET /a/x?q#y HTTP/1.1\r\n",
        "bare LF": b"GET /a/x HTTP/1.1\n",
        "bare CR": b"GET /a/x HTTP/1.1\r",
        "CR CR LF": b"GET /a/x HTTP/1.1\r\r\n",
        "CR in the target": b"GET /a/\rx HTTP/1.1\r\n",
        "a field before it": b"X: 1\r\nGET /a/x HTTP/1.1\r\n",
        "two empty lines before it": b"\r\n\r\nGET /a/x HTTP/1.1\r\n",
        "LF before it": b"\nGET /a/x HTTP/1.1\r\n",
        "CR before it": b"\rGET /a/x HTTP/1.1\r\n",
        "a byte order mark before it": b"\xef\xbb\xbfGET /a/x HTTP/1.1\r\n",
        "folded": b"GET /a/x\r\n HTTP/1.1\r\n",
        "asterisk with GET": b"GET * HTTP/1.1\r\n",
        "authority with GET": b"GET h:80 HTTP/1.1\r\n",
        "path without a slash": b"GET a/x HTTP/1.1\r\n",
        "asterisk and more": b"OPTIONS *x HTTP/1.1\r\n",
        "absolute form of another scheme": b"GET ftp://h/a/x HTTP/1.1\r\n",
        "absolute form of a file": b"GET file:///a/x HTTP/1.1\r\n",
        "absolute form without a host": b"GET http:///a/x HTTP/1.1\r\n",
        "absolute form with a port alone": b"GET http://:80/a/x HTTP/1.1\r\n",
        "absolute form with one slash": b"GET http:/a/x HTTP/1.1\r\n",
        "absolute form with a user": b"GET http://u:p@h/a/x HTTP/1.1\r\n",
        "absolute form with a backslash": b"GET http://h\\@other/a/x HTTP/1.1\r\n",
        "absolute form with a fragment": b"GET http://h/a/x#y HTTP/1.1\r\n",
        "absolute form with a port that is none": b"GET http://h:8x/a/x HTTP/1.1\r\n",
    })
    | _lines({
        "HTTP/0.9": b"GET /a/x HTTP/0.9\r\n",
        "HTTP/1.2": b"GET /a/x HTTP/1.2\r\n",
        "HTTP/1.10": b"GET /a/x HTTP/1.10\r\n",
        "HTTP/2.0": b"GET /a/x HTTP/2.0\r\n",
        "HTTP/2": b"GET /a/x HTTP/2\r\n",
        "HTTP/9.9": b"GET /a/x HTTP/9.9\r\n",
        "HTTP/11.1": b"GET /a/x HTTP/11.1\r\n",
    }, 505)
    | _lines({
        "CONNECT": b"CONNECT h:443 HTTP/1.1\r\n",
        "CONNECT to a path": b"CONNECT /a/x HTTP/1.1\r\n",
        "TRACE": b"TRACE /a/x HTTP/1.1\r\n",
        "unknown method": b"FOO /a/x HTTP/1.1\r\n",
        "method of RTSP": b"DESCRIBE /a/x HTTP/1.1\r\n",
    }, 501)
    | {
        "the preface of HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        "a hello of TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n\r\n\r\n", 400),
        "a head of bare LFs": (b"GET /a/x HTTP/1.1\nHost: h\n\n", 400),
        "an empty head": (b"\r\n\r\n", 400),
        "a long target": (b"GET /a/" + b"x" * 9000 + b" HTTP/1.1\r\n" + H + b"\r\n", 414),
        "a target beyond the head's size": (b"GET /a/" + b"x" * 40_000, 431),
    }
)  # fmt: skip

FIELDS = _fields({
    "space before the colon": b"X-A : 1\r\n",
    "tab before the colon": b"X-A\t: 1\r\n",
    "no colon": b"X-A\r\n",
    "no name": b": 1\r\n",
    "space before the name": b" X-A: 1\r\n",
    "folded": b"X-A: 1\r\n 2\r\n",
    "folded with a tab": b"X-A: 1\r\n\t2\r\n",
    "a line of white space": b"X-A: 1\r\n \r\n",
    "bare LF": b"X-A: 1\nX-B: 2\r\n",
    "bare CR": b"X-A: 1\rX-B: 2\r\n",
    "CR CR LF": b"X-A: 1\r\r\n",
    "NUL in the value": b"X-A: 1\x002\r\n",
    "NUL in the name": b"X\x00-A: 1\r\n",
    "control in the value": b"X-A: \x01\r\n",
    "escape in the value": b"X-A: \x1b[2J\r\n",
    "DEL in the value": b"X-A: \x7f\r\n",
    "brackets in the name": b"X[A]: 1\r\n",
    "a quote in the name": b'X"A: 1\r\n',
    "Latin-1 in the name": b"X-\xe9: 1\r\n",
    "a slash in the name": b"X/A: 1\r\n",
    "space inside the name": b"X A: 1\r\n",
    "a second Host": b"Host: h\r\n",
    "a second Host in another spelling": b"hOST: other\r\n",
    "a request line": b"GET /a/hidden HTTP/1.1\r\n",
}) | {
    "field: no Host": (b"GET /a/x HTTP/1.1\r\n\r\n", 400),
    "field: Host of two names": (b"GET /a/x HTTP/1.1\r\nHost: a, b\r\n\r\n", 400),
    "field: Host with a path": (b"GET /a/x HTTP/1.1\r\nHost: h/admin\r\n\r\n", 400),
    "field: Host with a user": (b"GET /a/x HTTP/1.1\r\nHost: u@h\r\n\r\n", 400),
    "field: Host with a space": (b"GET /a/x HTTP/1.1\r\nHost: h other\r\n\r\n", 400),
    "field: Host with a port that is none": (b"GET /a/x HTTP/1.1\r\nHost: h:x\r\n\r\n", 400),
    "field: Host with a quote": (b'GET /a/x HTTP/1.1\r\nHost: h";for=x\r\n\r\n', 400),
    "field: Host of 300 bytes": (b"GET /a/x HTTP/1.1\r\nHost: " + b"h" * 300 + b"\r\n\r\n", 400),
    "field: Host folded": (b"GET /a/x HTTP/1.1\r\nHost:\r\n h\r\n\r\n", 400),
    "field: no Host beside an absolute form": (b"GET http://h/a/x HTTP/1.1\r\n\r\n", 400),
    "field: two Hosts in 1.0": (b"GET /a/x HTTP/1.0\r\n" + H + H + b"\r\n", 400),
    "field: 101 of them": (GET + b"X-A: 1\r\n" * 100 + b"\r\n", 431),
    "field: 40 KB": (GET + b"X-A: " + b"y" * 40_000 + b"\r\n\r\n", 431),
    "field: endless": (GET + b"X-A: " + b"y" * 40_000, 431),
}  # fmt: skip

FRAMING = _framed({
    "length and coding": b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
    "coding and length": b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
    "coding and length of nothing": b"Transfer-Encoding: chunked\r\nContent-Length: 0\r\n",
    "identity and length": b"Transfer-Encoding: identity\r\nContent-Length: 5\r\n",
    "unknown coding and length": b"Transfer-Encoding: x\r\nContent-Length: 5\r\n",
    "two lengths": b"Content-Length: 5\r\nContent-Length: 6\r\n",
    "two equal lengths": b"Content-Length: 5\r\nContent-Length: 5\r\n",
    "two lengths, one in lower case": b"Content-Length: 5\r\ncontent-length: 5\r\n",
    "a list of lengths": b"Content-Length: 5, 5\r\n",
    "a list of two lengths": b"Content-Length: 5,6\r\n",
    "a signed length": b"Content-Length: +5\r\n",
    "a negative length": b"Content-Length: -5\r\n",
    "a length of nothing less": b"Content-Length: -0\r\n",
    "a hexadecimal length": b"Content-Length: 0x5\r\n",
    "a length with an underscore": b"Content-Length: 1_0\r\n",
    "a length with a point": b"Content-Length: 5.0\r\n",
    "a length with an exponent": b"Content-Length: 5e0\r\n",
    "a length with a space inside": b"Content-Length: 5 5\r\n",
    "a length with text": b"Content-Length: 5x\r\n",
    "a quoted length": b'Content-Length: "5"\r\n',
    "an empty length": b"Content-Length:\r\n",
    "a length of superscripts": b"Content-Length: \xb2\r\n",
    "a length with a NUL": b"Content-Length: 5\x00\r\n",
    "a length with a form feed": b"Content-Length: \x0c5\r\n",
    "a huge length": b"Content-Length: 18446744073709551616\r\n",
    "a huger length": b"Content-Length: " + b"9" * 400 + b"\r\n",
    "a folded length": b"Content-Length: 5\r\n 5\r\n",
    "a length with space before the colon": b"Content-Length : 5\r\n",
    "an unknown coding": b"Transfer-Encoding: xchunked\r\n",
    "a coding with a sign": b"Transfer-Encoding: -chunked\r\n",
    "a coding with parameters": b"Transfer-Encoding: chunked;q=1\r\n",
    "a quoted coding": b'Transfer-Encoding: "chunked"\r\n',
    "two codings": b"Transfer-Encoding: gzip, chunked\r\n",
    "chunked, identity": b"Transfer-Encoding: chunked, identity\r\n",
    "identity": b"Transfer-Encoding: identity\r\n",
    "chunked twice": b"Transfer-Encoding: chunked, chunked\r\n",
    "chunked in two fields": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
    "chunked and another coding in two fields": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n",
    "identity and chunked in two fields": b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n",
    "an empty coding": b"Transfer-Encoding:\r\n",
    "a coding with a comma": b"Transfer-Encoding: ,chunked\r\n",
    "a coding with a comma behind": b"Transfer-Encoding: chunked,\r\n",
    "a coding with a vertical tab": b"Transfer-Encoding: \x0bchunked\r\n",
    "a coding with a NUL": b"Transfer-Encoding: chunked\x00\r\n",
    "a coding with white space behind": b"Transfer-Encoding: chunked \t\r\n",
    "a folded coding": b"Transfer-Encoding:\r\n chunked\r\n",
    "a coding behind a bare LF": b"X: x\nTransfer-Encoding: chunked\r\n",
    "a coding behind a bare CR": b"X: x\rTransfer-Encoding: chunked\r\n",
    "a coding with space before the colon": b"Transfer-Encoding : chunked\r\n",
    "a coding with space before the name": b" Transfer-Encoding: chunked\r\n",
    "a coding in pieces": b"Transfer-Encoding: chun\r\n ked\r\n",
    "a coding of GETs": b"Transfer-Encoding: cow\r\nTransfer-Encoding: chunked\r\n",
}) | _framed({"an unknown expectation": b"Expect: magic\r\nContent-Length: 5\r\n"}, 417) | {
    "framing: a coding in 1.0": (b"POST /a/x HTTP/1.0\r\n" + H + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "framing: an unknown expectation without a body": (GET + b"Expect: magic\r\n\r\n", 417),
    "framing: an unknown expectation of nothing": (POST + b"Expect: magic\r\nContent-Length: 0\r\n\r\n", 417),
    "framing: a body over the limit": (POST + b"Content-Length: 101\r\n\r\n" + b"x" * 101, 413),
    "framing: a body over the limit that never comes": (POST + b"Content-Length: 999999999\r\n\r\n", 413),
    "framing: a body on a path that is none": (b"POST /a/%00 HTTP/1.1\r\n" + H + b"Content-Length: 5\r\n\r\nhello", 400),
}  # fmt: skip

CHUNKS = _chunks({
    "no size": b"\r\nhello\r\n0\r\n\r\n",
    "a size that is none": b"zz\r\nhello\r\n0\r\n\r\n",
    "a size with 0x": b"0x5\r\nhello\r\n0\r\n\r\n",
    "a signed size": b"+5\r\nhello\r\n0\r\n\r\n",
    "a negative size": b"-5\r\nhello\r\n0\r\n\r\n",
    "a size with an underscore": b"0_5\r\nhello\r\n0\r\n\r\n",
    "a size with space before": b" 5\r\nhello\r\n0\r\n\r\n",
    "a size with space behind": b"5 \r\nhello\r\n0\r\n\r\n",
    "a size that overflows 64 bits": b"10000000000000005\r\nhello\r\n0\r\n\r\n",
    "a size of 100 zeros": b"0" * 100 + b"5\r\nhello\r\n0\r\n\r\n",
    "a size with a bare LF": b"5\nhello\r\n0\r\n\r\n",
    "a size with a bare CR": b"5\rhello\r\n0\r\n\r\n",
    "a size with CR CR LF": b"5\r\r\nhello\r\n0\r\n\r\n",
    "a size with a NUL": b"5\x00\r\nhello\r\n0\r\n\r\n",
    "an endless extension": b"5;" + b"x" * 2000 + b"\r\nhello\r\n0\r\n\r\n",
    "an extension with a bare LF": b"5;x\nhello\r\n0\r\n\r\n",
    "an extension with a bare CR": b"5;x\rhello\r\n0\r\n\r\n",
    "an extension with a control": b"5;x=\x01\r\nhello\r\n0\r\n\r\n",
    "a chunk longer than it says": b"3\r\nhello\r\n0\r\n\r\n",
    "a chunk shorter than it says": b"9\r\nhello\r\n0\r\n\r\nxxxx",
    "a chunk without an end of line": b"5\r\nhello0\r\n\r\n",
    "a chunk that ends in LF": b"5\r\nhello\n0\r\n\r\n",
    "a chunk that ends in CR": b"5\r\nhello\r0\r\n\r\n",
    "a chunk that ends in LF CR": b"5\r\nhello\n\r0\r\n\r\n",
    "two bytes that are no end of line": b"5\r\nhelloXX0\r\n\r\n",
    "a last chunk with a bare LF": b"5\r\nhello\r\n0\n\n",
    "an end with a bare LF": b"5\r\nhello\r\n0\r\n\n",
    "a trailer without a colon": b"5\r\nhello\r\n0\r\nbad trailer\r\n\r\n",
    "a trailer with space before the colon": b"5\r\nhello\r\n0\r\nX : 1\r\n\r\n",
    "a trailer with a NUL": b"5\r\nhello\r\n0\r\nX: \x00\r\n\r\n",
    "a folded trailer": b"5\r\nhello\r\n0\r\nX: 1\r\n 2\r\n\r\n",
    "a trailer with a bare LF": b"5\r\nhello\r\n0\r\nX: 1\nY: 2\r\n\r\n",
    "a trailer that is a request line": b"5\r\nhello\r\n0\r\nGET /a/hidden HTTP/1.1\r\n\r\n",
}) | _chunks({
    "101 trailers": b"5\r\nhello\r\n0\r\n" + b"X: 1\r\n" * 101 + b"\r\n",
    "a trailer of 40 KB": b"5\r\nhello\r\n0\r\nX: " + b"y" * 40_000 + b"\r\n\r\n",
}, 431) | _chunks({
    "more than may be": b"65\r\n" + b"x" * 101 + b"\r\n0\r\n\r\n",
    "more than may be, in small pieces": b"1\r\nx\r\n" * 101 + b"0\r\n\r\n",
}, 413)  # fmt: skip

PATHS = _paths({
    "above the root": b"/../a/x",
    "above the root, encoded": b"/%2e%2e/a/x",
    "above the root from below": b"/a/../../x",
    "NUL": b"/a/%00",
    "NUL behind a suffix": b"/a/x%00.html",
    "an encoded line end": b"/a/%0d%0aX:1",
    "an encoded tab": b"/a/%09",
    "an encoded DEL": b"/a/%7f",
    "a backslash": b"/a\\x",
    "an encoded backslash": b"/a/%5Cadmin",
    "dots behind an encoded slash": b"/a/..%2Fadmin",
    "dots before an encoded slash": b"/a%2f..%2fadmin",
    "dots with parameters": b"/a/..;/admin",
    "dots with parameters of text": b"/a/..;x=1/admin",
    "dots with encoded parameters": b"/a/..%3Bx/admin",
    "a segment of parameters": b"/;x/admin",
    "dots encoded twice": b"/a/%252e%252e/admin",
    "dots and a slash encoded twice": b"/a/..%252fadmin",
    "dots encoded three times": b"/a/%25252e%25252e/admin",
    "half an escape": b"/a/%4",
    "an escape that is none": b"/a/%zz",
    "an escape of IIS": b"/a/%u002e",
    "an overlong dot": b"/a/%c0%ae%c0%ae/admin",
    "an overlong slash": b"/a/%c0%af",
    "no UTF-8": b"/a/%ff",
    "a surrogate": b"/a/%ed%a0%80",
    "an encoded slash to another route": b"/a/..%2f..%2fadmin",
    "dots in pieces": b"/a/.%2e/.%2E/admin",
})  # fmt: skip

REFUSED: Table = REQUEST_LINES | FIELDS | FRAMING | CHUNKS | PATHS
