"""As the first process of a container: signals that it does not take are lost, and orphans are its to wait for."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.testbeds.gateway import Gateway
from tests.testbeds.processes import Program
from tests.testbeds.wire import OK, Client, Origin

GET = b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n"

# A namespace of its own for processes, as a container has; without root it needs one for users too.
AS_FIRST = ["unshare", *([] if os.geteuid() == 0 else ["--user", "--map-root-user"])]
AS_FIRST += ["--pid", "--fork", "--kill-child", "--mount-proc"]


class Contained(Gateway):
    """A gateway that is process 1; beside it runs one that lost its parent and ends when `fifo` is written to."""

    @classmethod
    def command(cls, path: Path) -> list[str | Path]:
        fifo = path.with_name("fifo")
        os.mkfifo(fifo)
        return [*AS_FIRST, "sh", "-c", '(read -r word < "$0" &); exec "$@"', fifo, *super().command(path)]

    @property
    def first(self) -> int:
        """The gateway's process id as it is seen from here."""
        [pid] = children(self.program.pid)
        return pid

    def stop(self) -> int:
        if self.program.running:
            os.kill(self.first, signal.SIGTERM)
        return self.program.wait(10)


def children(parent: int) -> list[int]:
    return [pid for pid, (_, found) in processes().items() if found == parent]


def processes() -> dict[int, tuple[str, int]]:
    """State and parent of each."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = path.read_text().rpartition(") ")[2].split()[:2]
        except (FileNotFoundError, ProcessLookupError):
            continue
        found[int(path.parent.name)] = (state, int(parent))
    return found


def restarted(gateway: Gateway, count: int) -> bool:
    restarts = gateway.metrics()["castlegate_worker_restarts_total"]
    return restarts == count and all(worker["ready"] for worker in gateway.workers())


def zombies(parent: int) -> list[int]:
    return [pid for pid in children(parent) if processes().get(pid, ("", 0))[0] == "Z"]


@pytest.fixture(scope="module", autouse=True)
def permitted() -> None:
    if sys.platform != "linux":
        pytest.skip("only Linux has namespaces of processes")
    done = subprocess.run([*AS_FIRST, "true"], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"a namespace of processes is not permitted here: {done.stderr.strip()}")


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin() as origin:
        yield origin


@pytest.fixture
def gateway(tmp_path: Path, origin: Origin) -> Iterator[Contained]:
    gateway = Contained(
        tmp_path,
        f"""
workers: 2
drain: 10s
services: {{origin: {{http: ["http://127.0.0.1:{origin.port}"]}}}}
defaults: {{public: true, timeout: 20s}}
routes: {{"GET /x": {{call: origin}}}}
""",
    )
    yield gateway
    with gateway.program:
        gateway.stop()


def test_sigterm_drains_it(gateway: Contained, origin: Origin) -> None:
    go_on = threading.Event()

    def late(connection: socket.socket, _request: bytes) -> bool:
        go_on.wait(10)
        connection.sendall(OK)
        return True

    origin.script = late
    with Client(gateway.port) as client, Client(gateway.port) as idle:
        client.send(GET)
        gateway.program.wait_until(lambda: bool(origin.seen), "the request to arrive")
        os.kill(gateway.first, signal.SIGTERM)
        assert idle.closed()
        go_on.set()
        assert client.read_answer()[0] == 200
        assert client.closed()
    assert gateway.program.wait(10) == 0


def test_orphans_are_waited_for_and_a_killed_worker_is_replaced(gateway: Contained, tmp_path: Path) -> None:
    first = gateway.first
    assert len(children(first)) == 3  # two workers and the orphan
    (tmp_path / "fifo").write_text("end\n")
    gateway.program.wait_until(lambda: len(children(first)) == 2, "the orphan to go")
    for count, victim in enumerate(children(first), start=1):
        os.kill(victim, signal.SIGKILL)
        gateway.program.wait_until(lambda count=count: restarted(gateway, count), "a new worker")  # type: ignore[misc]
    assert len(children(first)) == 2
    assert zombies(first) == []
    ends = [line for line in gateway.program.lines if "ended with status" in line]
    assert [re.findall(r"status (-?\d+)", line) for line in ends] == [["-9"], ["-9"]]


def test_a_mistake_in_its_configuration_is_status_2(tmp_path: Path) -> None:
    config = tmp_path / "gateway.yaml"
    config.write_text("listen: nowhere\n")
    with Program([*AS_FIRST, *Gateway.command(config)], name="castlegate") as program:
        assert program.wait() == 2
