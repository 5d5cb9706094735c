"""`castlegate doctor` in front of services that speak TLS: what is wrong with a certificate, and what to do about it."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.doctor.test_doctor import Diagnosis, diagnose
from tests.testbeds.certificates import Authority, serving
from tests.testbeds.processes import free_port
from tests.testbeds.wire import Origin


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def config(port: int, tls: str = "{}", scheme: str = "https") -> str:
    return f"""
listen: 127.0.0.1:0
admin: 127.0.0.1:0
access_log: off
services: {{users: {{http: {{instances: ["{scheme}://localhost:{port}"], tls: {tls}}}}}}}
defaults: {{public: true}}
routes: {{GET /users: {{call: users}}}}
"""


def found(folder: Path, origin: Origin, tls: str = "{}") -> tuple[str, str, str]:
    """Verdict, words and advice of the one instance."""
    diagnosis: Diagnosis = diagnose(folder, config(origin.port, tls))
    told = diagnosis.of(f"service users: https://localhost:{origin.port}")
    assert diagnosis.status == (told["verdict"] == "wrong")
    assert not origin.seen, "it is not asked anything"
    return told["verdict"], told["says"], told["advice"]


def trusting(authority: Authority, more: str = "") -> str:
    return f"{{ca: {authority.file}{more}}}"


def test_one_that_proves_itself(tmp_path: Path, authority: Authority) -> None:
    with Origin(tls=serving(authority.issue("localhost", days=60))) as origin:
        verdict, says, advice = found(tmp_path, origin, trusting(authority))
    assert (verdict, advice) == ("well", "")
    assert "accepts connections, TLSv1.3, and proves to be localhost until 20" in says


def test_one_that_expires_soon(tmp_path: Path, authority: Authority) -> None:
    with Origin(tls=serving(authority.issue("localhost", days=5))) as origin:
        verdict, _, advice = found(tmp_path, origin, trusting(authority))
    assert (verdict, advice) == ("note", "renew its certificate: it expires in 3 days")


def test_one_that_has_expired(tmp_path: Path, authority: Authority) -> None:
    with Origin(tls=serving(authority.issue("localhost", days=0.5))) as origin:
        verdict, says, advice = found(tmp_path, origin, trusting(authority))
    assert (verdict, "its certificate, or one above it, has expired: it is for 20" in says) == ("wrong", True)
    assert advice == "renew it; or set this machine's clock"


def test_one_for_another_name(tmp_path: Path, authority: Authority) -> None:
    pair = authority.issue("users.internal", hosts=("users.internal", "users"))
    with Origin(tls=serving(pair)) as origin:
        verdict, says, advice = found(tmp_path, origin, trusting(authority))
        named = found(tmp_path, origin, trusting(authority, ", server_name: users.internal"))
    assert (verdict, "not for localhost, but for users.internal, users" in says) == ("wrong", True)
    assert "'server_name' in 'services.users.http.tls'" in advice
    assert (named[0], "proves to be users.internal" in named[1]) == ("well", True)


def test_one_that_nobody_vouches_for(tmp_path: Path, authority: Authority) -> None:
    with Origin(tls=serving(authority.issue("localhost"))) as origin:
        verdict, says, advice = found(tmp_path, origin)
        unverified = found(tmp_path, origin, "{verify: false}")
    assert (verdict, "who vouches for its certificate, CN=authority, is not trusted" in says) == ("wrong", True)
    assert "'ca' in 'services.users.http.tls'" in advice
    assert (unverified[0], "'verify: false'" in unverified[1]) == ("note", True)


def test_one_that_asks_who_we_are(tmp_path: Path, authority: Authority) -> None:
    ours = authority.issue("gateway")
    with Origin(tls=serving(authority.issue("localhost"), clients=authority)) as origin:
        verdict, _, advice = found(tmp_path, origin, trusting(authority))
        known = found(tmp_path, origin, trusting(authority, f", cert: {ours.cert}, key: {ours.key}"))
    assert (verdict, "'cert' and 'key' in 'services.users.http.tls'" in advice) == ("wrong", True)
    assert known[0] == "well"


def test_one_that_does_not_speak_tls(tmp_path: Path) -> None:
    with Origin() as origin:
        diagnosis = diagnose(tmp_path, config(origin.port), "--timeout", "2")
    (wrong,) = diagnosis.wrong.values()
    assert "localhost" not in wrong
    assert "TLS" in wrong


@pytest.fixture
def silent() -> Iterator[int]:
    """Takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


def test_one_that_says_nothing_takes_no_longer_than_allowed(tmp_path: Path, silent: int) -> None:
    diagnosis = diagnose(tmp_path, config(silent), "--timeout", "0.5")
    (wrong,) = diagnosis.wrong.values()
    assert "no TLS handshake within 0.5 s" in wrong
    assert diagnosis.seconds < 8


def test_one_that_is_not_there(tmp_path: Path) -> None:
    diagnosis = diagnose(tmp_path, config(free_port()))
    (wrong,) = diagnosis.wrong.values()
    assert "connection refused" in wrong
