"""The admin port over TLS: who is let in, by what, and that its files are looked at."""

import http.client
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.testbeds.certificates import Authority, Pair
from tests.testbeds.gateway import Gateway
from tests.testbeds.processes import Program

TOKEN = "a-token-for-operators"
SERVED = 'services: {s: {http: ["http://127.0.0.1:9"]}}\nroutes: {"GET /": {call: s, public: true}}\n'


class Site:
    """Authorities and what they vouch for."""

    def __init__(self, folder: Path) -> None:
        self.authority, self.operators = Authority(folder, "ours"), Authority(folder, "operators")
        self.stranger = Authority(folder, "strangers").issue("stranger")
        self.pair = self.authority.issue("localhost")
        self.operator = self.operators.issue("operator")

    def client(self, shown: Pair | None = None) -> ssl.SSLContext:
        """Of one who shows this certificate."""
        context = self.authority.trusting()
        if shown is not None:
            context.load_cert_chain(shown.cert, shown.key)
        return context


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(tmp_path_factory.mktemp("site"))


def started(folder: Path, site: Site, clients: str, more: str = "") -> Gateway:
    tls = f"{{cert: {site.pair.cert}, key: {site.pair.key}{clients}}}"
    config = f"admin: {{address: '127.0.0.1:0', tls: {tls}{more}}}\n{SERVED}"
    return Gateway(folder, config, operator=site.client(site.operator))


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, site: Site) -> Iterator[Gateway]:
    clients = f", clients: {{ca: {site.operators.file}, required: false}}"
    with started(tmp_path_factory.mktemp("gateway"), site, clients, f", token: {TOKEN}") as gateway:
        yield gateway


def ask(port: int, method: str, path: str, context: ssl.SSLContext, headers: dict[str, str] | None = None) -> int:
    connection = http.client.HTTPSConnection("localhost", port, timeout=5, context=context)
    try:
        connection.request(method, path, headers=headers or {})
        return connection.getresponse().status
    finally:
        connection.close()


@pytest.mark.parametrize("path", ["/health", "/ready", "/metrics"])
def test_probes_and_metrics_are_open_where_no_certificate_is_required(gateway: Gateway, site: Site, path: str) -> None:
    assert ask(gateway.admin, "GET", path, site.client()) == 200


def test_a_verified_certificate_stands_for_the_token(gateway: Gateway, site: Site) -> None:
    assert ask(gateway.admin, "GET", "/workers", site.client()) == 401
    assert ask(gateway.admin, "GET", "/workers", site.client(site.operator)) == 200
    assert ask(gateway.admin, "POST", "/reload", site.client(site.operator)) == 200


def test_the_token_is_as_good_as_a_certificate(gateway: Gateway, site: Site) -> None:
    assert ask(gateway.admin, "GET", "/workers", site.client(), {"Authorization": f"Bearer {TOKEN}"}) == 200
    assert ask(gateway.admin, "GET", "/workers", site.client(), {"Authorization": "Bearer of-somebody-else"}) == 401


def test_a_certificate_of_others_is_refused(gateway: Gateway, site: Site) -> None:
    with pytest.raises((ssl.SSLError, ConnectionError)):
        ask(gateway.admin, "GET", "/health", site.client(site.stranger))


@pytest.mark.parametrize("field", [{"Origin": "https://page.example"}, {"Sec-Fetch-Site": "cross-site"}])
def test_no_page_can_have_a_browser_show_the_operator_s_certificate(
    gateway: Gateway, site: Site, field: dict[str, str]
) -> None:
    assert ask(gateway.admin, "POST", "/reload", site.client(site.operator), field) == 403


def test_plain_http_is_not_spoken(gateway: Gateway) -> None:
    with socket.create_connection(("127.0.0.1", gateway.admin), 5) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: h\r\n\r\n")
        assert connection.recv(1000).startswith(b"HTTP/1.1 400 ")


def test_without_a_certificate_nobody_is_heard_where_one_is_required(tmp_path: Path, site: Site) -> None:
    with started(tmp_path, site, f", clients: {site.operators.file}") as gateway:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            ask(gateway.admin, "GET", "/health", site.client())
        assert ask(gateway.admin, "GET", "/workers", site.client(site.operator)) == 200


def test_new_files_are_used_without_a_restart(tmp_path: Path, site: Site) -> None:
    authority, operators = Authority(tmp_path, "first"), Authority(tmp_path, "of-operators")
    pair, operator = authority.issue("localhost"), operators.issue("operator")
    context = authority.trusting()
    context.load_cert_chain(operator.cert, operator.key)
    tls = f"{{cert: {pair.cert}, key: {pair.key}, watch: 100ms, clients: {operators.file}}}"
    config = f"admin: {{address: '127.0.0.1:0', tls: {tls}}}\n{SERVED}"
    with Gateway(tmp_path, config, operator=context) as gateway:
        others = Authority(tmp_path, "others")
        other = others.issue("operator", at="other-operator")
        operators.file.write_bytes(others.file.read_bytes())
        gateway.program.wait_for_line(r"new certificates of 'admin.tls' are used")
        with pytest.raises((ssl.SSLError, ConnectionError)):
            ask(gateway.admin, "GET", "/workers", context)
        context = authority.trusting()
        context.load_cert_chain(other.cert, other.key)
        assert ask(gateway.admin, "GET", "/workers", context) == 200


def test_a_file_that_cannot_be_used_is_a_mistake_of_the_configuration(tmp_path: Path, site: Site) -> None:
    (tmp_path / "gateway.yaml").write_text(
        f"admin:\n  tls: {{cert: {site.pair.cert}, key: {site.operator.key}}}\n{SERVED}"
    )
    program = Program(Gateway.command(tmp_path / "gateway.yaml"), name="castlegate")
    program.wait_for_line(r"gateway.yaml:2:\d+: .*which is not the key of the first certificate")
    assert program.wait(10) == 2
