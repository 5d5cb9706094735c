"""The broker as a program: what it says, how it ends."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from tests.broker.raw import RawClient
from tests.testbeds.cache import REPO
from tests.testbeds.processes import Program, free_port

from castlegate_broker.apis_groups import FIND_COORDINATOR

_COMMAND = [sys.executable, "-m", "castlegate_broker"]
_ENV = {"PYTHONPATH": str(REPO / "src")}


@contextmanager
def _broker(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [*_COMMAND, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **_ENV},
    )
    with process:
        yield process
        process.kill()


def _first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().removeprefix("listening on ").strip()


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_it_says_where_it_listens_and_what_it_is_and_ends_with_0(signum: signal.Signals) -> None:
    with _broker("--listen", "127.0.0.1:0") as process:
        with RawClient(_first_line(process)) as client:
            client.create("topic")
            process.send_signal(signum)
            assert client.closed()
        output, errors = process.communicate(timeout=10)
    assert (process.returncode, output) == (0, "")
    assert "for development and tests only. It keeps nothing" in errors
    assert "Traceback" not in errors


def test_a_port_that_is_taken_is_told() -> None:
    with _broker("--listen", "127.0.0.1:0") as first:
        address = _first_line(first)
        with _broker("--listen", address) as second:
            _, errors = second.communicate(timeout=10)
    assert second.returncode == 1
    assert f"can't listen on {address}" in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize("address", ["9092", ":9092", "localhost:port", "localhost:70000"])
def test_what_is_no_address_is_told(address: str) -> None:
    with _broker("--listen", address) as process:
        _, errors = process.communicate(timeout=10)
    assert process.returncode == 2
    assert "is not HOST:PORT" in errors


def test_it_ends_with_its_parent() -> None:
    port = free_port()
    command = [*_COMMAND, "--exit-with-parent", "--listen", f"127.0.0.1:{port}"]
    parent = f"import subprocess; subprocess.Popen({command!r}).wait()"
    with Program([sys.executable, "-c", parent], env=_ENV) as program:
        program.wait_for_line("listening on")
        with RawClient(f"127.0.0.1:{port}") as client:
            program.send_signal(signal.SIGKILL)
            assert client.closed()


def test_topics_are_not_made_on_the_way_if_it_is_told_so() -> None:
    with _broker("--listen", "127.0.0.1:0", "--no-auto-create") as process:
        with RawClient(_first_line(process)) as client, pytest.raises(AssertionError):
            client.create("topic")
        process.terminate()
        process.communicate(timeout=10)


def test_it_tells_the_address_that_it_is_to_advertise() -> None:
    with _broker("--listen", "127.0.0.1:0", "--advertise", "kafka.test:29092") as process:
        with RawClient(_first_line(process)) as client:
            answer = client.ask(FIND_COORDINATOR, 1, {"key": "group", "key_type": 0})
        process.terminate()
        process.communicate(timeout=10)
    assert (answer["host"], answer["port"]) == ("kafka.test", 29092)
