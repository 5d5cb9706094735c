"""Configurations that the guides show can be loaded as they stand."""

import re
from pathlib import Path

import pytest

from castlegate.document import load

GUIDES = Path(__file__).resolve().parents[2] / "docs" / "guides"
NAMES = ["authorization.md", "browsers.md", "kafka-services.md", "limits.md", "protect.md", "resilience.md"]
SNIPPETS = [
    pytest.param(text, id=f"{name}-{number}")
    for name in NAMES
    for number, text in enumerate(
        re.findall(r"^```yaml\n(.*?)^```$", (GUIDES / name).read_text(), re.DOTALL | re.MULTILINE)
    )
]


def test_there_are_snippets() -> None:
    assert len(SNIPPETS) >= 6


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_a_snippet_is_a_configuration(snippet: str, tmp_path: Path) -> None:
    path = tmp_path / "gateway.yaml"
    path.write_text(snippet)
    (tmp_path / "partners.keys").touch()  # which the guide has the reader make
    secrets = {"IDP_SECRET": "correct-horse-battery", "STICKY_SECRET": "0123456789-0123456789"}
    assert load(path, secrets).document.routes
