"""Certificates of clients that were revoked, and keys that are encrypted, at both sides."""

import ssl
from pathlib import Path

import pytest
from tests.testbeds.certificates import Authority, Pair, serving
from tests.testbeds.gateway import Gateway
from tests.testbeds.wire import Client, Origin
from tests.wire.conftest import Start

GET = b"GET /a/x HTTP/1.1\r\nHost: h\r\n\r\n"
REFUSED = (ssl.SSLError, ConnectionResetError, EOFError)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def start_with(start: Start, origin: Origin, authority: Authority, crl: Path) -> Gateway:
    pair = authority.issue("localhost")
    clients = f"{{ca: {authority.file}, crl: {crl}}}"
    return start(f"""
listen: {{address: "127.0.0.1:0", tls: {{cert: {pair.cert}, key: {pair.key}, clients: {clients}, watch: 100ms}}}}
services: {{origin: {{http: ["http://127.0.0.1:{origin.port}"]}}}}
routes: {{"GET /a/x": {{call: origin, public: true}}}}
""")


def ask(gateway: Gateway, authority: Authority, pair: Pair) -> int:
    context = authority.trusting()
    context.load_cert_chain(*pair)
    with Client(gateway.port, tls=context) as client:
        return client.send(GET).read_answer()[0]


def test_a_revoked_client_is_refused_and_another_is_not(start: Start, origin: Origin, authority: Authority) -> None:
    good, bad = authority.issue("good"), authority.issue("bad")
    gateway = start_with(start, origin, authority, authority.revoke(bad))
    assert ask(gateway, authority, good) == 200
    with pytest.raises(REFUSED):
        ask(gateway, authority, bad)
    gateway.program.wait_for_line("no TLS with 127.0.0.1: certificate revoked")
    assert len(origin.seen) == 1


def test_a_new_list_is_used_for_new_connections(start: Start, origin: Origin, authority: Authority) -> None:
    first, second = authority.issue("first"), authority.issue("second")
    gateway = start_with(start, origin, authority, authority.revoke(first))
    assert ask(gateway, authority, second) == 200
    said = gateway.program.line_count
    authority.revoke(second)
    gateway.program.wait_for_line("are used from now on", after=said)
    assert ask(gateway, authority, first) == 200
    with pytest.raises(REFUSED):
        ask(gateway, authority, second)
    said = gateway.program.line_count
    authority.file.with_suffix(".crl").write_text("no list")
    gateway.program.wait_for_line("not used: listen.tls.clients.crl: found '.*', which holds no list", after=said)
    with pytest.raises(REFUSED):
        ask(gateway, authority, second)  # what was known is not forgotten


def test_an_expired_list_refuses_everybody_and_the_log_says_why(
    start: Start, origin: Origin, authority: Authority
) -> None:
    good = authority.issue("good")
    gateway = start_with(start, origin, authority, authority.revoke(days=0.5))
    gateway.program.wait_for_line("list of CN=authority has expired on 20.*: all that it vouches for are refused")
    with pytest.raises(REFUSED):
        ask(gateway, authority, good)
    gateway.program.wait_for_line("no TLS with 127.0.0.1: crl has expired")
    said = gateway.program.line_count
    authority.revoke()
    gateway.program.wait_for_line("are used from now on", after=said)
    assert ask(gateway, authority, good) == 200


def test_a_certificate_among_the_lists_is_trusted_by_nobody(
    start: Start, origin: Origin, authority: Authority, tmp_path: Path
) -> None:
    stranger = Authority(tmp_path, "stranger")
    lists = authority.revoke()
    mixed = tmp_path / "mixed.pem"
    mixed.write_bytes(stranger.file.read_bytes() + lists.read_bytes() + stranger.revoke().read_bytes())
    gateway = start_with(start, origin, authority, mixed)
    assert ask(gateway, authority, authority.issue("good")) == 200
    with pytest.raises(REFUSED):
        ask(gateway, authority, stranger.issue("alien"))


def test_encrypted_keys_at_both_sides(start: Start, authority: Authority, tmp_path: Path) -> None:
    shown = authority.issue("localhost", passphrase=b"of-the-edge")
    own = authority.issue("own", passphrase="für Dienste".encode())
    (tmp_path / "secret").write_text("für Dienste\n", encoding="utf-8")
    with Origin(tls=serving(authority.issue("service"), clients=authority)) as origin:
        gateway = start(f"""
listen: {{address: "127.0.0.1:0", tls: {{cert: {shown.cert}, key: {shown.key}, passphrase: of-the-edge}}}}
services:
  origin:
    http:
      instances: ["https://127.0.0.1:{origin.port}"]
      tls: {{ca: {authority.file}, cert: {own.cert}, key: {own.key}, passphrase: "${{file:{tmp_path}/secret}}"}}
routes: {{"GET /a/x": {{call: origin, public: true}}}}
""")
        with Client(gateway.port, tls=authority.trusting()) as client:
            assert client.send(GET).read_answer()[0] == 200
        assert origin.peers[0]["subject"] == ((("commonName", "own"),),)
    assert not any("Dienste" in line or "of-the-edge" in line for line in gateway.program.lines)
