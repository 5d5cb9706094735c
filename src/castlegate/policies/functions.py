"""Policies that are functions in Python: see `castlegate.python.deciding`."""

from __future__ import annotations

import logging
from typing import NamedTuple

from castlegate.errors import CallFailed
from castlegate.expressions.program import Undecided
from castlegate.message import Request
from castlegate.python.deciding import Decision
from castlegate.python.running import Runner
from castlegate.telemetry.stumbles import Stumbles

DEFAULT_TIMEOUT = 1.0  # seconds

logger = logging.getLogger("castlegate.python")


class FunctionRule(NamedTuple):
    """One of them, ready to be asked."""

    reference: str
    decision: Decision
    runner: Runner
    timeout: float
    stumbles: Stumbles

    async def holds(self, request: Request) -> bool:
        """Whether it allows the request. Raises `Undecided` where it fails; `RequestRefused`."""
        decision, runner = self.decision, self.runner
        given = decision.arguments(request)
        until = min(runner.timer.now() + self.timeout, request.deadline)
        try:
            allowed = await runner.run(decision.function, given, until, asynchronous=decision.asynchronous)
            if not isinstance(allowed, bool):
                raise TypeError(f"it returned {type(allowed).__name__}, not bool")
        except CallFailed as failed:
            raise Undecided(failed.detail) from failed
        except Exception as error:
            self.stumbles.tell(error)
            raise Undecided("it failed") from error
        return allowed


def function_rule(reference: str, decision: Decision, runner: Runner, timeout: float | None) -> FunctionRule:
    """Of a policy."""
    stumbles = Stumbles(logger, f"the policy {reference}")
    return FunctionRule(reference, decision, runner, timeout or DEFAULT_TIMEOUT, stumbles)
