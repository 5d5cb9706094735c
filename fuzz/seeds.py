"""What a fuzzer starts from: the messages that the tests know, and records as services write them."""

from tests.faults.test_upstream_http import BAD_ANSWERS, ENDS
from tests.unit.upstreams.http.test_answers import GOOD
from tests.wire.messages.passed import PASSED
from tests.wire.messages.refused import REFUSED

_LARGEST = 1500

_RECORDS = [
    [(0, b"TAG1"), (99, b'{"a":1}')],
    [(0, b"TAG1"), (8, b"\0"), (99, b'{"response":{"a":1},"isDisposed":true}')],
    [(0, b"TAG1"), (6, b'{"message":"no","status":404}')],
    [(2, b"TAG1"), (12, b"text/plain; charset=utf-8"), (99, b"text")],
    [(4, b"TAG1"), (10, b"why"), (14, b"409")],
    [(4, b"TAG1"), (14, b"201"), (16, b"/x\r\ny: z"), (18, b"text/html"), (99, b"[1,2]")],
    [(4, b"TAG1"), (14, b"999"), (99, b"\xff\xfe")],
    [(1, b""), (99, b"")],
]


_TOKENS = [
    b'{"alg":"RS256","typ":"JWT","kid":"a"}\n{"iss":"i","aud":["api"],"sub":"ann","exp":1900000000,"scope":"a b"}',
    b'{"alg": "ES256"}\n{"sub": "\\u00e4", "exp": 1.9e9, "nbf": 1, "jti": "t", "scp": ["a"]}',
    b'{"alg":"none"}\n{"sub":"a","sub":"b","exp":1900000000}',
    b'{"alg":"EdDSA","jwk":{}}\n{"sub":1,"exp":"1900000000","x":[[[[[[[[[]]]]]]]]]}',
    b'{"alg":"HS256","crit":["x"]}\n{"sub":"\\ud800","exp":NaN}',
    b"eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhbm4iLCJleHAiOjE5MDAwMDAwMDB9.AAAA",
]


def seeds(target: str) -> list[bytes]:
    """Inputs of a target."""
    if target == "token":
        return _TOKENS
    if target == "edge":
        messages = [message for table in (REFUSED, PASSED) for message, _ in table.values()]
        return [b"\x10\x20\x30\x40" + message for message in messages if len(message) < _LARGEST]
    if target == "answers":
        found = [*GOOD.values(), *BAD_ANSWERS.values(), *ENDS.values()]
        return [bytes((how, 3, 20, 40, 60)) + each for each in found if len(each) < _LARGEST for how in (0, 4, 1)]
    return [b"".join(bytes((1 + len(content), number)) + content for number, content in each) for each in _RECORDS]


WORDS = (
    "GET ", "POST ", " HTTP/1.1\\x0d\\x0a", "Host: h\\x0d\\x0a", "Content-Length: ", "\\x0d\\x0a\\x0d\\x0a",
    "Transfer-Encoding: chunked\\x0d\\x0a", "\\x0d\\x0a", "Connection: ", "close", "keep-alive", "0\\x0d\\x0a",
    "Expect: 100-continue\\x0d\\x0a", "HTTP/1.1 200 OK\\x0d\\x0a", "HTTP/1.1 103 x\\x0d\\x0a", "http://", "%2e", "%2F",
    "..;", '"alg":"', '"exp":', '"sub":"', "RS256", "TAG", "isDisposed", "response",
)  # fmt: skip
"""A dictionary, as libFuzzer writes it."""
