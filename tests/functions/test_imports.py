"""What modules of functions do when they are imported, and what that keeps from those who look at them."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from castlegate.python import examining
from castlegate.python.examining import Question, examine
from castlegate.python.reference import Reference

CONFIG = 'routes: {GET /: {call: "python:module:function", public: true}}'
QUESTION = Question(Reference("module", "function"), "call")
FUNCTION = "async def function() -> int: return 1\n"
PRINTS = "print('{hello')\n"
THREAD = "import threading, time\nthreading.Thread(target=time.sleep, args=(300,)).start()\n"
ENDLESS = "while True: pass\n"


def castlegate(folder: Path, source: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    (folder / "module.py").write_text(source)
    (folder / "gateway.yaml").write_text(CONFIG)
    command = [sys.executable, "-m", "castlegate.cli.main", arguments[0], "gateway.yaml", *arguments[1:]]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)


def test_what_a_module_prints_is_no_part_of_an_answer(tmp_path: Path) -> None:
    said = castlegate(tmp_path, PRINTS + FUNCTION, "explain", "GET", "/", "--json")
    assert json.loads(said.stdout)["route"] == "GET /"
    assert (said.returncode, said.stderr) == (0, "{hello\n")


def test_a_module_that_closes_its_output_closes_nothing_of_others(tmp_path: Path) -> None:
    (tmp_path / "prints.py").write_text(PRINTS + FUNCTION)
    (tmp_path / "closes.py").write_text("import sys\nsys.stdout.close()\n" + FUNCTION)
    command = (
        "from pathlib import Path; from castlegate.python.importing import Modules, Reference; import sys; "
        "modules = Modules(Path()); [modules.function(Reference(each, 'function')) for each in ('closes', 'prints')]; "
        "print('out'); print('err', file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", command], cwd=tmp_path, capture_output=True, timeout=60, check=True)
    assert (done.stdout, done.stderr) == (b"out\n", b"{hello\nerr\n")


@pytest.mark.parametrize(("path", "status"), [("/", 0), ("/none", 1)])
def test_threads_of_a_module_hold_up_no_answer(tmp_path: Path, path: str, status: int) -> None:
    said = castlegate(tmp_path, THREAD + FUNCTION, "explain", "GET", path)
    assert said.returncode == status
    assert said.stdout.startswith(f"GET {path}\n")
    assert castlegate(tmp_path, THREAD + FUNCTION, "check").returncode == 0


def test_programs_of_a_module_hold_up_no_answer(tmp_path: Path) -> None:
    starts = (
        "import subprocess\nstarted = subprocess.Popen(['sleep', '300'])\nopen('pid', 'w').write(str(started.pid))\n"
    )
    said = castlegate(tmp_path, starts + FUNCTION, "check")
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
    assert (said.returncode, said.stderr) == (0, "")


def test_a_module_that_ends_the_interpreter_is_a_mistake(tmp_path: Path) -> None:
    said = castlegate(tmp_path, "import os\nos.write(2, b'first\\nlast words\\n')\nos._exit(3)\n", "check")
    assert said.returncode == 2
    assert "ended the interpreter with status 3: last words\n" in said.stderr


def test_a_module_that_never_ends_is_a_mistake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examining, "_LONGEST", 0.5)
    (tmp_path / "module.py").write_text(ENDLESS)
    (finding,) = examine([QUESTION], tmp_path)
    assert "takes longer than 0.5 s" in finding.mistake


def test_who_looks_at_modules_ends_although_nobody_ends_it(tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text(ENDLESS)
    asked = {"folder": str(tmp_path), "longest": 0.5, "questions": [QUESTION]}
    command = [sys.executable, "-m", "castlegate.python.examining"]
    ended = subprocess.run(command, input=msgspec.json.encode(asked), capture_output=True, timeout=60, check=False)
    assert ended.returncode == -signal.SIGALRM
