"""Files of schemas that cannot be had are mistakes in the configuration like any other."""

from pathlib import Path

import pytest

from castlegate.config.report import ConfigError
from castlegate.document import load

CONFIG = """
services: {users: {http: [http://users]}}
routes:
  POST /users: {call: users, public: true, validate: {body: "%s"}}
"""


@pytest.mark.parametrize(
    ("name", "reason"),
    [("a\\0b", "'a\\x00b' cannot be read: embedded null byte"), ("nested.json", "'nested.json' is nested too deeply")],
)
def test_it_is_reported_where_it_is_named(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "nested.json").write_text("[" * 100_000)
    config = tmp_path / "gateway.yaml"
    config.write_text(CONFIG % name)
    with pytest.raises(ConfigError) as raised:
        load(config, {})
    assert str(raised.value) == f"{config}:4:61: 'validate.body' of route 'POST /users': the file {reason}"
