"""What docs/guides/python.md shows works together as it stands."""

import json
import re
from pathlib import Path

import pytest
from tests.testbeds.gateway import Gateway
from tests.testbeds.wire import Client, Origin

from castlegate.document import load

GUIDE = (Path(__file__).parents[2] / "docs" / "guides" / "python.md").read_text(encoding="utf-8")
CONFIGS = re.findall(r"```yaml\n(.*?)```", GUIDE, re.DOTALL)
MODULES = dict(zip(("pages", "reports", "rules"), re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL), strict=True))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "shop").mkdir()
    for name, code in MODULES.items():
        (tmp_path / "shop" / f"{name}.py").write_text(code, encoding="utf-8")
    return tmp_path


def test_there_are_configurations() -> None:
    assert len(CONFIGS) == 3


@pytest.mark.parametrize("config", CONFIGS)
def test_a_configuration_has_no_mistakes(folder: Path, config: str) -> None:
    path = folder / "gateway.yaml"
    path.write_text(config)
    loaded = load(path, {})
    assert loaded.document.routes
    assert not loaded.report.warnings


def answering(value: object) -> bytes:
    body = json.dumps(value).encode()
    return b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


def test_the_first_configuration_serves(folder: Path) -> None:
    with (
        Origin(lambda to, _: to.sendall(answering({"name": "Ann", "id": 7})) is not None) as users,
        Origin(lambda to, _: to.sendall(answering({"id": 7})) is not None) as stock,
    ):
        config = (
            CONFIGS[0].replace("users:8000", f"127.0.0.1:{users.port}").replace("stock:8000", f"127.0.0.1:{stock.port}")
        )
        with Gateway(folder, config) as gateway, Client(gateway.port) as client:
            client.send(b"GET /home/ann%2Fb?days=3 HTTP/1.1\r\nHost: h\r\n\r\n")
            assert json.loads(client.read_answer()[2]) == {"name": "Ann", "offers": {"id": 7}}
            assert users.seen[0].startswith(b"GET /users/ann%2Fb HTTP/1.1\r\n")
            assert stock.seen[0].startswith(b"GET /offers?days=3 HTTP/1.1\r\n")
            client.send(b'POST /orders HTTP/1.1\r\nHost: h\r\nContent-Length: 14\r\n\r\n{"item":"tea"}')
            status, fields, _ = client.read_answer()
            assert (status, fields["location"]) == (201, "/orders/7")
            client.send(b'POST /orders HTTP/1.1\r\nHost: h\r\nContent-Length: 18\r\n\r\n{"item":"unicorn"}')
            assert client.read_answer()[0] == 409
