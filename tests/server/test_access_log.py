"""The access log across reloads: whose lines they are, and a reader that stalls."""

import os
import signal
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


@pytest.fixture
def pipe(tmp_path: Path) -> Iterator[Path]:
    """One that is open for reading, and that nobody reads."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    yield path
    os.close(reader)


def config(origin: Origin, log: str, route: str = "/x") -> str:
    return f"""
access_log: {log}
services: {{origin: {{http: ["http://127.0.0.1:{origin.port}"]}}}}
defaults: {{public: true}}
routes: {{"GET {route}": {{call: origin}}}}
"""


class Piped(Gateway):
    """One whose standard output goes into the pipe."""

    @classmethod
    def command(cls, path: Path) -> list[str | Path]:
        return ["sh", "-c", 'out=$1; shift; exec "$@" > "$out"', "sh", path.with_name("pipe"), *super().command(path)]


def reload(gateway: Gateway, text: str) -> None:
    before = gateway.workers()[0]["version"]
    gateway.rewrite(text)
    gateway.program.send_signal(signal.SIGHUP)
    gateway.program.wait_until(lambda: gateway.workers()[0]["version"] == before + 1, "the switch")


@pytest.mark.parametrize("log", ["stdout", "pipe"])
def test_reloads_do_not_collect_threads_behind_a_reader_that_stalls(
    tmp_path: Path, origin: Origin, pipe: Path, log: str
) -> None:
    path = log if log == "stdout" else str(pipe)
    gateway = (Piped if log == "stdout" else Gateway)(tmp_path, config(origin, path))
    long = GET.replace(b"/x", b"/x?" + b"q" * 4000)
    threads = []
    with Client(gateway.port) as client:
        for turn in range(5):
            for _ in range(30):
                assert client.send(long).read_answer()[0] == 200
            reload(gateway, config(origin, path, f"/{turn}"))
            reload(gateway, config(origin, path))
            threads.append(len(os.listdir(f"/proc/{gateway.workers()[0]['pid']}/task")))
    assert max(threads) == threads[0]
    gateway.stop()


def test_a_log_that_cannot_be_opened_anew_is_written_on(tmp_path: Path, origin: Origin) -> None:
    log = tmp_path / "folder" / "access.log"
    log.parent.mkdir()
    gateway = Gateway(tmp_path, config(origin, str(log)))
    gateway.access_log = log
    with Client(gateway.port) as client:
        assert client.send(GET).read_answer()[0] == 200
        gateway.wait_logged(1)
        moved = tmp_path / "moved"
        log.parent.rename(moved)
        gateway.program.send_signal(signal.SIGHUP)
        gateway.program.wait_for_line("cannot be written")
        assert client.send(GET).read_answer()[0] == 200
        gateway.access_log = moved / "access.log"
        gateway.wait_logged(2)
    gateway.stop()
