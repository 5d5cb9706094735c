"""The program as operators run it: starts, signals, a parent that dies."""

import signal
import sys
from pathlib import Path

import pytest
from tests.testbeds.gateway import Gateway
from tests.testbeds.processes import Program
from tests.testbeds.wire import Client, Origin

_CONFIG = """
listen: 127.0.0.1:0
admin: 127.0.0.1:0
access_log: {log}
services: {{origin: {{http: ["http://127.0.0.1:1"]}}}}
defaults: {{public: true}}
routes: {{"GET /x": {{call: origin}}}}
"""


def _run(folder: Path, log: str) -> Program:
    config = folder / "gateway.yaml"
    config.write_text(_CONFIG.format(log=log))
    return Program([sys.executable, "-m", "castlegate.cli.main", "run", config], name="castlegate")


def test_what_is_announced_can_be_stopped_at_once(tmp_path: Path) -> None:
    for _ in range(5):
        with _run(tmp_path, "off") as program:
            program.wait_for_line("listens on")
            program.send_signal(signal.SIGTERM)
            assert program.wait() == 0


def test_a_stop_while_it_starts_is_no_failure(tmp_path: Path) -> None:
    with _run(tmp_path, "off") as program:
        program.wait_until(lambda: bool(_children(program.pid)), "the worker")
        program.send_signal(signal.SIGTERM)
        assert program.wait() == 0


def test_a_worker_ends_with_its_supervisor(tmp_path: Path) -> None:
    with Origin() as origin:
        gateway = Gateway(
            tmp_path,
            f"""
services: {{origin: {{http: ["http://127.0.0.1:{origin.port}"]}}}}
defaults: {{public: true}}
routes: {{"GET /x": {{call: origin}}}}
""",
        )
        (worker,) = _children(gateway.program.pid)
        with Client(gateway.port) as client:
            assert client.send(b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n").read_answer()[0] == 200
        gateway.program.send_signal(signal.SIGKILL)
        gateway.program.wait()
        with Program(["tail", f"--pid={worker}", "-f", "/dev/null"], name="the worker's end") as end:
            assert end.wait(10) == 0


def test_without_kafka_its_client_is_not_even_loaded(tmp_path: Path) -> None:
    with _run(tmp_path, "off") as program:
        program.wait_for_line("listens on")
        for pid in (program.pid, *_children(program.pid)):
            assert "confluent_kafka" not in Path(f"/proc/{pid}/maps").read_text()
        assert program.terminate() == 0


@pytest.mark.parametrize("log", ["/nonexistent/folder/access.log", "/"])
def test_a_log_that_cannot_be_written_is_said_before_anything_is_served(tmp_path: Path, log: str) -> None:
    with _run(tmp_path, log) as program:
        assert program.wait() == 1
        said = "\n".join(program.lines)
    assert "access log" in said
    assert "Traceback" not in said
    assert "listens on" not in said


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
