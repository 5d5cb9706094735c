"""The demo as a newcomer meets it."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

from tests.testbeds.processes import Program

from castlegate.cli.demo import SHOP, TRIALS
from castlegate.document import load

_COMMAND = [sys.executable, "-m", "castlegate.cli.main", "demo"]
_BUILD_S = 120.0  # the first time, npm installs what the NestJS service needs


def test_once_shows_every_request_and_says_that_all_went_well() -> None:
    with Program([*_COMMAND, "--once", "--port", "0"], name="demo") as demo:
        assert demo.wait(_BUILD_S) == 0, demo.tail()
        said = "\n".join(demo.lines)
    for trial in TRIALS:
        assert f"{trial.method} {trial.path}" in said


def test_ctrl_c_ends_every_program_of_it() -> None:
    with Program([*_COMMAND, "--port", "0"], name="demo") as demo:
        demo.wait_for_line("Ctrl-C stops everything", _BUILD_S)
        children = _descendants(demo.pid)
        assert len(children) >= 5
        demo.send_signal(signal.SIGINT)
        assert demo.wait() == 0, demo.tail()
    assert [pid for pid in children if Path(f"/proc/{pid}").exists()] == []


def test_a_port_that_is_taken_is_said_and_nothing_is_left_running() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with Program([*_COMMAND, "--once", "--port", port], name="demo") as demo:
            assert demo.wait(_BUILD_S) == 1
            assert f"cannot listen on 127.0.0.1:{port}" in "\n".join(demo.lines)


def test_the_shop_s_configuration_has_no_mistakes(tmp_path: Path) -> None:
    key = tmp_path / "tokens.pem"
    words = (SHOP / "gateway.yaml").read_text().partition("# openssl ")[2].partition("\n")[0].split()
    subprocess.run(["openssl", *words[:-1], key], check=True, capture_output=True)
    assert load(SHOP / "gateway.yaml", {"TOKEN_KEY": str(key)}).document.routes


def _descendants(pid: int) -> list[int]:
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and int(process.name) != os.getpid():
            try:
                parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
            except (FileNotFoundError, ProcessLookupError):
                continue
            if parent == pid:
                found += [int(process.name), *_descendants(int(process.name))]
    return found
