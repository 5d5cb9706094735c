"""TLS between the gateway and HTTP services: who is believed, who is not, and how connections end."""

import contextlib
import json
import os
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.testbeds.certificates import Authority, Pair, serving
from tests.testbeds.gateway import Gateway
from tests.testbeds.wire import OK, Client, Origin, answer
from tests.wire.conftest import Start

GET = b"GET /a/x HTTP/1.1\r\nHost: h\r\n\r\n"
POST = b"POST /a/x HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def pair(authority: Authority) -> Pair:
    return authority.issue("localhost")


@pytest.fixture
def secure(pair: Pair) -> Iterator[Origin]:
    with Origin(tls=serving(pair)) as origin:
        yield origin


def configured(origin: "Origin | _Listening", tls: str, *, pool: str = "", host: str = "localhost") -> str:
    return f"""
services:
  secure: {{http: {{instances: ["https://{host}:{origin.port}"], tls: {tls}, pool: {{connect_timeout: 500ms{pool}}}}}}}
defaults: {{public: true, timeout: 5s, limits: {{body: 100MiB}}}}
routes: {{"ANY /a/{{rest...}}": {{call: secure}}}}
"""


@pytest.fixture
def gateway(start: Start, secure: Origin, authority: Authority) -> Gateway:
    return start(configured(secure, f"{{ca: {authority.file}}}"))


def ask(gateway: Gateway, request: bytes = GET) -> tuple[int, bytes]:
    with Client(gateway.port) as client:
        status, _, body = client.send(request).read_answer()
        return status, body


def problem(gateway: Gateway, request: bytes = POST) -> dict[str, Any]:
    status, body = ask(gateway, request)
    told: dict[str, Any] = json.loads(body)
    assert told["status"] == status
    return told


def refused(gateway: Gateway, status: int, kind: str, log: str) -> None:
    """A request that can't be repeated is refused, with nothing of ours in the answer, and the log says why."""
    told = problem(gateway)
    assert (told["status"], told["outcome"]) == (status, "not_sent")
    assert told["type"].endswith(kind)
    assert "127.0.0.1" not in str(told)
    assert "localhost" not in str(told)
    gateway.program.wait_for_line(f"WARNING castlegate.services: service secure: no TLS with .*: {log}")
    assert not any("Traceback" in line for line in gateway.program.lines)


# --- who is believed


def test_connections_are_kept_alive_like_plain_ones(gateway: Gateway, secure: Origin) -> None:
    for _ in range(5):
        assert ask(gateway) == (200, b"ok")
        assert ask(gateway, POST) == (200, b"ok")
    assert secure.connections == 1
    assert b"\r\nhost: localhost:%d\r\n" % secure.port in secure.seen[0]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_both_versions_are_spoken(gateway: Gateway, secure: Origin, version: ssl.TLSVersion) -> None:
    assert secure.tls is not None
    secure.tls.minimum_version = secure.tls.maximum_version = version
    assert ask(gateway) == (200, b"ok")


def test_an_address_is_verified_too(start: Start, secure: Origin, authority: Authority) -> None:
    gateway = start(configured(secure, f"{{ca: {authority.file}}}", host="127.0.0.1"))
    assert ask(gateway) == (200, b"ok")


def test_the_name_that_is_asked_for_can_be_said(start: Start, secure: Origin, authority: Authority) -> None:
    asked_for = []
    secure.tls = serving(authority.issue("inner.example", hosts=("inner.example",)))
    secure.tls.sni_callback = lambda _socket, name, _context: asked_for.append(name)
    gateway = start(configured(secure, f"{{ca: {authority.file}, server_name: inner.example}}"))
    assert ask(gateway) == (200, b"ok")
    assert asked_for == ["inner.example"]


def test_an_instance_that_nobody_vouches_for_is_refused(start: Start, secure: Origin, tmp_path: Path) -> None:
    gateway = start(configured(secure, "{}"))  # whom the system trusts, which is not our test's authority
    refused(gateway, 502, "certificate", "unable to get local issuer certificate")
    assert secure.seen == []
    gateway.stop()
    alien = Authority(tmp_path, "elsewhere")
    gateway = start(configured(secure, f"{{ca: {alien.file}}}"))
    refused(gateway, 502, "certificate", ".*")
    assert secure.seen == []


def test_an_expired_certificate_is_refused(gateway: Gateway, secure: Origin, authority: Authority) -> None:
    secure.tls = serving(authority.issue("late", hosts=("localhost",), days=0.5))
    refused(gateway, 502, "certificate", "certificate has expired")
    assert secure.seen == []


def test_a_certificate_for_another_name_is_refused(gateway: Gateway, secure: Origin, authority: Authority) -> None:
    secure.tls = serving(authority.issue("other.example", hosts=("other.example",)))
    refused(gateway, 502, "certificate", "Hostname mismatch")
    assert secure.seen == []


def test_verification_is_off_only_when_that_is_said(start: Start, secure: Origin, tmp_path: Path) -> None:
    secure.tls = serving(Authority(tmp_path, "elsewhere").issue("other.example"))
    gateway = start(configured(secure, "{verify: false}"))
    assert ask(gateway) == (200, b"ok")


def test_the_gateway_shows_its_certificate(start: Start, secure: Origin, authority: Authority, pair: Pair) -> None:
    secure.tls = serving(pair, clients=authority)
    own = authority.issue("gateway")
    gateway = start(configured(secure, f"{{ca: {authority.file}, cert: {own.cert}, key: {own.key}}}"))
    assert ask(gateway) == (200, b"ok")
    assert [dict(part[0] for part in peer["subject"]) for peer in secure.peers] == [{"commonName": "gateway"}]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_service_that_asks_in_vain_gets_no_request(
    start: Start, authority: Authority, pair: Pair, version: ssl.TLSVersion
) -> None:
    context = serving(pair, clients=authority)
    context.minimum_version = context.maximum_version = version

    def insist(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False) as tls:
            with pytest.raises(ssl.SSLError):
                tls.do_handshake()
            tls.shutdown(socket.SHUT_WR)  # closed with bytes unread, it would be reset, and the alert with it
            while tls.recv(65536):
                pass

    with _Listening(insist) as listening:
        gateway = start(configured(listening, f"{{ca: {authority.file}}}"))
        assert problem(gateway)["status"] == 502
        gateway.program.wait_for_line("WARNING castlegate.services: service secure: no TLS with .* alert .*")


def test_changed_files_are_used_for_new_connections(start: Start, secure: Origin, tmp_path: Path) -> None:
    old, new = Authority(tmp_path, "old"), Authority(tmp_path, "new")
    gateway = start(configured(secure, f"{{ca: {old.file}, watch: 100ms}}", pool=", idle: 1ms"))
    secure.tls = serving(new.issue("localhost"))
    assert ask(gateway)[0] == 502
    new.file.replace(old.file)
    gateway.program.wait_for_line("new certificates of 'services.secure.http.tls' are used")
    assert ask(gateway) == (200, b"ok")


# --- handshakes that fail


def test_no_common_version_is_refused(gateway: Gateway, secure: Origin, pair: Pair) -> None:
    old = serving(pair)
    old.set_ciphers("AES128-GCM-SHA256:@SECLEVEL=0")
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    secure.tls = old
    refused(gateway, 502, "tls", ".*handshake failure")


def test_a_service_that_speaks_plain_http_is_refused(start: Start, authority: Authority) -> None:
    def plain(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")

    with _Listening(plain) as listening:
        gateway = start(configured(listening, f"{{ca: {authority.file}}}"))
        refused(gateway, 502, "tls", "(wrong version number|.*record.*)")


@pytest.mark.parametrize("sent", [b"", b"\x16\x03\x03\x00\x7a\x02"])
def test_a_handshake_that_stalls_counts_into_the_time_to_connect(
    start: Start, authority: Authority, sent: bytes
) -> None:
    ended = threading.Event()

    def stall(connection: socket.socket) -> None:
        connection.sendall(sent)
        while connection.recv(65536):
            pass
        ended.set()

    with _Listening(stall) as listening:
        gateway = start(configured(listening, f"{{ca: {authority.file}}}"))
        began = time.monotonic()
        told = problem(gateway)
        assert 0.4 < time.monotonic() - began < 2
        assert (told["status"], told["outcome"]) == (504, "not_sent")
        assert told["type"].endswith("connect_timeout")
        assert ended.wait(5)
    assert not any("Traceback" in line for line in gateway.program.lines)


def test_a_service_that_closes_instead_of_shaking_hands_is_not_reached(start: Start, authority: Authority) -> None:
    with _Listening(lambda connection: connection.recv(65536)) as listening:
        gateway = start(configured(listening, f"{{ca: {authority.file}}}"))
        told = problem(gateway)
        assert (told["status"], told["outcome"]) == (502, "not_sent")
    assert not any("Traceback" in line for line in gateway.program.lines)


def test_another_instance_is_asked_when_one_cannot_prove_itself(
    start: Start, secure: Origin, authority: Authority, tmp_path: Path
) -> None:
    with Origin(tls=serving(Authority(tmp_path, "elsewhere").issue("localhost"))) as false:
        gateway = start(
            configured(secure, f"{{ca: {authority.file}}}").replace(
                "instances: [", f'instances: ["https://localhost:{false.port}", '
            )
        )
        for _ in range(4):
            assert ask(gateway, POST) == (200, b"ok")
        assert false.seen == []
    assert len(secure.seen) == 4


class _Listening:
    """A port where each connection is given to a function."""

    def __init__(self, serve: Any) -> None:
        self._serve = serve
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()

    def __enter__(self) -> "_Listening":
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join(5)

    def _accept(self) -> None:
        with ExitStack() as ended:
            while True:
                try:
                    connection, _ = self._listening.accept()
                except OSError:
                    return
                ended.callback(connection.close)
                connection.settimeout(5)
                with connection:
                    try:
                        self._serve(connection)
                    except OSError:
                        continue


# --- bodies and ends

SIZE = 10_000_000


@pytest.mark.parametrize("length", [b"content-length: %d" % SIZE, b"transfer-encoding: chunked"])
def test_large_bodies_pass_both_ways(gateway: Gateway, secure: Origin, length: bytes) -> None:
    body = bytes(range(250)) * (SIZE // 250)
    framed = b"%x\r\n%b\r\n0\r\n\r\n" % (SIZE, body) if b"chunked" in length else body
    secure.script = answer(b"HTTP/1.1 200 OK\r\n%b\r\n\r\n%b" % (length, framed))
    with Client(gateway.port, timeout_s=30) as client:
        client.send(b"POST /a/x HTTP/1.1\r\nHost: h\r\n%b\r\n\r\n" % length)
        client.send(framed)
        status, _, answered = client.read_answer()
        assert (status, answered == body) == (200, True)
    seen = secure.seen[0].partition(b"\r\n\r\n")[2]
    assert len(seen) >= SIZE
    if b"chunked" not in length:
        assert seen == body
    assert ask(gateway)[0] == 200
    assert secure.connections == 1


@pytest.mark.parametrize("patient", [True, False])
def test_close_notify_ends_a_body_and_a_cut_does_not(gateway: Gateway, secure: Origin, patient: bool) -> None:
    def until_closed(connection: socket.socket, request: bytes) -> bool:
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\nall of it")
        if b"/a/whole" in request:
            assert isinstance(connection, ssl.SSLSocket)
            if patient:
                connection.unwrap()
            else:  # it does not wait for the gateway's close_notify
                connection.settimeout(0)
                with contextlib.suppress(ssl.SSLWantReadError):
                    connection.unwrap()
        return False

    secure.script = until_closed
    with Client(gateway.port) as client:
        assert client.send(GET.replace(b"/a/x", b"/a/whole")).read_answer()[2] == b"all of it"
    with Client(gateway.port) as client, pytest.raises((EOFError, ConnectionResetError)):
        client.send(GET).read_answer()
    logged = gateway.wait_logged(2)
    assert [(line["status"], line["error"]) for line in logged] == [(200, ""), (200, "reset")]


def test_a_forged_record_is_no_end_of_a_body(gateway: Gateway, secure: Origin) -> None:
    def interfered_with(connection: socket.socket, _request: bytes) -> bool:
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\nhalf of it")
        os.write(connection.fileno(), b"\x17\x03\x03\x00\x20" + bytes(32))
        return False

    secure.script = interfered_with
    with Client(gateway.port) as client, pytest.raises((EOFError, ConnectionResetError)):
        client.send(GET).read_answer()
    assert [line["error"] for line in gateway.wait_logged(1)] == ["reset"]


def test_an_answer_that_is_cut_is_not_whole(gateway: Gateway, secure: Origin) -> None:
    def half(connection: socket.socket, _request: bytes) -> bool:
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nhalf")
        assert isinstance(connection, ssl.SSLSocket)
        connection.unwrap()
        return False

    secure.script = half
    with Client(gateway.port) as client, pytest.raises((EOFError, ConnectionResetError)):
        client.send(GET).read_answer()


@pytest.mark.parametrize("politely", [True, False])
def test_an_idle_connection_that_the_service_closes_is_not_used(
    gateway: Gateway, secure: Origin, politely: bool
) -> None:
    closed = threading.Event()

    def once(connection: socket.socket, _request: bytes) -> bool:
        connection.sendall(OK)
        if politely:
            assert isinstance(connection, ssl.SSLSocket)
            connection.unwrap()  # returns when the gateway has said close_notify in turn
        connection.shutdown(socket.SHUT_RDWR)
        closed.set()
        return False

    secure.script = once
    for _ in range(3):
        closed.clear()
        assert ask(gateway, GET) == (200, b"ok")
        assert closed.wait(5)
    assert secure.connections >= 3


def test_a_slow_client_holds_the_service_back(gateway: Gateway, secure: Origin) -> None:
    sent, held_back = [], threading.Event()

    def much(connection: socket.socket, _request: bytes) -> bool:
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 100000000\r\n\r\n")
        connection.settimeout(0.5)
        try:
            for _ in range(1000):
                connection.sendall(b"x" * 100_000)
                sent.append(100_000)
        except TimeoutError:
            held_back.set()
        return False

    secure.script = much
    with Client(gateway.port) as client:
        client.send(GET)
        assert held_back.wait(10)
    assert 0 < sum(sent) < 50_000_000
