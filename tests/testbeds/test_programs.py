"""The test beds' own parts: programs are listened to and surely ended; what a test leaves behind is seen."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from tests.testbeds.kafka import Unprepared
from tests.testbeds.leftovers import Holdings, left_in_loop_since, left_since
from tests.testbeds.node import MINIMUM, find_node
from tests.testbeds.processes import Program, ProgramFailed, free_port


def _python(code: str, log: Path | None = None) -> Program:
    return Program([sys.executable, "-c", code], name="snake", log=log)


def test_a_line_is_waited_for_and_output_kept(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with _python("print('one'); print('port 42'); import time; time.sleep(60)", log) as program:
        assert program.wait_for_line(r"port (\d+)")[1] == "42"
        assert program.lines == ["one", "port 42"]
    assert log.read_text() == "one\nport 42\n"
    assert program.returncode == -signal.SIGTERM


def test_lines_said_before_can_be_left_out() -> None:
    with _python("print('go'); import signal; signal.pause()") as program:
        program.wait_for_line("go")
        with pytest.raises(ProgramFailed):
            program.wait_for_line("go", timeout_s=0.1, after=program.line_count)


def test_an_early_end_fails_at_once_and_shows_the_output() -> None:
    program = _python("print('cannot'); raise SystemExit(3)")
    with program, pytest.raises(ProgramFailed, match=r"ended with 3(?s:.*)cannot"):
        program.wait_for_line("ready", timeout_s=60)


def test_a_port_is_waited_for() -> None:
    port = free_port()
    server = f"import socket, time; s = socket.create_server(('127.0.0.1', {port})); time.sleep(60)"
    with _python(server) as program:
        program.wait_for_port(port)


def test_what_a_program_started_ends_with_it() -> None:
    child = "import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', 'input()'], stdin=subprocess.PIPE); "
    with _python(child + "print(p.pid, flush=True); p.wait()") as program:
        pid = int(program.wait_for_line(r"^(\d+)$")[1])
    with pytest.raises(ProcessLookupError):
        _until_gone(pid)


def _until_gone(pid: int) -> None:
    """Orphans are reaped by the system's first process, in its own time."""
    for _ in range(500):
        os.kill(pid, 0)
        if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            raise ProcessLookupError
        signal.sigtimedwait([], 0.01)


def test_a_frozen_program_ends_too() -> None:
    with _python("print('go'); import time; time.sleep(60)") as program:
        program.wait_for_line("go")
        program.freeze()
    assert program.returncode == -signal.SIGTERM


def test_an_open_socket_is_a_leftover() -> None:
    before = Holdings.now()
    with socket.socket() as left:
        assert left_since(before, grace_s=0) == [f"descriptor {left.fileno()}: {_name(left)}"]
    assert left_since(before) == []


def _name(opened: socket.socket) -> str:
    return os.readlink(f"/proc/self/fd/{opened.fileno()}")


def test_a_child_process_is_a_leftover() -> None:
    before = Holdings.now()
    with subprocess.Popen(["sleep", "60"]) as child:
        assert [line.split(":")[0] for line in left_since(before, grace_s=0)] == [f"child process {child.pid}"]
        child.kill()
    assert left_since(before) == []


async def test_a_task_is_a_leftover() -> None:
    before = Holdings.now()
    task = asyncio.create_task(asyncio.sleep(60))
    [left] = await left_in_loop_since(before)
    assert left.startswith("task <Task pending")
    task.cancel()
    assert await left_in_loop_since(before) == []


def test_the_node_beside_python_goes_before_an_old_one_of_the_system(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = find_node()
    old, beside = tmp_path / "old", tmp_path / "beside"
    for folder in (old, beside):
        folder.mkdir()
        (folder / "npm").symlink_to(found.npm)
    (old / "node").write_text("#!/bin/sh\necho v18.20.4\n")
    (old / "node").chmod(0o755)
    monkeypatch.setattr("sys.executable", str(beside / "python"))
    monkeypatch.setenv("PATH", str(old))
    with pytest.raises(Unprepared, match=f"Node.js {MINIMUM} or later"):
        find_node()
    (beside / "node").symlink_to(found.node)
    assert (find_node().node, find_node().major) == (beside / "node", found.major)
