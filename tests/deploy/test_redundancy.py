"""Two instances behind HAProxy with the configuration of deploy/: one dies, both are restarted one after the other."""

import signal
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.testbeds.cache import REPO
from tests.testbeds.gateway import Gateway
from tests.testbeds.processes import Program, free_port
from tests.testbeds.wire import Client, Origin

CONFIG = """
workers: 1
drain: {{notice: 2500ms, limit: 10s}}
services: {{origin: {{http: ["http://127.0.0.1:{origin}"]}}}}
defaults: {{public: true}}
routes: {{"GET /x": {{call: origin}}}}
"""


class Pair:
    """Two gateways on fixed ports behind HAProxy."""

    def __init__(self, folder: Path, origin: Origin) -> None:
        self._folder, self._origin = folder, origin
        self.ports = [(free_port(), free_port()) for _ in range(2)]
        self.gateways = [self.start(slot) for slot in range(2)]
        self.port = free_port()
        self.balancer = Program(["haproxy", "-db", "-f", self._balancer()], name="haproxy")
        self.balancer.wait_until(lambda: self.ask() == 200, "the balancer to find a gateway")

    def start(self, slot: int) -> Gateway:
        port, admin = self.ports[slot]
        folder = self._folder / str(slot)
        folder.mkdir(exist_ok=True)
        head = f'listen: "127.0.0.1:{port}"\nadmin: "127.0.0.1:{admin}"'
        return Gateway(folder, head + CONFIG.format(origin=self._origin.port))

    def ask(self) -> int:
        try:
            with Client(self.port) as client:
                return client.send(b"GET /x HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").read_answer()[0]
        except (OSError, EOFError):
            return 0

    def stop(self) -> None:
        self.balancer.terminate()
        for gateway in self.gateways:
            gateway.stop()

    def _balancer(self) -> Path:
        """deploy/haproxy.cfg with these addresses in place of names that a container network resolves."""
        text = (REPO / "deploy/haproxy.cfg").read_text()
        before, _, _ = text.partition("    server-template")
        servers = "".join(
            f"    server g{slot} 127.0.0.1:{port} check port {admin} inter 1s fall 2 rise 1\n"
            for slot, (port, admin) in enumerate(self.ports)
        )
        path = self._folder / "haproxy.cfg"
        path.write_text(before.replace("bind :8080", f"bind 127.0.0.1:{self.port}") + servers)
        return path


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    with Origin() as origin:
        pair = Pair(tmp_path, origin)
        yield pair
        pair.stop()


class Load:
    """Clients that go on asking until they are told to stop."""

    def __init__(self, pair: Pair, clients: int = 4) -> None:
        self.statuses: Counter[int] = Counter()
        self._pair = pair
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(clients)]
        for thread in self._threads:
            thread.start()

    def wait_for(self, more: int) -> None:
        end = sum(self.statuses.values()) + more
        self._pair.balancer.wait_until(lambda: sum(self.statuses.values()) >= end, f"{more} more requests", 60)

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(10)

    def _run(self) -> None:
        while not self._stop.is_set():
            self.statuses[self._pair.ask()] += 1


def test_r1_of_two_instances_one_may_die(pair: Pair) -> None:
    load = Load(pair)
    load.wait_for(200)
    pair.gateways[0].program.send_signal(signal.SIGKILL)
    load.wait_for(500)
    load.stop()
    assert set(load.statuses) == {200}, f"{load.statuses}: idempotent requests are tried once more at the other"
    assert pair.gateways[1].metrics()['castlegate_requests_total{route="GET /x",status="200"}'] > 100


def test_r2_a_rolling_restart_fails_no_request(pair: Pair) -> None:
    load = Load(pair)
    for slot in range(2):
        load.wait_for(100)
        pair.gateways[slot].program.send_signal(signal.SIGTERM)
        assert pair.gateways[slot].program.wait(20) == 0
        pair.gateways[slot] = pair.start(slot)
        pair.balancer.wait_until(lambda: pair.gateways[slot].readiness()[0] == 200, "the restarted gateway")  # noqa: B023
        load.wait_for(500)
    load.stop()
    assert set(load.statuses) == {200}
