"""The examples of docs/guides/tls.md are configurations without mistakes, and the first one serves."""

import re
from pathlib import Path

import pytest
from tests.testbeds.certificates import Authority
from tests.testbeds.gateway import Gateway
from tests.testbeds.wire import Client, Origin

from castlegate.config.report import ConfigError
from castlegate.document import load

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "tls.md"
EXAMPLES = re.findall(r"```yaml\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
VARIABLES = {"KAFKA_PASSWORD": "correct-horse-battery"}


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """The files that the examples name."""
    authority = Authority(tmp_path)
    for name in ("shop", "partners", "gateway"):
        authority.issue(name, hosts=(f"{name}.example.com",))
    for name in ("partners-ca.crt", "internal-ca.crt", "kafka-ca.crt"):
        (tmp_path / name).write_bytes(authority.file.read_bytes())
    authority.revoke().replace(tmp_path / "partners.crl")
    return authority


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_has_no_mistakes(tmp_path: Path, authority: Authority, example: str) -> None:
    config = tmp_path / "gateway.yaml"
    config.write_text(example.replace("/etc/castlegate/", f"{tmp_path}/"))
    loaded = load(config, VARIABLES)
    assert loaded.report.warnings == []


def test_there_are_examples_and_their_files_are_read(tmp_path: Path) -> None:
    assert len(EXAMPLES) == 5
    for example in EXAMPLES:
        config = tmp_path / "gateway.yaml"
        config.write_text(example)
        with pytest.raises(ConfigError):  # since no file is there
            load(config, VARIABLES)


def test_the_first_example_serves(tmp_path: Path, authority: Authority) -> None:
    with Origin() as origin:
        config = (
            EXAMPLES[0]
            .replace("0.0.0.0:8443", "127.0.0.1:0")
            .replace("http://users:8000", f"http://127.0.0.1:{origin.port}")
        )
        gateway = Gateway(tmp_path, config)
        try:
            with Client(gateway.port, tls=authority.trusting(), name="shop.example.com") as client:
                assert client.send(b"GET /users/7 HTTP/1.1\r\nHost: h\r\n\r\n").read_answer()[2] == b"ok"
        finally:
            gateway.stop()
        assert b"\r\nx-forwarded-proto: https\r\n" in origin.seen[0]
