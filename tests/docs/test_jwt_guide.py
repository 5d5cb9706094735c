"""The examples of docs/guides/jwt.md are configurations without mistakes."""

import re
from pathlib import Path

import pytest
from tests.testbeds.tokens import Signer

from castlegate.document import load

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "jwt.md"
EXAMPLES = re.findall(r"```yaml\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)


def test_there_are_examples() -> None:
    assert len(EXAMPLES) == 2


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_has_no_mistakes(tmp_path: Path, example: str) -> None:
    (tmp_path / "billing.pem").write_bytes(Signer("ES256").pem)
    config = tmp_path / "gateway.yaml"
    config.write_text(example)
    loaded = load(config, {"TOKEN_SECRET": "correct-horse-battery-staple-and-more"})
    assert loaded.report.warnings == []
