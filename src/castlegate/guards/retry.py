"""One more try of a call that failed before anything of an answer came.

A call that was never sent goes to another instance, whatever its method, until each has been tried. One that was sent,
and whose connection was closed without a byte of an answer, is sent once more if it is idempotent and can be repeated:
most often the instance closed an idle connection as we wrote to it (RFC 9112 §9.3.1).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from castlegate.errors import CallFailed, Kinds, Outcome
from castlegate.message import Call, Caller, Reply
from castlegate.rules.instances import Instances
from castlegate.sketch import Description, Sketch
from castlegate.telemetry.metrics import Registry

_NOT_REACHED = (Kinds.CONNECT, Kinds.CONNECT_TIMEOUT, Kinds.CERTIFICATE, Kinds.TLS)


class Retry:
    """Of one service."""

    def __init__(self, service: str, instances: Instances[Any], now: Callable[[], float], registry: Registry) -> None:
        self._instances = instances
        self._now = now
        retries = registry.counter(
            "castlegate_upstream_retries_total", "Calls sent once more, by cause.", "service", "reason"
        )
        self._connect_retries = retries.child(service, "connect")
        self._answer_retries = retries.child(service, "no_answer")

    def describe(self, sketch: Sketch) -> Description:
        """When it tries again."""
        call = sketch.sent
        most = len(self._instances.members)
        others = f"goes to another instance, at most {most} in all"
        says = {"not sent": others if most > 1 else "there is no other instance to go to"}
        if _repeatable(call):
            says["no answer"] = f"sent once more: {call.method.decode()} is idempotent"
        else:
            says["no answer"] = "not repeated: " + (
                "the body streams" if call.idempotent else f"{call.method.decode()} is not idempotent"
            )
        return Description(role="guard", name="retry", says=says)

    def wrap(self, inner: Caller) -> Caller:
        """The caller with this guard around it."""

        async def call_again(call: Call, failed: CallFailed) -> Reply:
            was_sent = False
            while True:
                if self._now() >= call.request.deadline:
                    break
                if failed.kind in _NOT_REACHED and failed.outcome is Outcome.NOT_SENT:
                    if not self._instances.untried(call.tried):
                        break
                    self._connect_retries.value += 1
                elif failed.kind is Kinds.NO_ANSWER and not was_sent and _repeatable(call):
                    was_sent = call.fresh = True
                    self._answer_retries.value += 1
                else:
                    break
                try:
                    return await inner(call)
                except CallFailed as again:
                    failed = again
            if was_sent and failed.outcome is Outcome.NOT_SENT:
                # The first try was sent, whatever became of the last.
                raise CallFailed(failed.kind, Outcome.UNKNOWN, failed.detail) from failed
            raise failed

        async def call_with_retry(call: Call) -> Reply:
            try:
                return await inner(call)
            except CallFailed as failed:
                return await call_again(call, failed)

        return call_with_retry


def _repeatable(call: Call) -> bool:
    return call.idempotent and isinstance(call.body, bytes)
