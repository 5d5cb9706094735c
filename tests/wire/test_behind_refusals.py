"""What stands behind a request that is refused within its body is never a request, however it arrives."""

import contextlib
import random
import threading

import pytest
from tests.testbeds.gateway import Gateway
from tests.testbeds.wire import OK, Client, Origin, answer
from tests.wire.conftest import Start

HIDDEN = b"GET /a/hidden HTTP/1.1\r\nHost: h\r\n\r\n"  # what a smuggler wants to be taken for a request
POST = b"POST /a/x HTTP/1.1\r\nHost: h\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
HALF = POST + b"Content-Length: 900\r\n\r\n" + b"x" * 600

# What is sent first, what when the answer is there, and the answer.
BEHIND = {
    "a chunk that crosses the limit": (CHUNKED + b"3e9\r\n" + b"x" * 1001, b"\r\n0\r\n\r\n" + HIDDEN, 413),
    "chunks that cross the limit, and their end": (
        CHUNKED + b"3e8\r\n" + b"x" * 1000 + b"\r\n1\r\nx\r\n0\r\n\r\n" + HIDDEN, HIDDEN, 413
    ),
    "a length over the limit": (POST + b"Content-Length: 1001\r\n\r\n" + HIDDEN, HIDDEN * 40, 413),
    "a chunk that is malformed": (CHUNKED + b"5\r\nhello!\r\n0\r\n\r\n" + HIDDEN, HIDDEN, 400),
    "trailers that are malformed": (CHUNKED + b"0\r\nbad trailer\r\n\r\n" + HIDDEN, HIDDEN, 400),
    "an upload that is refused its turn": (HALF, b"x" * 300 + HIDDEN, 503),
    "an upload that is refused its turn, whose rest is a request": (HALF, HIDDEN * 10, 503),
    "a chunked one that is refused its turn": (CHUNKED + b"258\r\n" + b"x" * 600, b"\r\n0\r\n\r\n" + HIDDEN, 503),
    "a body for no route": (b"POST /no HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n", b"hello" + HIDDEN, 404),
    "a last request": (b"GET /a/x HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n" + HIDDEN, HIDDEN, 200),
}  # fmt: skip


@pytest.fixture
def crowded(start: Start, origin: Origin) -> Gateway:
    """Whose one place for uploads is taken for as long as the test lasts, and nobody may wait long for it."""
    return start(f"""
services: {{origin: {{http: {{instances: ["http://127.0.0.1:{origin.port}"], pool: {{uploads: 1, connections: 8}}}}}}}}
defaults: {{public: true, timeout: 300ms, limits: {{body: 1000B, buffer: 1B}}}}
routes: {{"ANY /a/{{rest...}}": {{call: origin}}}}
""")


@pytest.mark.parametrize("name", BEHIND)
def test_what_stands_behind_a_refusal_is_no_request(crowded: Gateway, origin: Origin, name: str) -> None:
    first, later, status = BEHIND[name]
    chance = random.Random(name)
    with Client(crowded.port) as holder:
        holder.send(HALF)
        crowded.program.wait_until(lambda: _busy(crowded) == 1, "the upload that has the place")
        for _ in range(3):
            with Client(crowded.port) as client:
                cut = chance.randrange(len(first))
                client.send(first[:cut]).send(first[cut:])
                assert client.read_answer()[0] in (status, 503)  # while it waits for its turn nobody looks at its body
                with contextlib.suppress(OSError):
                    for byte in later:
                        client.send(bytes((byte,)))
                assert client.read_to_end() == b""
    assert [seen for seen in origin.seen if b"hidden" in seen] == []
    assert [left for left in origin.unfinished if b"hidden" in left] == []


def test_an_early_answer_leaves_nothing_of_the_upload_on_the_next_ones_connection(
    crowded: Gateway, origin: Origin
) -> None:
    """The service has answered and would read on; what the client sends next would be its next request."""
    origin.early = OK
    with Client(crowded.port) as client:
        assert client.send(HALF).read_answer()[0] == 200
        with contextlib.suppress(OSError):
            client.send(HIDDEN * 20)
        assert client.read_to_end() == b""
    origin.early = b""
    origin.script = answer(OK)
    with Client(crowded.port) as other:
        assert other.send(b"GET /a/y HTTP/1.1\r\nHost: h\r\n\r\n").read_answer()[2] == b"ok"
    assert [request.split(b" ")[1] for request in origin.seen] == [b"/a/y"]


def test_one_that_leaves_while_it_waits_for_its_turn_sends_nothing(crowded: Gateway, origin: Origin) -> None:
    with Client(crowded.port) as holder:
        holder.send(HALF)
        crowded.program.wait_until(lambda: _busy(crowded) == 1, "the upload that has the place")
        leaving = [threading.Thread(target=_leave, args=(crowded,)) for _ in range(10)]
        for each in leaving:
            each.start()
        for each in leaving:
            each.join(5)
        crowded.program.wait_until(lambda: crowded.metrics()["castlegate_connections"] == 1, "the end of all others")
        assert holder.send(b"y" * 300).read_answer()[0] == 200
    assert len(origin.seen) == 1
    assert origin.unfinished == []


def _leave(gateway: Gateway) -> None:
    with Client(gateway.port) as client:
        client.send(HALF)


def _busy(gateway: Gateway) -> float:
    return gateway.metrics()['castlegate_upstream_connections{service="origin",state="busy"}']
