"""An answer that breaks off at the service: what the client has got, and how it can tell that this is not all."""

import socket
import threading

import pytest
from tests.testbeds.gateway import Gateway
from tests.testbeds.wire import Client, Origin, Script


def breaking_off(head: bytes, go: threading.Event, error: bytes = b"") -> Script:
    """Send `head` and a first piece, and when the client has it, `error` and the end."""

    def script(connection: socket.socket, _request: bytes) -> bool:
        connection.sendall(b"HTTP/1.1 200 OK\r\n" + head)
        assert go.wait(5)
        connection.sendall(error)
        return False

    return script


CHUNKED = b"transfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n"
COUNTED = b"content-length: 99\r\n\r\nfirst"


@pytest.mark.parametrize(
    ("head", "error"), [(CHUNKED, b""), (CHUNKED, b"5\r\nsec"), (CHUNKED, b"x\r\n"), (COUNTED, b"s")]
)
def test_a_client_of_http_1_1_misses_the_end(gateway: Gateway, origin: Origin, head: bytes, error: bytes) -> None:
    go = threading.Event()
    origin.script = breaking_off(head, go, error)
    with Client(gateway.port) as client:
        client.send(b"GET /a/x HTTP/1.1\r\nHost: h\r\n\r\n").read_until(b"first")
        go.set()
        rest = client.read_to_end()
    assert b"0\r\n\r\n" not in rest
    (line,) = gateway.wait_logged(1)
    assert line["status"] == 200
    assert (line["error"], line["outcome"]) in (("reset", "unknown"), ("bad_answer", "answered"))


def test_a_client_of_http_1_0_is_reset(gateway: Gateway, origin: Origin) -> None:
    """To it the end of the connection would be the end of the body."""
    go = threading.Event()
    origin.script = breaking_off(CHUNKED, go)
    with Client(gateway.port) as client:
        client.send(b"GET /a/x HTTP/1.0\r\nHost: h\r\n\r\n").read_until(b"first")
        go.set()
        with pytest.raises(ConnectionResetError):
            client.socket.recv(1)
