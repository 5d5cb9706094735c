"""Which certificate a client is shown, files that change while the gateway runs, and files that cannot be used."""

import shutil
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
from tests.testbeds.certificates import Authority, Pair
from tests.testbeds.gateway import Gateway
from tests.testbeds.wire import Client, Origin
from tests.wire.conftest import Start

GET = b"GET /a/x HTTP/1.1\r\nHost: h\r\n\r\n"
CONFIG = """
listen: {{address: "127.0.0.1:0", tls: {tls}}}
services: {{origin: {{http: ["http://127.0.0.1:{port}"]}}}}
defaults: {{public: true}}
routes: {{"GET /a/x": {{call: origin}}}}
"""


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def shown(gateway: Gateway, name: str | None) -> set[str]:
    """The names in the certificate that a client is shown who asks for `name`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with Client(gateway.port, tls=context, name=name) as client:  # type: ignore[arg-type]
        assert isinstance(client.socket, ssl.SSLSocket)
        raw = client.socket.getpeercert(binary_form=True)
    from cryptography import x509

    certificate = x509.load_der_x509_certificate(raw or b"")
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return set(names.get_values_for_type(x509.DNSName))


def test_the_name_asked_for_chooses_the_certificate(start: Start, origin: Origin, authority: Authority) -> None:
    first = authority.issue("first", hosts=("a.example", "*.b.example"))
    second = authority.issue("second", hosts=("C.example",))
    third = authority.issue("third", hosts=("unused.example",))
    tls = f"""[
      {{cert: {first.cert}, key: {first.key}}}, {{cert: {second.cert}, key: {second.key}}},
      {{cert: {third.cert}, key: {third.key}, hosts: [d.example, "*.d.example"]}}]"""
    gateway = start(CONFIG.format(tls=tls, port=origin.port))
    of_first, of_second, of_third = {"a.example", "*.b.example"}, {"C.example"}, {"unused.example"}
    for name, names in {
        None: of_first, "a.example": of_first, "x.b.example": of_first, "unknown.example": of_first,
        "c.example": of_second, "C.EXAMPLE": of_second,
        "d.example": of_third, "x.D.example": of_third,
        "x.y.d.example": of_first, "unused.example": of_first, "c.example.org": of_first,
    }.items():  # fmt: skip
        assert shown(gateway, name) == names, name


@pytest.fixture
def renewed(start: Start, origin: Origin, authority: Authority) -> tuple[Gateway, Pair]:
    pair = authority.issue("localhost")
    clients = f"{{ca: {authority.file}, required: false}}"
    tls = f"{{cert: {pair.cert}, key: {pair.key}, clients: {clients}, watch: 100ms}}"
    return start(CONFIG.format(tls=tls, port=origin.port)), pair


def test_changed_files_are_used_for_new_connections(
    renewed: tuple[Gateway, Pair], authority: Authority, tmp_path: Path
) -> None:
    gateway, pair = renewed
    with Client(gateway.port, tls=authority.trusting()) as old:
        assert old.send(GET).read_answer()[0] == 200
        fresh = authority.issue("fresh", hosts=("localhost", "new.example"))
        fresh.key.replace(pair.key)
        fresh.cert.replace(pair.cert)
        gateway.program.wait_for_line("INFO .* new certificates of 'listen.tls' are used from now on")
        assert shown(gateway, "localhost") == {"localhost", "new.example"}
        assert old.send(GET).read_answer()[0] == 200  # on the connection that was there


def test_files_that_cannot_be_used_change_nothing(
    renewed: tuple[Gateway, Pair], authority: Authority, tmp_path: Path
) -> None:
    gateway, pair = renewed
    other = authority.issue("other")
    other.cert.replace(pair.cert)  # and not the key
    gateway.program.wait_for_line("new certificates are not used: listen.tls.key: found '.*', which is not the key")
    with Client(gateway.port, tls=authority.trusting()) as client:
        assert client.send(GET).read_answer()[0] == 200
    pair.cert.unlink()
    gateway.program.wait_for_line("not used: listen.tls.cert: found '.*', which cannot be read: No such file")
    assert shown(gateway, "localhost") == {"localhost"}
    other.key.replace(pair.key)
    shutil.copy(authority.issue("other").cert, pair.cert)
    shutil.copy(other.key, pair.key)
    said = gateway.program.line_count
    authority.issue("localhost", hosts=("localhost", "again.example"))
    gateway.program.wait_for_line("are used from now on", after=said)
    assert shown(gateway, "localhost") == {"localhost", "again.example"}


def test_an_authority_that_is_no_longer_trusted_vouches_for_nobody(
    renewed: tuple[Gateway, Pair], authority: Authority, tmp_path: Path
) -> None:
    gateway, _ = renewed
    client = authority.issue("client")
    context = authority.trusting()
    context.load_cert_chain(*client)
    with Client(gateway.port, tls=context) as connection:
        assert connection.send(GET).read_answer()[0] == 200
        assert isinstance(connection.socket, ssl.SSLSocket)
        session = connection.socket.session
        assert session is None or not session.has_ticket  # or it could come back without being looked at
    kept = authority.trusting()
    authority.file.write_bytes(Authority(tmp_path, "else").file.read_bytes())
    gateway.program.wait_for_line("are used from now on")
    kept.load_cert_chain(*client)
    with pytest.raises((ssl.SSLError, ConnectionResetError, EOFError)), Client(gateway.port, tls=kept) as connection:
        connection.send(GET).read_answer()


# --- `castlegate check`


def check(folder: Path, tls: str) -> tuple[int, list[str]]:
    """Exit status and what is said of a configuration in `folder`, its name left out."""
    config = folder / "gateway.yaml"
    config.write_text(CONFIG.format(tls=tls, port=1))
    done = subprocess.run(
        [sys.executable, "-m", "castlegate.cli.main", "check", config], capture_output=True, text=True, check=False
    )
    return done.returncode, [line.replace(f"{config}:", "") for line in (done.stdout + done.stderr).splitlines()]


def test_files_are_relative_to_the_configuration_and_a_good_one_passes(tmp_path: Path, authority: Authority) -> None:
    authority.issue("good")
    authority.file.write_text(f"# Főtanúsítvány\n{authority.file.read_text()}")
    assert check(tmp_path, "{cert: good.crt, key: good.key, clients: authority.pem}") == (
        0, [" 1 route, 1 service, no mistakes"],
    )  # fmt: skip


def test_every_mistake_is_told_with_its_place(tmp_path: Path, authority: Authority) -> None:
    authority.issue("good")
    authority.issue("locked", passphrase=b"secret")
    authority.issue("late", days=0.5)
    (tmp_path / "empty.pem").write_text("")
    Authority(tmp_path, "other").revoke()
    (tmp_path / "elsewhere").mkdir()
    shutil.copy(Authority(tmp_path / "elsewhere").revoke(), tmp_path / "forged.crl")  # by another of the same name
    for tls, expected in {
        "{cert: none.crt, key: good.key}":
            ["2:46: 'listen.tls.cert': found 'none.crt', which cannot be read: No such file or directory"],
        "{cert: good.crt, key: .}": ["2:61: 'listen.tls.key': found '.', which cannot be read: Is a directory"],
        "{cert: good.key, key: good.key}": ["2:46: 'listen.tls.cert': found 'good.key', which holds no certificate in PEM"],
        "{cert: good.crt, key: good.crt}": ["2:61: 'listen.tls.key': found 'good.crt', which holds no private key in PEM"],
        "{cert: good.crt, key: late.key}":
            ["2:61: 'listen.tls.key': found 'late.key', which is not the key of the first certificate in 'cert'"],
        "{cert: good.crt, key: locked.key}":
            ["2:61: 'listen.tls.key': found 'locked.key', which is encrypted: it needs a 'passphrase'"],
        "{cert: good.crt, key: locked.key, passphrase: wrong-one}":
            ["2:61: 'listen.tls.key': found 'locked.key', which holds no private key in PEM, or not one with this passphrase"],
        "{cert: good.crt, key: good.key, passphrase: secret}":
            ["2:83: 'listen.tls.passphrase': the key in 'good.key' is not encrypted; leave this out"],
        "{cert: good.crt, key: good.key, clients: {ca: authority.pem, crl: empty.pem}}":
            ["2:105: 'listen.tls.clients.crl': found 'empty.pem', which holds no list of revoked certificates in PEM, or one that cannot be read"],
        "{cert: good.crt, key: good.key, clients: {ca: authority.pem, crl: other.crl}}":
            ["2:105: 'listen.tls.clients.crl': found 'other.crl', which holds no list of CN=authority: all that it vouches for would be refused"],
        "{cert: good.crt, key: good.key, clients: {ca: authority.pem, crl: forged.crl}}":
            ["2:105: 'listen.tls.clients.crl': found 'forged.crl', whose list of CN=authority is not signed by it"],
        "{cert: good.crt, key: good.key, clients: empty.pem}":
            ["2:80: 'listen.tls.clients.ca': found 'empty.pem', which holds no certificate in PEM, or one that cannot be read"],
        "{cert: good.crt}": ["2:34: 'listen.tls': expected 'cert' and 'key', or 'certificates'"],
        "[]": ["2:34: 'listen.tls': expected 'cert' and 'key', or 'certificates'"],
        "{cert: good.crt, key: good.key, certificates: [{cert: good.crt, key: good.key}]}":
            ["2:34: 'listen.tls': both 'certificates' and 'cert', 'key' or 'passphrase' are said; say one certificate, or a list of them"],
        "[{cert: good.crt, key: good.key, hosts: ['*', a_b.c]}, {cert: late.crt, key: none}]": [
            "2:80: 'listen.tls.certificates[0].hosts[0]': expected a host name or one such as *.example.com, found '*'",
            "2:116: 'listen.tls.certificates[1].key': found 'none', which cannot be read: No such file or directory",
        ],
    }.items():  # fmt: skip
        assert check(tmp_path, tls) == (2, expected), tls


def test_an_expired_certificate_is_a_warning(tmp_path: Path, authority: Authority) -> None:
    authority.issue("late", days=0.5)
    status, said = check(tmp_path, "{cert: late.crt, key: late.key}")
    assert status == 0
    assert any("2:46: 'listen.tls.cert': found 'late.crt', which has expired on 20" in line for line in said), said
    assert any(line.endswith("no mistakes") for line in said)


def test_an_expired_list_of_revoked_certificates_is_a_warning(tmp_path: Path, authority: Authority) -> None:
    authority.issue("good")
    authority.revoke(days=0.5)
    status, said = check(tmp_path, "{cert: good.crt, key: good.key, clients: {ca: authority.pem, crl: authority.crl}}")
    assert status == 0
    expected = "2:105: 'listen.tls.clients.crl': found 'authority.crl', whose list of CN=authority has expired on 20"
    assert any(expected in line for line in said), said


def test_a_passphrase_is_never_printed(tmp_path: Path, authority: Authority) -> None:
    authority.issue("locked", passphrase=b"open-sesame")
    (tmp_path / "secret").write_text("open-sesame\n")
    for given, status in (("${file:secret}", 0), ("open-sesame", 0), ("open-sesame-2", 2)):
        found, said = check(tmp_path, f'{{cert: locked.crt, key: locked.key, passphrase: "{given}"}}')
        assert found == status, said
        assert "sesame" not in "".join(said)
    config = tmp_path / "gateway.yaml"
    for command in (["explain", "GET /a/x"], ["explain"]):
        check(tmp_path, '{cert: locked.crt, key: locked.key, passphrase: "${file:secret}"}')
        done = subprocess.run(
            [sys.executable, "-m", "castlegate.cli.main", *command[:1], config, *command[1:]],
            capture_output=True,
            text=True,
            check=False,
        )
        assert "sesame" not in done.stdout + done.stderr
