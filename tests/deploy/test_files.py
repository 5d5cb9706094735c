"""The files of deploy/ are what the programs that read them take, and speak of metrics that there are."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.testbeds.cache import REPO
from tests.testbeds.gateway import Gateway
from tests.testbeds.wire import Client, Origin

from castlegate.document import load

DEPLOY = REPO / "deploy"
# Exist once something of the kind has happened, or with Kafka alone.
ELSEWHERE = ("castlegate_kafka_", "castlegate_refused_total")


@pytest.fixture(scope="module")
def exposed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """What a gateway with some traffic exposes."""
    with Origin() as origin:
        gateway = Gateway(
            tmp_path_factory.mktemp("gateway"),
            f"""
services: {{origin: {{http: ["http://127.0.0.1:{origin.port}"]}}}}
defaults: {{public: true}}
routes: {{"GET /x": {{call: origin}}}}
""",
        )
        with Client(gateway.port) as client:
            assert client.send(b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n").read_answer()[0] == 200
        yield gateway.metrics_text("text/plain")
        gateway.stop()


def run(*command: str, text: str | None = None) -> str:
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_what_is_exposed_is_prometheus_text(exposed: str) -> None:
    run("promtool", "check", "metrics", text=exposed)


def test_the_rules_are_rules() -> None:
    assert "11 rules found" in run("promtool", "check", "rules", str(DEPLOY / "prometheus-rules.yaml"))


@pytest.mark.parametrize("file", ["prometheus-rules.yaml", "grafana.json"])
def test_every_metric_they_name_is_exposed(exposed: str, file: str) -> None:
    text = (DEPLOY / file).read_text()
    names = {re.sub(r"_(bucket|sum|count)$", "", name) for name in re.findall(r"castlegate_[a-z_]+", text)}
    known = set(re.findall(r"^# TYPE (castlegate_[a-z_]+)", exposed, re.MULTILINE))
    assert {name for name in names - known if not name.startswith(ELSEWHERE)} == set()


def test_the_board_is_json_with_panels() -> None:
    board = json.loads((DEPLOY / "grafana.json").read_text())
    assert all(panel["targets"] for panel in board["panels"])


def test_the_balancer_takes_its_configuration() -> None:
    run("haproxy", "-c", "-f", str(DEPLOY / "haproxy.cfg"))


def test_the_gateway_takes_its_configuration() -> None:
    assert load(DEPLOY / "gateway.yaml", {"KAFKA": "kafka:9092"}).document.drain.notice == 5.0


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    unit = tmp_path / "castlegate.service"
    unit.write_text((DEPLOY / "castlegate.service").read_text().replace("/opt/castlegate/bin/castlegate", "/bin/true"))
    run("systemd-analyze", "verify", str(unit))
