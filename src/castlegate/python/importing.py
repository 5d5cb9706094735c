"""Imports the modules that hold users' functions: from beside the configuration file, or installed ones.

What Python finds elsewhere goes first, so that no file there can take the place of a library. A module beside the
configuration is imported once by a process, and anew, with all others there, when the source of one of them has
changed since: a configuration that is loaded again gets the new code, one that is served keeps the old.
"""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from castlegate.config.files import Signature, signature
from castlegate.config.report import suggest
from castlegate.python.hints import Unusable
from castlegate.python.reference import Reference

_OURS = "castlegate"


class Modules:
    """Those of one folder in this process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        self._read: dict[str, tuple[Path, Signature]] = {}  # by module: its source, and how it looked

    def refresh(self) -> None:
        """Forget all of them if a source has changed; whoever has their functions keeps these."""
        if all(signature([source]) == seen for source, seen in self._read.values()):
            return
        for name in self._read:
            sys.modules.pop(name, None)
        self._read.clear()

    def function(self, reference: Reference) -> Callable[..., Any]:
        """Raises `Unusable`."""
        if str(self._folder) not in sys.path:
            sys.path.append(str(self._folder))
        importlib.invalidate_caches()
        before, writes = set(sys.modules), sys.dont_write_bytecode
        sys.dont_write_bytecode = True  # a source of the same second and size would be taken for what was compiled
        try:
            # Standard output is the program's, which says something there; standard error they cannot close like this.
            with redirect_stdout(open(2, "w", buffering=1, encoding="utf-8", closefd=False)):
                module = importlib.import_module(reference.module)
        except (Exception, SystemExit) as error:  # whatever a module raises when it runs
            raise Unusable(self._why(reference, error)) from error
        finally:
            sys.dont_write_bytecode = writes
            self._note(set(sys.modules) - before)
        function = getattr(module, reference.function, None)
        if function is None:
            known = [name for name, each in vars(module).items() if callable(each) and not name.startswith("_")]
            hint = suggest(reference.function, known)
            where = self._shown(getattr(module, "__file__", None))
            raise Unusable(f"the module '{reference.module}' ({where}) has no function '{reference.function}'{hint}")
        found: Callable[..., Any] = function
        return found

    def _note(self, names: set[str]) -> None:
        for name in names:
            file = getattr(sys.modules.get(name), "__file__", None)
            if file is None or name.partition(".")[0] == _OURS:
                continue
            source = Path(file).resolve()
            if source.is_relative_to(self._folder) and "site-packages" not in source.parts:
                self._read[name] = source, signature([source])

    def _shown(self, file: str | None) -> str:
        if file is None:
            return "built in"
        source = Path(file).resolve()
        return str(source.relative_to(self._folder)) if source.is_relative_to(self._folder) else file

    def _why(self, reference: Reference, error: BaseException) -> str:
        if isinstance(error, ModuleNotFoundError) and f"{reference.module}.".startswith(f"{error.name}."):
            return f"there is no module '{error.name}' beside the configuration file, nor is one installed"
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename]
        where = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if len(frames) > 1 else ""
        if isinstance(error, SyntaxError):
            where = f" ({Path(error.filename or '').name}, line {error.lineno})"
            return f"the module '{reference.module}' cannot be imported: {error.msg}{where}"
        return f"the module '{reference.module}' cannot be imported: {type(error).__name__}: {error}{where}"


_MODULES: dict[Path, Modules] = {}


def modules_of(folder: Path) -> Modules:
    """The same for one folder, however often it is asked for."""
    folder = folder.resolve()
    found = _MODULES.get(folder)
    if found is None:
        found = _MODULES[folder] = Modules(folder)
    return found
