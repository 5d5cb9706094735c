"""Looks at functions in a program of its own, as it is for `castlegate check`: whatever their modules do when they are
imported, it neither ends nor slows whoever asks, and code is read anew each time.

    python -m castlegate.python.examining    is asked on its standard input, and answers on its standard output
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from subprocess import PIPE
from tempfile import TemporaryFile
from typing import Literal

import msgspec

from castlegate.python.deciding import read_decision
from castlegate.python.hints import Unusable, read_signature
from castlegate.python.importing import Modules
from castlegate.python.reference import Reference

_LONGEST = 30.0  # seconds for all of them
_TOLD = 4096  # bytes at the end of what it said in which the reason is looked for


class Question(msgspec.Struct, frozen=True):
    """Whether a function can be used."""

    reference: Reference
    use: Literal["call", "policy"]
    params: list[str] = []
    """Placeholders of the route's path."""


class Finding(msgspec.Struct, frozen=True):
    """What was found of it."""

    mistake: str = ""
    services: list[str] = []
    """What it calls, by its hints."""
    needs_principal: bool = False
    """Whether nobody may call it."""


class _Asked(msgspec.Struct):
    folder: str
    longest: float
    questions: list[Question]


def examine(questions: Sequence[Question], folder: Path) -> list[Finding]:
    """In their order."""
    asked = msgspec.json.encode(_Asked(str(folder.resolve()), _LONGEST, list(questions)))
    command = [sys.executable, "-m", "castlegate.python.examining"]
    with TemporaryFile() as said:  # no pipe: programs that a module has started would hold it open
        try:
            done = subprocess.run(command, input=asked, stdout=PIPE, stderr=said, timeout=_LONGEST, check=False)  # noqa: S603
            return msgspec.json.decode(done.stdout, type=list[Finding])
        except subprocess.TimeoutExpired:
            why = f"importing it, or another function of this configuration, takes longer than {_LONGEST:g} s"
        except msgspec.DecodeError:
            said.seek(-min(said.tell(), _TOLD), os.SEEK_END)
            last = said.read().decode("utf-8", "replace").strip().rpartition("\n")[2]
            why = f"importing it, or another function, ended the interpreter with status {done.returncode}: {last}"
    return [Finding(mistake=why), *[Finding()] * (len(questions) - 1)]


def _examine(question: Question, modules: Modules) -> Finding:
    try:
        function = modules.function(question.reference)
        if question.use == "policy":
            return Finding(needs_principal=read_decision(function).needs_principal)
        signature = read_signature(function, question.params)
    except Unusable as unusable:
        return Finding(mistake=str(unusable))
    return Finding(
        services=sorted(set(signature.services.values())), needs_principal=not all(signature.principals.values())
    )


def _main() -> None:
    # What modules print when they are imported is no part of the answer.
    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    asked = msgspec.json.decode(sys.stdin.buffer.read(), type=_Asked)
    signal.setitimer(signal.ITIMER_REAL, asked.longest)  # ends it, also when nobody is left who would
    modules = Modules(Path(asked.folder))
    found = [_examine(question, modules) for question in asked.questions]
    answer.write(msgspec.json.encode(found))
    answer.flush()
    os._exit(0)  # threads that a module has started hold up nobody


if __name__ == "__main__":
    _main()
