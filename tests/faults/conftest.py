"""Gateways under attack, and what holds after every fault.

The process is alive, the next plain request is answered, nothing it opened is left, nothing of ours failed inside of it.
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from tests.testbeds.gateway import Gateway
from tests.testbeds.kafka import RealKafka
from tests.testbeds.wire import Client, Origin

PLAIN = b"GET /plain HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
CONFIG = """
defaults: {{public: true, timeout: 2s, limits: {{body: 1MB}}}}
services:
  plain: {{http: {{instances: ["http://127.0.0.1:{plain}"], pool: {{idle: 200ms}}}}}}
  origin: {{http: {{instances: ["http://127.0.0.1:{port}"], pool: {{idle: 200ms{pool}}}}}}}
routes:
  GET /plain: {{call: plain}}
  ANY /a/{{rest...}}: {{call: origin}}
"""


class Attacked(Gateway):
    """A gateway whose descriptors and memory are watched."""

    def __init__(self, folder: Path, config: str) -> None:
        super().__init__(folder, config)
        if "kafka:" in config:
            self.program.wait_until(lambda: self.readiness()[1]["status"] == "ready", "readiness")
        self.pids = self._pids()
        # Kafka's client connects once more when it likes.
        self.baseline = self.descriptors() + (4 if "kafka:" in config else 0)
        self.ask_plain()
        self._wait_no_more_than(self.baseline, self.descriptors)

    def ask_plain(self) -> float:
        """Seconds that a plain request takes, connecting included."""
        started = time.monotonic()
        with Client(self.port) as client:
            assert client.send(PLAIN).read_answer()[0] == 200
        return time.monotonic() - started

    def descriptors(self) -> int:
        """Open in all of its processes."""
        return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in self._pids())

    def resident(self) -> int:
        """Bytes of memory of all of its processes."""
        total = 0
        for pid in self._pids():
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
            total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))
        return total

    def check(self) -> None:
        """What holds after every fault."""
        assert self._pids() == self.pids
        assert self.ask_plain() < 1
        self._wait_no_more_than(self.baseline, self.descriptors)
        self._wait_no_more_than(0, lambda: self.metrics()["castlegate_connections"])
        assert self.metrics().get("castlegate_kafka_pending", 0) == 0
        assert "Traceback" not in "\n".join(self.program.lines)
        assert self.stop() == 0

    def _wait_no_more_than(self, count: float, read: Callable[[], float]) -> None:
        end = time.monotonic() + 5
        while (found := read()) > count:
            assert time.monotonic() < end, f"{found} instead of {count}"
            time.sleep(0.02)

    def _pids(self) -> list[int]:
        """The supervisor and its workers."""
        parents = {}
        for name in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                stat = Path(f"/proc/{name}/stat").read_text()
                parents[int(name)] = int(stat.rpartition(")")[2].split()[1])
        found = [self.program.pid]
        for pid in found:
            found += [child for child, parent in parents.items() if parent == pid]
        assert len(found) > 1
        return found


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin() as origin:
        yield origin


Attack = Callable[..., Attacked]


@pytest.fixture
def attack(tmp_path: Path, origin: Origin) -> Iterator[Attack]:
    """Starts gateways before `origin`, with `GET /plain` answered by another service; checks them in the end."""
    running: list[Attacked] = []
    with Origin() as plain:

        def start(config: str = CONFIG, listen: str = "", pool: str = "") -> Attacked:
            text = f'listen: {{address: "127.0.0.1:0"{listen}}}\n' + config.format(
                plain=plain.port, port=origin.port, pool=pool
            )
            running.append(Attacked(tmp_path, text))
            return running[-1]

        yield start
        try:
            origin.hang_up()
            for gateway in running:
                gateway.check()
        finally:
            for gateway in running:
                gateway.program.kill()


@pytest.fixture(scope="package")
def faulty_kafka() -> Iterator[RealKafka]:
    """A real Kafka that may be treated badly: whoever does so restarts or thaws it."""
    broker = RealKafka(lasting=True)
    yield broker
    broker.discard()


@pytest.fixture
def name() -> str:
    """Of a service and topics that nobody else uses."""
    return f"s{uuid4().hex[:8]}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--kafka") == "embedded":
        unwanted = [item for item in items if "faulty_kafka" in getattr(item, "fixturenames", ())]
        config.hook.pytest_deselected(items=unwanted)
        items[:] = [item for item in items if item not in unwanted]
