"""TLS between clients and the gateway: who is let in, who is not, and that nothing else changes."""

import contextlib
import re
import socket
import ssl
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from tests.testbeds.certificates import Authority, Pair
from tests.testbeds.gateway import Gateway
from tests.testbeds.wire import OK, Client, Origin, answer
from tests.wire.conftest import Start

GET = b"GET /a/x HTTP/1.1\r\nHost: h\r\n\r\n"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def pair(authority: Authority) -> Pair:
    return authority.issue("localhost")


StartTls = Callable[..., Gateway]


@pytest.fixture
def start_tls(start: Start, origin: Origin) -> StartTls:
    def start_tls(tls: str, listen: str = "", route: str = "timeout: 5s, limits: {body: 100MiB}") -> Gateway:
        return start(f"""
listen: {{address: "127.0.0.1:0", tls: {tls}{listen}}}
services: {{origin: {{http: ["http://127.0.0.1:{origin.port}"]}}}}
defaults: {{public: true, {route}}}
routes: {{"ANY /a/{{rest...}}": {{call: origin}}}}
""")

    return start_tls


@pytest.fixture
def gateway(start_tls: StartTls, pair: Pair) -> Gateway:
    return start_tls(f"{{cert: {pair.cert}, key: {pair.key}, handshake_timeout: 1s}}")


def quiet(gateway: Gateway) -> bool:
    """Whether the log has no traceback and no warning."""
    return not any("Traceback" in line or " WARNING " in line or " ERROR " in line for line in gateway.program.lines)


def wait_empty(gateway: Gateway) -> None:
    gateway.program.wait_until(lambda: gateway.metrics()["castlegate_connections"] == 0, "the end of all connections")


# --- requests


def test_requests_pass_and_services_are_told_of_https(gateway: Gateway, origin: Origin, authority: Authority) -> None:
    assert gateway.program.wait_for_line("listens on https://")
    with Client(gateway.port, tls=authority.trusting()) as client:
        for _ in range(3):
            assert client.send(GET).read_answer()[2] == b"ok"
        assert client.send(GET.replace(b"/a/x", b"http://h/a/x")).read_answer()[0] == 200
    assert origin.connections == 1
    for seen in origin.seen:
        assert b"\r\nx-forwarded-proto: https\r\n" in seen
        assert b'proto=https;host="h"' in seen
    wait_empty(gateway)
    assert quiet(gateway)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_both_versions_are_spoken(
    gateway: Gateway, origin: Origin, authority: Authority, version: ssl.TLSVersion
) -> None:
    context = authority.trusting()
    context.minimum_version = context.maximum_version = version
    with Client(gateway.port, tls=context) as client:
        assert client.send(GET).read_answer()[0] == 200
        assert isinstance(client.socket, ssl.SSLSocket)
        assert client.socket.selected_alpn_protocol() == "http/1.1"
        name = client.socket.cipher()[0]  # type: ignore[index]
        assert name.startswith(("TLS_", "ECDHE-")), name


def test_pipelined_requests_are_answered_in_order(gateway: Gateway, origin: Origin, authority: Authority) -> None:
    def echo(connection: socket.socket, request: bytes) -> bool:
        path = request.split(b" ")[1]
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(path), path))
        return True

    origin.script = echo
    with Client(gateway.port, tls=authority.trusting()) as client:
        client.send(b"".join(GET.replace(b"/a/x", b"/a/%d" % n) for n in range(200)))
        for n in range(200):
            assert client.read_answer()[2] == b"/a/%d" % n


def test_one_byte_a_record_is_the_same_request(gateway: Gateway, origin: Origin, authority: Authority) -> None:
    with Client(gateway.port, tls=authority.trusting()) as client:
        for byte in GET:
            client.send(bytes((byte,)))
        assert client.read_answer()[0] == 200
    assert origin.seen[0].startswith(b"GET /a/x HTTP/1.1\r\n")


SIZE = 10_000_000


@pytest.mark.parametrize("length", [b"content-length: %d" % SIZE, b"transfer-encoding: chunked"])
def test_large_bodies_pass_both_ways(gateway: Gateway, origin: Origin, authority: Authority, length: bytes) -> None:
    body = bytes(range(250)) * (SIZE // 250)
    chunked = b"chunked" in length
    framed = b"%x\r\n%b\r\n0\r\n\r\n" % (SIZE, body) if chunked else body
    got = []

    def echo(connection: socket.socket, request: bytes) -> bool:
        got.append(request)
        connection.sendall(b"HTTP/1.1 200 OK\r\n%b\r\n\r\n%b" % (length, framed))
        return True

    origin.script = echo
    with Client(gateway.port, timeout_s=30, tls=authority.trusting()) as client:
        client.send(b"POST /a/x HTTP/1.1\r\nHost: h\r\n%b\r\n\r\n" % length)
        client.send(framed)
        status, _, answered = client.read_answer()
        assert (status, answered == body) == (200, True)
        assert client.send(GET.replace(b"x", b"y")).read_answer()[0] == 200  # the connection lives on
    received = got[0].partition(b"\r\n\r\n")[2]
    assert received.count(b"\r\n") >= 3 if chunked else received == body


def test_a_slow_client_gets_everything_and_one_that_does_not_read_is_cut(
    start_tls: StartTls, origin: Origin, authority: Authority, pair: Pair
) -> None:
    gateway = start_tls(f"{{cert: {pair.cert}, key: {pair.key}}}", ", timeouts: {write: 500ms}")
    size = 8_000_000
    origin.script = answer(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size + b"x" * size)
    with Client(gateway.port, timeout_s=10, tls=authority.trusting()) as client:
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        client.send(GET)
        pace, taken = threading.Event(), 0
        for _ in range(40):
            taken += len(client.socket.recv(65536))
            pace.wait(0.05)  # the slowness itself
        while taken < size:
            data = client.socket.recv(1_000_000)
            assert data
            taken += len(data)
        assert taken > size
    wait_empty(gateway)
    with Client(gateway.port, timeout_s=10, tls=authority.trusting()) as client:
        client.send(GET)
        wait_empty(gateway)
        with pytest.raises(OSError):
            client.read_answer()
    assert quiet(gateway)


# --- ends


def test_a_refused_client_that_goes_on_sending_can_read_why(
    start_tls: StartTls, origin: Origin, authority: Authority, pair: Pair
) -> None:
    gateway = start_tls(f"{{cert: {pair.cert}, key: {pair.key}}}", route="limits: {body: 1000B}")
    with Client(gateway.port, tls=authority.trusting()) as client:
        client.send(b"POST /a/x HTTP/1.1\r\nHost: h\r\nContent-Length: 100000000\r\n\r\n")
        for _ in range(20):
            client.send(b"x" * 50_000)
        assert client.read_answer()[0] == 413
        assert client.closed()  # by close_notify: a cut would have raised
        client.socket.close()
    wait_empty(gateway)
    assert origin.seen == []
    assert quiet(gateway)


def test_the_last_answer_ends_with_close_notify(gateway: Gateway, origin: Origin, authority: Authority) -> None:
    with Client(gateway.port, tls=authority.trusting()) as client:
        client.send(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        assert client.read_to_end().endswith(b"ok")


def test_a_cut_answer_ends_without_close_notify(gateway: Gateway, origin: Origin, authority: Authority) -> None:
    def cut(connection: socket.socket, _request: bytes) -> bool:
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nhalf")
        return False

    origin.script = cut
    refused = pytest.raises((ssl.SSLError, ConnectionResetError))
    with Client(gateway.port, tls=authority.trusting()) as client, refused:
        client.send(GET).read_answer()
    wait_empty(gateway)


@pytest.mark.parametrize("end", ["close_notify", "cut", "reset"])
def test_a_client_that_leaves_frees_its_connection(
    gateway: Gateway, origin: Origin, authority: Authority, end: str
) -> None:
    asked = threading.Event()

    def hold(_connection: socket.socket, _request: bytes) -> bool:
        asked.set()
        return True

    origin.script = hold
    with Client(gateway.port, tls=authority.trusting()) as client:
        client.send(GET)
        assert asked.wait(5)
        if end == "close_notify":
            assert isinstance(client.socket, ssl.SSLSocket)
            client.socket.unwrap().close()
        elif end == "reset":
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        client.socket.close()
        wait_empty(gateway)
    assert [line["status"] for line in gateway.wait_logged(1)] == [499]
    assert quiet(gateway)


def test_a_forged_record_cuts_the_connection(gateway: Gateway, origin: Origin, authority: Authority) -> None:
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=5) as raw:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = authority.trusting().wrap_bio(incoming, outgoing, server_hostname="localhost")
        _shake_hands(tls, incoming, outgoing, raw)
        tls.write(GET)
        record = bytearray(outgoing.read())
        record[-1] ^= 1
        raw.sendall(record)
        while raw.recv(65536):
            pass
    wait_empty(gateway)
    assert origin.seen == []
    assert quiet(gateway)


def test_nothing_is_written_behind_a_forged_record(gateway: Gateway, authority: Authority) -> None:
    """A request that is answered at once, and a forged record, arrive together."""
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=5) as raw:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = authority.trusting().wrap_bio(incoming, outgoing, server_hostname="localhost")
        _shake_hands(tls, incoming, outgoing, raw)
        for _ in range(8):
            tls.write(b"GET /unknown HTTP/1.1\r\nHost: h\r\n\r\n")
        raw.sendall(outgoing.read() + b"\x17\x03\x03\x00\x20" + bytes(32))
        with contextlib.suppress(ConnectionResetError):
            while raw.recv(65536):
                pass
    wait_empty(gateway)
    assert not any("Traceback" in line or "raised" in line for line in gateway.program.lines)
    assert quiet(gateway)


def test_who_says_goodbye_behind_its_request_still_gets_an_answer_that_is_made_at_once(
    gateway: Gateway, authority: Authority
) -> None:
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=5) as raw:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = authority.trusting().wrap_bio(incoming, outgoing, server_hostname="localhost")
        _shake_hands(tls, incoming, outgoing, raw)
        tls.write(b"GET /unknown HTTP/1.1\r\nHost: h\r\n\r\n")
        with contextlib.suppress(ssl.SSLWantReadError):
            tls.unwrap()  # close_notify, in the same flight
        raw.sendall(outgoing.read())
        while received := raw.recv(65536):
            incoming.write(received)
    assert tls.read(65536).startswith(b"HTTP/1.1 404 ")


def _shake_hands(tls: ssl.SSLObject, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, raw: socket.socket) -> None:
    while True:
        try:
            tls.do_handshake()
        except ssl.SSLWantReadError:
            raw.sendall(outgoing.read())
            incoming.write(raw.recv(65536))
        else:
            raw.sendall(outgoing.read())
            return


def test_a_drain_ends_what_is_idle_and_what_shakes_hands_and_lets_answers_finish(
    gateway: Gateway, origin: Origin, authority: Authority
) -> None:
    asked, go_on = threading.Event(), threading.Event()

    def later(connection: socket.socket, _request: bytes) -> bool:
        asked.set()
        assert go_on.wait(5)
        connection.sendall(OK)
        return True

    origin.script = later
    with (
        Client(gateway.port, tls=authority.trusting()) as idle,
        Client(gateway.port, tls=authority.trusting()) as busy,
        Client(gateway.port) as half,
    ):
        busy.send(GET)
        assert asked.wait(5)
        gateway.program.wait_until(lambda: gateway.metrics()["castlegate_connections"] == 3, "all three")
        stopped: list[int] = []
        stopping = threading.Thread(target=lambda: stopped.append(gateway.stop()))
        stopping.start()
        assert idle.closed()
        assert half.closed()
        go_on.set()
        assert busy.read_answer()[2] == b"ok"
        stopping.join(10)
        assert stopped == [0]


# --- who is not let in


def test_old_versions_and_weak_ciphers_are_refused(gateway: Gateway, authority: Authority) -> None:
    weak = authority.trusting()
    weak.maximum_version = ssl.TLSVersion.TLSv1_2
    weak.set_ciphers("ECDHE-ECDSA-AES128-SHA:ECDHE-ECDSA-AES256-SHA384:AES128-GCM-SHA256:@SECLEVEL=0")
    old = authority.trusting()
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        old.minimum_version = ssl.TLSVersion.TLSv1
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    old.set_ciphers("ALL:@SECLEVEL=0")
    for context in (weak, old):
        with pytest.raises((ssl.SSLError, ConnectionResetError)):
            Client(gateway.port, tls=context)
    wait_empty(gateway)
    assert quiet(gateway)


@pytest.mark.parametrize(
    ("offered", "let_in"),
    [
        (["http/1.1"], True), (["h2", "http/1.1"], True), ([], True), (["h2"], False), (["h2", "ftp"], False),
        (["http/1.0"], False),
    ],
)  # fmt: skip
def test_a_client_that_offers_other_protocols_only_is_refused(
    gateway: Gateway, origin: Origin, authority: Authority, offered: list[str], let_in: bool
) -> None:
    context = authority.trusting()
    if offered:
        context.set_alpn_protocols(offered)
    else:
        context = ssl.create_default_context(cafile=str(authority.file))
    if let_in:
        with Client(gateway.port, tls=context) as client:
            assert client.send(GET).read_answer()[0] == 200
    else:
        with pytest.raises(ssl.SSLError, match=r"(?i)no.application.protocol"):
            Client(gateway.port, tls=context)
        assert gateway.metrics()['castlegate_refused_total{reason="tls_handshake"}'] == 1
    wait_empty(gateway)
    assert quiet(gateway)


def test_protocols_are_looked_at_without_a_name_and_on_the_way_back_too(
    gateway: Gateway, origin: Origin, authority: Authority
) -> None:
    context = authority.trusting()
    context.check_hostname = False
    context.set_alpn_protocols(["h2"])
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=5) as raw:
        refused = pytest.raises(ssl.SSLError, match=r"(?i)no.application.protocol")
        with refused, context.wrap_socket(raw):
            pass
    context = authority.trusting()
    with Client(gateway.port, tls=context) as client:
        assert client.send(GET).read_answer()[0] == 200
        assert isinstance(client.socket, ssl.SSLSocket)
        session = client.socket.session
        assert session is not None
        assert session.has_ticket
    for offered, let_in in (["http/1.1"], True), (["h2"], False):
        context.set_alpn_protocols(offered)
        with socket.create_connection(("127.0.0.1", gateway.port), timeout=5) as raw:
            if let_in:
                with context.wrap_socket(raw, server_hostname="localhost", session=session) as back:
                    assert back.session_reused
                    back.sendall(GET)
                    assert back.recv(65536).startswith(b"HTTP/1.1 200 ")
            else:
                with refused, context.wrap_socket(raw, server_hostname="localhost", session=session):
                    pass


def test_plain_http_is_told_so_and_other_bytes_are_not_answered(gateway: Gateway, origin: Origin) -> None:
    with Client(gateway.port) as client:
        assert client.send(GET).read_to_end().startswith(b"HTTP/1.1 400 ")
    for other in (b"\x00\x01\x02", b"\x80\x2e\x01", b"\r\n"):
        with Client(gateway.port) as client:
            assert client.send(other).closed()
    wait_empty(gateway)
    assert origin.seen == []
    assert gateway.metrics()['castlegate_refused_total{reason="not_tls"}'] == 4
    assert quiet(gateway)


def test_a_name_that_is_no_text_is_a_name_nobody_has(gateway: Gateway, authority: Authority) -> None:
    outgoing = ssl.MemoryBIO()
    tls = authority.trusting().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="aaaa.example")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    with Client(gateway.port) as client:
        client.send(outgoing.read().replace(b"aaaa.example", b"\xff\xfe\x80\x81.example"))
        assert client.socket.recv(1) == b"\x16"  # the default certificate
    wait_empty(gateway)
    assert not any("Exception" in line or "Error" in line for line in gateway.program.lines)


def test_a_malformed_hello_is_refused(gateway: Gateway, authority: Authority) -> None:
    with Client(gateway.port) as client:
        client.send(
            (b"\x16\x03\x01\x40\x00\x01\xff\xff\xff" + bytes(16380)) + (b"\x16\x03\x01\x40\x00" + bytes(16384)) * 4
        )
        assert client.closed()  # larger than any
    for hello in (b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00", b"\x16\x03\x01\xff\xff" + b"\x01" * 70_000):
        with Client(gateway.port) as client:
            client.send(hello).read_to_end()
    wait_empty(gateway)
    assert quiet(gateway)


@pytest.mark.parametrize("sent", [b"", b"\x16", b"\x16\x03\x01\x02\x00\x01\x00"])
def test_a_stalled_handshake_is_ended(gateway: Gateway, authority: Authority, sent: bytes) -> None:
    with Client(gateway.port) as client:
        began = time.monotonic()
        assert client.send(sent).closed()
        assert 0.9 < time.monotonic() - began < 3
    assert gateway.metrics()['castlegate_refused_total{reason="tls_timeout"}'] == 1
    wait_empty(gateway)
    assert quiet(gateway)


def test_clients_that_shake_hands_count_as_connections(
    start_tls: StartTls, origin: Origin, authority: Authority, pair: Pair
) -> None:
    gateway = start_tls(f"{{cert: {pair.cert}, key: {pair.key}}}", ", limits: {connections: 2}")
    with Client(gateway.port), Client(gateway.port):
        gateway.program.wait_until(lambda: gateway.metrics()["castlegate_connections"] == 2, "both")
        with pytest.raises((ssl.SSLError, ConnectionResetError)):
            Client(gateway.port, tls=authority.trusting())
    wait_empty(gateway)
    with Client(gateway.port, tls=authority.trusting()) as client:
        assert client.send(GET).read_answer()[0] == 200


# --- certificates of clients


def test_a_client_without_a_certificate_that_is_vouched_for_is_refused(
    start_tls: StartTls, origin: Origin, authority: Authority, pair: Pair, tmp_path: Path
) -> None:
    gateway = start_tls(f"{{cert: {pair.cert}, key: {pair.key}, clients: {authority.file}}}")
    known, expired = authority.issue("someone"), authority.issue("latecomer", days=0.5)
    alien = Authority(tmp_path, "elsewhere").issue("someone")
    assert _asks(gateway, authority, known) == 200
    for other in (None, alien, expired):
        with pytest.raises((ssl.SSLError, ConnectionResetError, EOFError)):
            _asks(gateway, authority, other)
    assert len(origin.seen) == 1
    wait_empty(gateway)
    assert quiet(gateway)


def test_clients_are_verified_whatever_name_they_ask_for(
    start_tls: StartTls, origin: Origin, authority: Authority, pair: Pair, tmp_path: Path
) -> None:
    other = authority.issue("other.example")
    gateway = start_tls(
        f"{{certificates: [{{cert: {pair.cert}, key: {pair.key}}}, {{cert: {other.cert}, key: {other.key}}}],"
        f" clients: {authority.file}}}"
    )
    assert _asks(gateway, authority, authority.issue("someone"), "other.example") == 200
    for alien in (None, Authority(tmp_path, "elsewhere").issue("someone")):
        with pytest.raises((ssl.SSLError, ConnectionResetError, EOFError)):
            _asks(gateway, authority, alien, "other.example")
    assert len(origin.seen) == 1


def test_a_certificate_that_is_not_required_is_still_verified(
    start_tls: StartTls, origin: Origin, authority: Authority, pair: Pair, tmp_path: Path
) -> None:
    clients = f"{{ca: {authority.file}, required: false}}"
    gateway = start_tls(f"{{cert: {pair.cert}, key: {pair.key}, clients: {clients}}}")
    assert _asks(gateway, authority, None) == 200
    assert _asks(gateway, authority, authority.issue("someone")) == 200
    with pytest.raises((ssl.SSLError, ConnectionResetError, EOFError)):
        _asks(gateway, authority, Authority(tmp_path, "elsewhere").issue("someone"))
    assert len(origin.seen) == 2


def _asks(gateway: Gateway, authority: Authority, pair: Pair | None, name: str = "localhost") -> int:
    context = authority.trusting()
    if pair is not None:
        context.load_cert_chain(*pair)
    with Client(gateway.port, tls=context, name=name) as client:
        return client.send(GET).read_answer()[0]


# --- what TLS itself makes us write


class KeyUpdates:
    """Key updates of TLS 1.3 that ask for one in return, which `ssl` cannot send (RFC 8446 §4.6.3, §7.2)."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def next(self) -> bytes:
        """The record with the next one."""
        key, iv = self._expand(b"key", 32), self._expand(b"iv", 12)
        self._secret = self._expand(b"traffic upd", 48)  # and the record's number begins at 0 again
        message = b"\x18\x00\x00\x01\x01" + b"\x16"  # key_update, update_requested; a handshake message
        header = b"\x17\x03\x03" + (len(message) + 16).to_bytes(2, "big")
        return header + AESGCM(key).encrypt(iv, message, header)

    def _expand(self, label: bytes, size: int) -> bytes:
        label = b"tls13 " + label
        info = size.to_bytes(2, "big") + bytes((len(label),)) + label + b"\x00"
        return HKDFExpand(hashes.SHA384(), size, info).derive(self._secret)


def test_a_client_that_takes_no_answers_to_key_updates_is_cut(
    gateway: Gateway, authority: Authority, tmp_path: Path
) -> None:
    context = authority.trusting()
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.keylog_filename = str(tmp_path / "keys")
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    with socket.socket() as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.settimeout(10)
        raw.connect(("127.0.0.1", gateway.port))
        _shake_hands(tls, incoming, outgoing, raw)
        assert tls.cipher()[0] == "TLS_AES_256_GCM_SHA384"  # type: ignore[index]
        keys = (tmp_path / "keys").read_text()
        found = re.search(r"CLIENT_TRAFFIC_SECRET_0 \w+ (\w+)", keys)
        assert found
        updates, sent = KeyUpdates(bytes.fromhex(found[1])), 0
        cut = False
        while not cut and sent < 1_000_000:
            try:
                raw.sendall(b"".join(updates.next() for _ in range(500)))
            except OSError:
                cut = True
            else:
                sent += 500
        assert cut
    assert sent > 1000, "a few are answered"
    wait_empty(gateway)
    assert quiet(gateway)
