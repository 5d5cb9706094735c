"""What `castlegate doctor` prints: each finding as soon as it is made, and a sign of life in between."""

from __future__ import annotations

import logging
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.status import Status

from castlegate.doctor.findings import Finding, Verdict

_SIGNS: dict[Verdict, str] = {
    "well": "[green]well[/]   ",
    "note": "[yellow]note[/]   ",
    "wrong": "[bold red]WRONG[/]  ",
    "skipped": "[dim]skipped[/]",
}


class Progress:
    """On standard output; `quiet`: nothing."""

    def __init__(self, *, quiet: bool) -> None:
        self._console = Console(quiet=quiet, soft_wrap=True, highlight=False)
        self._status: Status | None = None
        self._counts = dict.fromkeys(_SIGNS, 0)
        self._kafka_log = logging.getLogger("castlegate.kafka")

    def __enter__(self) -> Self:
        self._kafka_log.setLevel(logging.CRITICAL)  # librdkafka's words are in the findings
        if self._console.is_terminal:
            self._status = self._console.status("reaching everything that the configuration names")
            self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._kafka_log.setLevel(logging.NOTSET)
        if self._status is not None:
            self._status.stop()
        if error is None:
            wrong = self._counts["wrong"]
            said = "all is well" if not wrong else f"{wrong} thing{'s are' if wrong > 1 else ' is'} wrong"
            self._console.print(f"\n{said}, {sum(self._counts.values())} checks")

    def tell(self, finding: Finding) -> None:
        """One more."""
        self._counts[finding.verdict] += 1
        self._console.print(f"{_SIGNS[finding.verdict]}  {escape(f'{finding.check}: {finding.says}')}")
        if finding.advice:
            self._console.print(f"{' ' * 9}{escape(f'-> {finding.advice}')}")
