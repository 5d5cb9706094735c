"""What runs out: open files, memory for bodies, the disk under the log, whoever reads the log. It sheds, and recovers."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.testbeds.gateway import Gateway
from tests.testbeds.wire import Client, Origin

GET = b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n"


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin() as origin:
        yield origin


def config(origin: Origin, more: str = "") -> str:
    return f"""
{more}
services: {{origin: {{http: ["http://127.0.0.1:{origin.port}"]}}}}
defaults: {{public: true}}
routes: {{"GET /x": {{call: origin}}, "POST /x": {{call: origin, headers: {{request: {{x-id: "{{body.id?}}"}}}}}}}}
"""


class Limited(Gateway):
    """One that may open so many files."""

    files = 200

    @classmethod
    def command(cls, path: Path) -> list[str | Path]:
        return ["prlimit", f"--nofile={cls.files}", *super().command(path)]


def test_more_clients_than_files_are_sent_away_and_those_there_are_served(tmp_path: Path, origin: Origin) -> None:
    gateway = Limited(tmp_path, config(origin))
    clients = [Client(gateway.port) for _ in range(150)]
    statuses = []
    for client in clients:
        try:
            statuses.append(client.send(GET).read_answer()[0])
        except (EOFError, ConnectionResetError):
            statuses.append(503)  # its answer was lost to the close, as a refused connection's may be
    assert statuses.count(200) == (200 - 64) * 3 // 4
    assert statuses.count(503) == 150 - statuses.count(200)
    assert gateway.readiness()[0] == 200
    for client in clients:
        client.socket.close()
    gateway.program.wait_until(lambda: gateway.metrics()["castlegate_connections"] == 0, "the clients to be gone")
    with Client(gateway.port) as client:
        assert client.send(GET).read_answer()[0] == 200
    assert gateway.stop() == 0


def test_bodies_that_are_collected_have_a_budget_together(tmp_path: Path, origin: Origin) -> None:
    listen = 'listen: {address: "127.0.0.1:0", limits: {collected: 8MiB}}'
    text = config(origin, listen).replace("{public: true}", "{public: true, limits: {body: 4MiB}}")
    gateway = Gateway(tmp_path, text)
    head = b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 4000000\r\n\r\n"
    half = b" " * 3_000_000
    with Client(gateway.port) as first, Client(gateway.port) as second, Client(gateway.port) as third:
        for client in (first, second):
            client.send(head + half)
        gateway.program.wait_until(
            lambda: gateway.metrics()["castlegate_received_bytes_total"] > 6_000_000, "both to be held"
        )
        status, _, body = third.send(head + half).read_answer()
        assert (status, json.loads(body)["type"]) == (503, "urn:castlegate:overloaded")
        rest = b" " * 999_998 + b"{}"
        assert [client.send(rest).read_answer()[0] for client in (first, second)] == [200, 200]
    with Client(gateway.port) as client:
        assert client.send(head + half + rest).read_answer()[0] == 200
    assert gateway.stop() == 0


def test_a_full_disk_under_the_log_stops_no_request(tmp_path: Path, origin: Origin) -> None:
    gateway = Gateway(tmp_path, config(origin, "access_log: /dev/full"))
    with Client(gateway.port) as client:
        for _ in range(20):
            assert client.send(GET).read_answer()[0] == 200
        gateway.program.wait_until(
            lambda: gateway.metrics()["castlegate_access_log_dropped_total"] == 20, "the lines to be counted as lost"
        )
    assert gateway.stop() == 0


def test_a_reader_of_the_log_that_stalls_stops_no_request(tmp_path: Path, origin: Origin) -> None:
    """Standard output is a pipe that nobody reads: 64 KiB fit in, the rest waits, and what exceeds that is dropped."""
    path = tmp_path / "gateway.yaml"
    path.write_text(f"listen: 127.0.0.1:0\nadmin: 127.0.0.1:0\naccess_log: stdout\n{config(origin)}")
    command = [sys.executable, "-m", "castlegate.cli.main", "run", path]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = next(line for line in process.stderr if "listens on" in line)
        port = int(said.split("127.0.0.1:")[1].split(" ")[0])
        with Client(port) as client:
            long = GET.replace(b"/x", b"/x?" + b"q" * 2000)
            for _ in range(300):
                assert client.send(long).read_answer()[0] == 200
        process.terminate()
        assert process.stdout is not None
        threading.Thread(target=process.stdout.read).start()
        assert process.wait(15) == 0
