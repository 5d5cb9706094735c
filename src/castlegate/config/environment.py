"""`${NAME}`, `${NAME:-default}` and `${file:/path}` in the values of a document; `$${` stands for a plain `${`.

What was put in is remembered only so that it is never printed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

_MARK = re.compile(r"\$\$\{|\$\{([^{}]*)(\}?)")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LARGEST_FILE = 64 * 1024  # characters of a secret; a certificate chain has a few thousand


class Substituted(NamedTuple):
    """A scalar whose marks were replaced."""

    text: str
    template: str  # the same, with braces of what was put in doubled: they are no references
    values: dict[str, str]  # value → the mark it replaced
    mistakes: list[str]


class Environment:
    """Where values come from: variables, and files beside the document."""

    def __init__(self, variables: Mapping[str, str], folder: Path) -> None:
        self._variables = variables
        self._folder = folder

    def substitute(self, text: str) -> Substituted:
        """Replace every mark in `text`, which holds at least one `${`."""
        plain, template = "", ""
        values: dict[str, str] = {}
        mistakes: list[str] = []
        end = 0
        for mark in _MARK.finditer(text):
            before = text[end : mark.start()]
            end = mark.end()
            plain, template = plain + before, template + before
            if mark[0] == "$${":
                plain, template = plain + "${", template + "${"
                continue
            try:
                value = self._value(mark)
            except ValueError as error:
                mistakes.append(str(error))
                continue
            values[value] = mark[0]
            plain += value
            template += value.replace("{", "{{").replace("}", "}}")
        return Substituted(plain + text[end:], template + text[end:], values, mistakes)

    def _value(self, mark: re.Match[str]) -> str:
        inner = mark[1]
        if not mark[2]:
            raise ValueError(f"'{mark[0][:40]}' is not closed; a default holds no braces, a plain ${{ is written $${{")
        if inner.startswith("file:"):
            return self._content(inner.removeprefix("file:"))
        name, has_default, default = inner.partition(":-")
        if not _NAME.fullmatch(name):
            raise ValueError(f"'{mark[0]}' names no variable; write ${{NAME}}, ${{NAME:-default}} or ${{file:/path}}")
        value = self._variables.get(name, "")
        if value or (name in self._variables and not has_default):
            return value
        if not has_default:
            raise ValueError(f"the environment variable '{name}' is not set; set it or write ${{{name}:-default}}")
        return default

    def _content(self, name: str) -> str:
        if not name:
            raise ValueError("'${file:}' names no file; write ${file:/path}")
        path = self._folder / name
        try:
            with path.open(encoding="utf-8") as file:
                content = file.read(_LARGEST_FILE + 1)
        except OSError as error:
            raise ValueError(f"the file '{path}' cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise ValueError(f"the file '{path}' is not text in UTF-8") from error
        if len(content) > _LARGEST_FILE:
            raise ValueError(f"the file '{path}' is longer than {_LARGEST_FILE} characters")
        return content.removesuffix("\n").removesuffix("\r")
