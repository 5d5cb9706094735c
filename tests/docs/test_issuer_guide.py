"""The examples of docs/guides/issuer.md are configurations without mistakes."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from castlegate.document import load

GUIDE = (Path(__file__).parents[2] / "docs" / "guides" / "issuer.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```yaml\n(.*?)```", GUIDE, re.DOTALL)


def test_there_are_examples() -> None:
    assert len(EXAMPLES) == 2


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_has_no_mistakes_with_the_key_that_the_guide_makes(tmp_path: Path, example: str) -> None:
    [commands] = re.findall(r"```sh\n(.*?)```", GUIDE, re.DOTALL)
    for command in commands.split("&&"):
        subprocess.run(shlex.split(command), cwd=tmp_path, check=True, capture_output=True)
    path = tmp_path / "gateway.yaml"
    path.write_text(example)
    loaded = load(path, {})
    assert not loaded.report.warnings
    assert loaded.document.issuer is not None
