"""What operators read when a configuration is wrong: `config/NAME.yaml` is answered with `config/NAME.txt`; and of one
that is most likely not meant, `warnings/NAME.yaml`, with `warnings/NAME.txt`.

`GOLDEN=write pytest tests/golden` writes the answers anew; read the difference before you commit it.
"""

import os
from pathlib import Path

import pytest

from castlegate.config.report import ConfigError
from castlegate.document import load

CASES = sorted((Path(__file__).parent / "config").glob("*.yaml"))
DOUBTFUL = sorted((Path(__file__).parent / "warnings").glob("*.yaml"))
SECRET = "hunter2-hunter2"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_every_mistake_is_reported_in_the_words_of_the_golden_file(case: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(case.parent)
    with pytest.raises(ConfigError) as raised:
        load(case.name, {"SECRET": SECRET})
    _compare(case, f"{raised.value}\n")


@pytest.mark.parametrize("case", DOUBTFUL, ids=lambda case: case.stem)
def test_a_warning_has_the_words_of_the_golden_file(case: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(case.parent)
    loaded = load(case.name, {"SECRET": SECRET})
    _compare(case, "".join(f"{warning}\n" for warning in loaded.report.warnings))


def _compare(case: Path, said: str) -> None:
    assert SECRET not in said
    expected = case.with_suffix(".txt")
    if os.environ.get("GOLDEN") == "write":
        expected.write_text(said, encoding="utf-8")
    assert said == expected.read_text(encoding="utf-8")
