"""Client certificates: real ones, in real handshakes with a real gateway."""

import json
import ssl
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest
from tests.testbeds.certificates import Authority, Pair
from tests.testbeds.gateway import Gateway
from tests.testbeds.wire import Client, Origin

CONFIG = """
listen:
  address: 127.0.0.1:0
  tls: {{cert: localhost.crt, key: localhost.key, clients: {{ca: clients.pem, required: false}}}}
auth:
  any: {{certificate: {{}}}}
  ours: {{certificate: {{issuers: [ours.pem]}}}}
  changing: {{certificate: {{issuers: [changing.pem], watch: 100ms}}}}
  partners: {{certificate: {{subjects: ["*.partners.example.com", Lone.example.com]}}}}
  spiffe: {{certificate: {{subject: uri, subjects: ["spiffe://example.com/ns/*/sa/orders"]}}}}
  common: {{certificate: {{subject: cn}}}}
services: {{origin: {{http: ["http://127.0.0.1:{port}"]}}}}
routes:
  GET /any:
    call: origin
    auth: any
    headers: {{request: {{x-who: "{{principal.subject}} {{claims.issuer}}", x-print: "{{principal.credential}}"}}}}
  GET /ours: {{call: origin, auth: ours}}
  GET /changing: {{call: origin, auth: changing}}
  GET /partners: {{call: origin, auth: partners, headers: {{request: {{x-who: "{{principal.subject}}"}}}}}}
  GET /spiffe: {{call: origin, auth: spiffe, headers: {{request: {{x-who: "{{principal.subject}}"}}}}}}
  GET /common: {{call: origin, auth: common, headers: {{request: {{x-who: "{{principal.subject}}"}}}}}}
"""


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin() as origin:
        yield origin


@pytest.fixture
def ours(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "ours")


@pytest.fixture
def theirs(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "theirs")


@pytest.fixture
def gateway(tmp_path: Path, origin: Origin, ours: Authority, theirs: Authority) -> Iterator[Gateway]:
    """One that takes clients of two authorities."""
    ours.issue("localhost")
    (tmp_path / "changing.pem").write_bytes(theirs.file.read_bytes())
    (tmp_path / "clients.pem").write_bytes(ours.file.read_bytes() + theirs.file.read_bytes())
    with Gateway(tmp_path, CONFIG.format(port=origin.port)) as gateway:
        yield gateway


def showing(authority: Authority, pair: Pair | None) -> ssl.SSLContext:
    context = authority.trusting()
    if pair is not None:
        context.load_cert_chain(pair.cert, pair.key)
    return context


def ask(client: Client, path: str) -> tuple[int, str]:
    status, _, body = client.send(f"GET {path} HTTP/1.1\r\nHost: h\r\n\r\n".encode()).read_answer()
    return status, "" if status == 200 else json.loads(body)["detail"]


def test_who_shows_a_certificate_is_known_by_its_name(gateway: Gateway, origin: Origin, ours: Authority) -> None:
    pair = ours.issue("orders.example.com", hosts=("orders.example.com", "more.example.com"))
    with Client(gateway.port, tls=showing(ours, pair)) as client:
        assert [ask(client, "/any")[0] for _ in range(3)] == [200] * 3
    der = ssl.PEM_cert_to_DER_cert(pair.cert.read_text())
    assert b"\r\nx-who: orders.example.com CN=ours\r\n" in origin.seen[2]
    assert f"\r\nx-print: {sha256(der).hexdigest()}\r\n".encode() in origin.seen[2]


def test_who_shows_none_is_asked_to(gateway: Gateway, origin: Origin, ours: Authority) -> None:
    with Client(gateway.port, tls=showing(ours, None)) as client:
        assert ask(client, "/any") == (401, "There is no client certificate.")
    assert origin.seen == []


STRANGER = "The certificate's owner is not accepted here."
CASES: list[tuple[str, str, tuple[str, ...], tuple[str, ...], str]] = [
    ("/ours", "ours", ("a.example.com",), (), ""),
    ("/ours", "theirs", ("a.example.com",), (), "The certificate is not from an authority that is accepted here."),
    ("/partners", "theirs", ("x.partners.example.com",), (), ""),
    ("/partners", "theirs", ("other.example.com", "X.Partners.example.com"), (), ""),
    ("/partners", "theirs", ("lone.EXAMPLE.com",), (), ""),
    ("/partners", "theirs", ("x.y.partners.example.com",), (), STRANGER),
    ("/partners", "theirs", ("partners.example.com",), (), STRANGER),
    ("/partners", "theirs", ("xpartners.example.com",), (), STRANGER),
    ("/partners", "theirs", ("lone.example.com.evil.org",), (), STRANGER),
    ("/partners", "theirs", (), ("spiffe://x",), STRANGER),
    ("/spiffe", "ours", (), ("spiffe://example.com/ns/shop/sa/orders",), ""),
    ("/spiffe", "ours", (), ("spiffe://example.com/ns/a/b/sa/orders",), STRANGER),
    ("/spiffe", "ours", (), ("spiffe://EXAMPLE.com/ns/shop/sa/orders",), STRANGER),
    ("/spiffe", "ours", ("example.com",), (), STRANGER),
    ("/common", "ours", (), ("spiffe://x",), ""),
    ("/any", "ours", (), ("spiffe://x",), STRANGER),
]


def test_the_names_and_the_authority_decide(
    gateway: Gateway, origin: Origin, ours: Authority, theirs: Authority
) -> None:
    for path, who, hosts, uris, expected in CASES:
        pair = (ours if who == "ours" else theirs).issue("client", hosts=hosts, uris=uris)
        with Client(gateway.port, tls=showing(ours, pair)) as client:
            assert ask(client, path) == (401 if expected else 200, expected), (path, who, hosts, uris)
    assert len(origin.seen) == sum(not expected for *_, expected in CASES)


def test_an_authority_that_takes_the_name_of_another_vouches_for_nobody_of_that_one(
    gateway: Gateway, origin: Origin, ours: Authority, theirs: Authority, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    impostor = Authority(tmp_path / "elsewhere", "ours", of=theirs)
    pair = impostor.issue("a.example.com")
    pair.cert.write_bytes(pair.cert.read_bytes() + impostor.file.read_bytes())
    with Client(gateway.port, tls=showing(ours, pair)) as client:
        assert ask(client, "/any")[0] == 200
        assert ask(client, "/ours") == (401, "The certificate is not from an authority that is accepted here.")
    assert b"\r\nx-who: a.example.com CN=ours\r\n" in origin.seen[0]


def test_a_certificate_that_ends_while_its_connection_lives_is_refused(
    gateway: Gateway, origin: Origin, ours: Authority
) -> None:
    pair = ours.issue("short.example.com", days=1 + 2 / 86400)
    with Client(gateway.port, tls=showing(ours, pair)) as client:
        assert ask(client, "/any")[0] == 200
        gateway.program.wait_until(lambda: ask(client, "/any")[0] == 401, "its end", 5)
        assert ask(client, "/any") == (401, "The certificate has expired.")


def test_authorities_are_replaced_without_a_reload_also_for_connections_that_are_open(
    gateway: Gateway, ours: Authority, theirs: Authority, tmp_path: Path
) -> None:
    file = tmp_path / "changing.pem"
    with (
        Client(gateway.port, tls=showing(ours, ours.issue("a.example.com"))) as mine,
        Client(gateway.port, tls=showing(ours, theirs.issue("b.example.com"))) as other,
    ):
        assert (ask(mine, "/changing")[0], ask(other, "/changing")[0]) == (401, 200)
        file.write_text("nothing")
        gateway.program.wait_for_line("the new certificates are not used: auth.changing.certificate.issuers")
        assert (ask(mine, "/changing")[0], ask(other, "/changing")[0]) == (401, 200)
        file.write_bytes(ours.file.read_bytes())
        gateway.program.wait_until(lambda: ask(mine, "/changing")[0] == 200, "the new authority")
        assert ask(other, "/changing")[0] == 401
