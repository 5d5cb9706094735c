"""P6: more and larger bodies than memory has room for are shed with 503, and nobody is killed for them.

The gateway runs under a limit of the kernel's. Clients send bodies that are collected for Kafka, upload to a service that
takes nothing, and ask for answers that they do not read, all of them more than there is room for.
"""

import contextlib
import os
import select
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from tests.faults.conftest import Attacked
from tests.testbeds.embedded import EmbeddedBroker
from tests.testbeds.topics import create_topics
from tests.testbeds.wire import Client, Origin

MIB = 2**20
LIMIT = 400 * MIB  # by the rule in docs/guides/operations.md, for what CONFIG says
CONFIG = """
listen: {{address: "127.0.0.1:0", limits: {{connections: 700, collected: 24MiB}}, timeouts: {{body: 2s}}}}
workers: 1
kafka: {{bootstrap: "{bootstrap}", inbox: {name}.replies}}
services:
  {name}: {{kafka: plain}}
  plain: {{http: {{instances: ["http://127.0.0.1:{plain}"], pool: {{idle: 200ms}}}}}}
  origin: {{http: ["http://127.0.0.1:{port}"]}}
  deaf: {{http: ["http://127.0.0.1:{deaf}"]}}
defaults: {{public: true, timeout: 3s, limits: {{body: 20MB}}}}
routes:
  GET /plain: {{call: plain}}
  POST /collected: {{call: {name}.asked, limits: {{body: 900KB}}}}
  POST /deaf: {{call: deaf}}
  GET /large: {{call: origin}}
"""


class Group:
    """A control group with a limit of memory, of either version."""

    def __init__(self) -> None:
        self._v1 = Path("/sys/fs/cgroup/memory")
        root = self._v1 if self._v1.is_dir() else Path("/sys/fs/cgroup")
        self.folder = root / f"castlegate-{os.getpid()}-{uuid4().hex[:6]}"
        self.folder.mkdir()
        self._write(("memory.limit_in_bytes" if self._v1.is_dir() else "memory.max"), LIMIT)

    def killed(self) -> int:
        """How many processes the kernel killed in it."""
        text = (self.folder / ("memory.oom_control" if self._v1.is_dir() else "memory.events")).read_text()
        return sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("oom_kill "))

    def remove(self) -> None:
        """When all in it have ended."""
        self.folder.rmdir()

    def _write(self, name: str, value: int) -> None:
        (self.folder / name).write_text(str(value))


class Limited(Attacked):
    """A gateway in a group."""

    group: Group

    @classmethod
    def command(cls, path: Path) -> list[str | Path]:
        """Goes into the group first."""
        enter = f'echo $$ > {cls.group.folder}/cgroup.procs && exec "$@"'
        return ["sh", "-c", enter, "sh", *super().command(path)]


@pytest.fixture
def group() -> Iterator[Group]:
    try:
        group = Group()
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error}")
    yield group
    group.remove()


def endless(connection: socket.socket, _request: bytes) -> bool:
    """20 MB, as fast as they are taken."""
    connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 20000000\r\n\r\n")
    for _ in range(200):
        connection.sendall(b"y" * 100_000)
    return True


def flood(clients: list[socket.socket], pieces: list[bytes]) -> list[bytes]:
    """Send to all of them what they take, and read of each no more than the status that it is answered."""
    left = dict(zip(clients, map(memoryview, pieces), strict=True))
    answers: dict[socket.socket, bytes] = {}
    watched = select.poll()
    by_number = {client.fileno(): client for client in clients}
    for number in by_number:
        watched.register(number, select.POLLIN | select.POLLOUT)
    end = time.monotonic() + 12
    while by_number and time.monotonic() < end:
        for number, events in watched.poll(100):
            client = by_number[number]
            try:
                if events & ~select.POLLOUT:
                    answers[client] = client.recv(12)
                    watched.unregister(number)
                    del by_number[number]
                elif left[client]:
                    left[client] = left[client][client.send(left[client][:65536]) :]
                else:
                    watched.modify(number, select.POLLIN)
            except OSError:
                watched.unregister(number)
                del by_number[number]
    return [answers.get(client, b"") for client in clients]


def test_p6_bodies_beyond_memory_are_shed_and_nobody_is_killed(
    embedded_broker: EmbeddedBroker, group: Group, tmp_path: Path
) -> None:
    name = f"s{uuid4().hex[:8]}"
    create_topics(embedded_broker.bootstrap, {f"{name}.asked": 1})
    Limited.group = group
    with Origin() as plain, Origin(endless) as origin, socket.create_server(("127.0.0.1", 0)) as deaf:
        config = CONFIG.format(
            bootstrap=embedded_broker.bootstrap,
            name=name,
            plain=plain.port,
            port=origin.port,
            deaf=deaf.getsockname()[1],
        )
        gateway = Limited(tmp_path, config)
        try:
            kinds = [
                (b"POST /collected HTTP/1.1\r\nHost: h\r\nContent-Length: 800000\r\n\r\n" + b"x" * 800_000, 300),
                (b"POST /deaf HTTP/1.1\r\nHost: h\r\nContent-Length: 19000000\r\n\r\n" + b"x" * 2_000_000, 150),
                (b"GET /large HTTP/1.1\r\nHost: h\r\n\r\n", 150),
            ]
            pieces = [piece for piece, count in kinds for _ in range(count)]
            with contextlib.ExitStack() as stack:
                clients = [stack.enter_context(_connected(gateway.port)) for _ in pieces]
                answers = flood(clients, pieces)
                assert gateway.metrics()["castlegate_connections"] > 0  # the admin port answers
            shed = sum(answer == b"HTTP/1.1 503" for answer in answers[:300])
            assert shed > 50
            assert group.killed() == 0
            origin.hang_up()
            gateway.program.wait_until(lambda: gateway.metrics()["castlegate_connections"] == 0, "their end", 15)
            with Client(gateway.port) as client:  # what was taken of the budget was given back
                client.send(b"GET /plain HTTP/1.1\r\nHost: h\r\n\r\n")
                assert client.read_answer()[0] == 200
                assert client.send(kinds[0][0]).read_answer()[0] == 504  # nobody answers on that topic
            gateway.check()
        finally:
            gateway.program.kill()


def _connected(port: int) -> socket.socket:
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    client.connect(("127.0.0.1", port))
    client.setblocking(False)
    return client
