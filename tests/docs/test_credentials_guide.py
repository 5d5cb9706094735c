"""The examples of docs/guides/credentials.md are configurations without mistakes, and its commands are such."""

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner
from tests.testbeds.certificates import Authority

from castlegate.cli.main import main
from castlegate.document import load
from castlegate.schemes.answers import Accepted
from castlegate.schemes.verdict import read_answer

GUIDE = (Path(__file__).parents[2] / "docs" / "guides" / "credentials.md").read_text(encoding="utf-8")


def test_what_the_guide_shows_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    [commands] = re.findall(r"```sh\n(.*?)```", GUIDE, re.DOTALL)
    new, listing, revoke = [shlex.split(line) for line in commands.splitlines()]
    done = CliRunner().invoke(main, new[1:])
    assert done.exit_code == 0, done.output
    assert CliRunner().invoke(main, listing[1:]).exit_code == 0
    identity = done.stdout.split("_")[1]
    assert CliRunner().invoke(main, [*revoke[1:-1], identity]).exit_code == 0
    authority = Authority(tmp_path, "partners-ca")
    authority.issue("shop.example.com", at="shop")
    authority.file.rename("partners-ca.crt")
    examples = re.findall(r"```yaml\n(.*?)```", GUIDE, re.DOTALL)
    assert len(examples) == 7
    for example in examples:
        Path("gateway.yaml").write_text(example, encoding="utf-8")
        assert load("gateway.yaml", {"INTROSPECTION_SECRET": "s3cret"}).document.auth
    [answer] = re.findall(r"```json\n(.*?)```", GUIDE, re.DOTALL)
    verdict = read_answer(answer.encode(), "team", 0.0)
    assert isinstance(verdict, Accepted)
    assert verdict.keep == 30
