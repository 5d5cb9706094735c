"""SIGTERM: not ready first, then what is in flight ends, then 0."""

import signal
import socket
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.testbeds.gateway import Gateway
from tests.testbeds.wire import OK, Client, Origin

GET = b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n"


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin() as origin:
        yield origin


def config(origin: Origin, drain: str) -> str:
    return f"""
workers: 2
drain: {drain}
services: {{origin: {{http: ["http://127.0.0.1:{origin.port}"]}}}}
defaults: {{public: true, timeout: 20s}}
routes: {{"GET /x": {{call: origin}}}}
"""


def test_p2_readiness_goes_first_and_clients_are_told_to_close(tmp_path: Path, origin: Origin) -> None:
    gateway = Gateway(tmp_path, config(origin, "{notice: 2s, limit: 5s}"))
    with Client(gateway.port) as old:
        assert old.send(GET).read_answer()[0] == 200
        gateway.program.send_signal(signal.SIGTERM)
        gateway.program.wait_until(lambda: gateway.readiness()[0] == 503, "not ready")
        assert gateway.readiness()[1]["reason"] == "draining"
        status, fields, _ = old.send(GET).read_answer()
        assert (status, fields["connection"]) == (200, "close")
        assert old.closed()
        with Client(gateway.port) as new:
            status, fields, _ = new.send(GET).read_answer()
            assert (status, fields["connection"]) == (200, "close")
    assert gateway.program.wait(10) == 0


def test_p2_what_is_in_flight_ends_before_the_process(tmp_path: Path, origin: Origin) -> None:
    go_on = threading.Event()

    def late(connection: socket.socket, _request: bytes) -> bool:
        go_on.wait(10)
        connection.sendall(OK)
        return True

    origin.script = late
    gateway = Gateway(tmp_path, config(origin, "10s"))
    with Client(gateway.port) as client, Client(gateway.port) as idle:
        client.send(GET)
        gateway.program.wait_until(lambda: bool(origin.seen), "the request to arrive")
        gateway.program.send_signal(signal.SIGTERM)
        assert idle.closed()
        go_on.set()
        assert client.read_answer()[0] == 200
        assert client.closed()
    assert gateway.program.wait(10) == 0


def test_a_request_that_takes_longer_than_the_limit_is_cut(tmp_path: Path, origin: Origin) -> None:
    go_on = threading.Event()

    def never(_connection: socket.socket, _request: bytes) -> bool:
        go_on.wait(20)
        return False

    origin.script = never
    gateway = Gateway(tmp_path, config(origin, "500ms"))
    with Client(gateway.port, timeout_s=10) as client:
        client.send(GET)
        gateway.program.wait_until(lambda: bool(origin.seen), "the request to arrive")
        gateway.program.send_signal(signal.SIGTERM)
        assert gateway.program.wait(10) == 0
        assert client.closed()
    go_on.set()


def test_systemd_is_told(tmp_path: Path, origin: Origin) -> None:
    address = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(address))
        manager.settimeout(10)
        gateway = Gateway(tmp_path, config(origin, "1s"), {"NOTIFY_SOCKET": str(address)})
        assert manager.recv(100) == b"READY=1"
        gateway.program.send_signal(signal.SIGHUP)
        assert [manager.recv(100), manager.recv(100)] == [b"RELOADING=1", b"READY=1"]
        gateway.program.send_signal(signal.SIGTERM)
        assert manager.recv(100) == b"STOPPING=1"
        assert gateway.program.wait(10) == 0


@pytest.mark.parametrize("token", [None, "a-token-for-operators"])
def test_off_loopback_probes_are_open_and_the_rest_needs_the_token(
    tmp_path: Path, origin: Origin, token: str | None
) -> None:
    said = f", token: {token}" if token else ""
    gateway = Gateway(tmp_path, f'admin: {{address: "0.0.0.0:0"{said}}}\n' + config(origin, "1s"))
    assert gateway.readiness()[0] == 200
    assert "castlegate_workers" in gateway.metrics()
    assert operators(gateway, None) == 401
    assert operators(gateway, "wrong-token-of-somebody") == 401
    assert operators(gateway, token or "a-token-for-operators") == (200 if token else 401)
    gateway.stop()


def operators(gateway: Gateway, token: str | None) -> int:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(f"http://127.0.0.1:{gateway.admin}/workers", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            status: int = answer.status
            return status
    except urllib.error.HTTPError as error:
        with error:
            return error.code


@pytest.mark.parametrize("field", [{"Origin": "https://page.example"}, {"Sec-Fetch-Site": "cross-site"}])
def test_no_page_in_an_operator_s_browser_can_ask_for_a_reload(
    tmp_path: Path, origin: Origin, field: dict[str, str]
) -> None:
    gateway = Gateway(tmp_path, config(origin, "1s"))
    url = f"http://127.0.0.1:{gateway.admin}/reload"
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(urllib.request.Request(url, method="POST", headers=field), timeout=5)
    with refused.value:
        assert refused.value.code == 403
    assert gateway.metrics()["castlegate_config_version"] == 1
    gateway.stop()


def test_what_two_configurations_share_is_ended_once(tmp_path: Path, origin: Origin) -> None:
    """A request of the one before is still in flight when it stops."""
    go_on = threading.Event()

    def late(connection: socket.socket, _request: bytes) -> bool:
        go_on.wait(10)
        connection.sendall(OK)
        return True

    origin.script = late
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", tmp_path / "tokens.pem"], check=True)
    (tmp_path / "tokens.pem").chmod(0o600)
    issuer = """
issuer: {url: "http://h", keys: [tokens.pem], login: {call: origin, post: /check}, state: {file: tokens.db}}
auth: {ours: {issuer: true}}
"""
    gateway = Gateway(tmp_path, issuer + config(origin, "10s"))
    with Client(gateway.port) as client:
        client.send(GET)
        gateway.program.wait_until(lambda: bool(origin.seen), "the request to arrive")
        gateway.rewrite(issuer + config(origin, "9s"))
        gateway.program.send_signal(signal.SIGHUP)
        gateway.program.wait_until(lambda: gateway.metrics()["castlegate_config_version"] == 2, "the reload")
        gateway.program.send_signal(signal.SIGTERM)
        go_on.set()
        assert client.read_answer()[0] == 200
    assert gateway.program.wait(10) == 0
    assert not [line for line in gateway.program.lines if "ERROR" in line or "Traceback" in line]
