"""The files of deploy/ are what the programs that read them take, and speak of metrics that there are."""

import json
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from tests.testbeds.cache import REPO
from tests.testbeds.gateway import Gateway
from tests.testbeds.wire import Client, Origin

from castlegate.document import load

DEPLOY = REPO / "deploy"


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
    assert "14 rules found" in run("promtool", "check", "rules", str(DEPLOY / "prometheus-rules.yaml"))


@pytest.mark.parametrize("file", ["prometheus-rules.yaml", "grafana.json"])
def test_every_metric_they_name_is_exposed(file: str) -> None:
    text = (DEPLOY / file).read_text()
    names = {re.sub(r"_(bucket|sum|count)$", "", name) for name in re.findall(r"castlegate_[a-z_]+", text)}
    exposed = set(re.findall(r"castlegate_[a-z_]+", (REPO / "tests" / "golden" / "metrics.txt").read_text()))
    assert names
    assert names <= exposed


def test_the_board_is_json_with_panels() -> None:
    board = json.loads((DEPLOY / "grafana.json").read_text())
    assert all(panel["targets"] for panel in board["panels"])


def test_the_balancer_takes_its_configuration() -> None:
    run("haproxy", "-c", "-f", str(DEPLOY / "haproxy.cfg"))


def test_the_gateway_takes_its_configuration() -> None:
    assert load(DEPLOY / "gateway.yaml", {"KAFKA": "kafka:9092"}).document.drain.notice == 5.0


def test_compose_gives_the_files_that_there_are_and_more_time_than_a_drain_takes() -> None:
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    gateway = compose["services"]["gateway"]
    context = DEPLOY / gateway["build"]["context"]
    assert (context / gateway["build"]["dockerfile"]).is_file()
    volumes = [volume for service in compose["services"].values() for volume in service.get("volumes", [])]
    assert [volume for volume in volumes if not (DEPLOY / volume.partition(":")[0]).is_file()] == []
    drain = load(DEPLOY / "gateway.yaml", {"KAFKA": "kafka:9092"}).document.drain
    assert int(gateway["stop_grace_period"].removesuffix("s")) > drain.notice + drain.limit


def test_the_image_is_given_what_a_wheel_is_made_of(tmp_path: Path) -> None:
    given = re.findall(r"^!(.+)$", (REPO / ".dockerignore").read_text(), re.MULTILINE)
    for name in given:
        source = REPO / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / name)
    used = re.findall(r"-r /src/(\S+)", (DEPLOY / "Dockerfile").read_text())
    assert [path for path in used if not (tmp_path / path).is_file()] == []
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    run(*pip, "-w", str(tmp_path), str(tmp_path))
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        names = set(packed.namelist())
    sources = [path.relative_to(REPO / "src").as_posix() for path in (REPO / "src").rglob("*.py")]
    assert [name for name in sources if name not in names] == []


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    unit = tmp_path / "castlegate.service"
    unit.write_text((DEPLOY / "castlegate.service").read_text().replace("/opt/castlegate/bin/castlegate", "/bin/true"))
    run("systemd-analyze", "verify", str(unit))
