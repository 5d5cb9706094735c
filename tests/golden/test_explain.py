"""What operators read of a request: each `explain/NAME.txt` begins with the command and holds what it says.

`GOLDEN=write pytest tests/golden` writes the answers anew; read the difference before you commit it.
"""

import json
import os
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from castlegate.cli.main import main

CASES = sorted((Path(__file__).parent / "explain").glob("*.txt"))
SECRET = "hunter2-hunter2"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_a_request_is_explained_in_the_words_of_the_golden_file(case: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(case.parent)
    monkeypatch.setenv("SECRET", SECRET)
    command, _, expected = case.read_text(encoding="utf-8").partition("\n")
    program, *arguments = shlex.split(command.removeprefix("$ "))
    assert program == "castlegate"
    said = CliRunner().invoke(main, arguments)
    output = f"{said.output}exit status {said.exit_code}\n"
    assert said.exception is None or isinstance(said.exception, SystemExit)
    assert SECRET not in output
    if os.environ.get("GOLDEN") == "write":
        case.write_text(f"{command}\n{output}", encoding="utf-8")
        expected = output
    assert output == expected
    if "--json" in arguments:
        json.loads(said.stdout)
