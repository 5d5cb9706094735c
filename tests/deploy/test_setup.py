"""What scripts/setup says to somebody whose machine it cannot set up."""

import os
import subprocess
from pathlib import Path

import pytest
from tests.testbeds.cache import REPO


@pytest.mark.parametrize("version", ["3.10.2", "3.15.0", None])
def test_a_python_that_was_chosen_and_does_not_suit_is_refused_before_anything_is_made(
    tmp_path: Path, version: str | None
) -> None:
    python = tmp_path / "python"
    if version is not None:
        # Runs what it is given as a Python of that version would.
        as_if = f"import sys; sys.version_info = ({version.replace('.', ', ')}); exec(sys.argv[1])"
        python.write_text(f'#!/bin/sh\nexec python3 -c "{as_if}" "$2"\n')
        python.chmod(0o755)
    (tmp_path / "repo" / "scripts").mkdir(parents=True)
    (tmp_path / "repo" / "scripts" / "setup").write_bytes((REPO / "scripts" / "setup").read_bytes())
    done = subprocess.run(
        ["bash", tmp_path / "repo" / "scripts" / "setup"],
        env={**os.environ, "PYTHON": str(python)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 1
    assert f"PYTHON={python}" in done.stderr
    assert "sudo apt-get install python3 python3-venv" in done.stderr
    assert sorted(path.name for path in (tmp_path / "repo").iterdir()) == ["scripts"]
