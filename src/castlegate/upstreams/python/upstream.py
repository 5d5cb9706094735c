"""Functions in Python in place of services: a call becomes arguments, what the function returns becomes a `Reply`.

Signature, conversions and services are read when the configuration is loaded. A function may have acted as soon as it
runs, so whatever becomes of it then is no longer `not_sent`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Collection
from typing import Any, NamedTuple

from castlegate.errors import CallFailed, GatewayError, Kinds, Outcome
from castlegate.message import Call, Reply
from castlegate.python.answers import to_reply
from castlegate.python.context import Context, Means
from castlegate.python.hints import Signature, arguments, body_mistakes, read_signature
from castlegate.python.importing import Modules
from castlegate.python.reference import Reference
from castlegate.python.running import Runner
from castlegate.python.threads import NotRun
from castlegate.rules.deadlines import GRAIN
from castlegate.sketch import Description, Sketch
from castlegate.telemetry.metrics import Counter, Family, Histogram, Registry
from castlegate.telemetry.stumbles import Stumbles

logger = logging.getLogger("castlegate.python")


class Measures(NamedTuple):
    """What is counted of a function."""

    calls: Family[Counter]
    seconds: Histogram


class PythonUpstream:
    """The functions of a generation."""

    def __init__(self, modules: Modules, means: Means, runner: Runner, registry: Registry) -> None:
        self._modules = modules
        self._means = means
        self._runner = runner
        self._calls = registry.counter(
            "castlegate_function_calls_total",
            "Calls of functions in Python: answered, refused (the request does not fit), or the kind of failure.",
            "function",
            "result",
        )
        self._seconds = registry.histogram(
            "castlegate_function_seconds", "From calling a function to what it returns.", "function"
        )

    def bind(self, reference: Reference, params: Collection[str]) -> FunctionCaller:
        """The caller of one function, on a route with such placeholders. Raises `Unusable`."""
        signature = read_signature(self._modules.function(reference), params)
        for service in signature.services.values():
            self._means.find(service)  # its topics are looked after from now on
        seconds = self._seconds.child(str(reference))
        return FunctionCaller(reference, signature, self._means, self._runner, Measures(self._calls, seconds))


class FunctionCaller:
    """One function: the `Caller`."""

    def __init__(
        self, reference: Reference, signature: Signature, means: Means, runner: Runner, measures: Measures
    ) -> None:
        self._name = str(reference)
        self.signature = signature
        self._means = means
        self._runner = runner
        self._calls, self._seconds = measures
        self._results: dict[str, Counter] = {}
        self._bodies = body_mistakes(signature)
        self._stumbles = Stumbles(logger, f"the function {reference}")

    def describe(self, sketch: Sketch) -> Description:
        """What it takes, and what it calls."""
        call: Call = sketch.sent
        says: dict[str, Any] = {
            "calls": self._name,
            "runs": "as a task" if self.signature.asynchronous else "in a thread",
        }
        if self.signature.inputs:
            says["takes"] = self.signature.describe()
        if any(each.place == "body" for each in self.signature.inputs) and call.body:
            assert isinstance(call.body, bytes)
            says["body"] = sketch.show(call.body)
        if self.signature.services:
            says["services"] = sorted(set(self.signature.services.values()))
        return Description(role="upstream", name="Python", says=says)

    def __call__(self, call: Call) -> Awaitable[Reply]:
        """Call it. Raises `RequestRefused` where the request does not fit, and `CallFailed`."""
        return self._answer(call)

    async def _answer(self, call: Call) -> Reply:
        timer = self._runner.timer
        begin = timer.now()
        until = call.until(begin)
        if until <= begin:
            raise CallFailed(Kinds.TIMEOUT, Outcome.NOT_SENT, "The time of the request is over.")
        context = Context(call, until, self._means, self._runner.loop)
        try:
            given = arguments(self.signature, call, context, self._bodies)
            call.sent = True
            # A grain after its calls, which time out by themselves then: else nobody would count what hangs.
            result = await self._runner.run(
                self.signature.function, given, until + GRAIN, asynchronous=self.signature.asynchronous
            )
            reply = to_reply(result)
        except NotRun as failed:
            self._count(failed.kind.name)
            raise
        except CallFailed as failed:
            self._count(failed.kind.name)
            if failed.outcome is not Outcome.NOT_SENT:
                raise
            # Of a call that it made; what it did before nobody knows.
            raise CallFailed(
                failed.kind, Outcome.UNKNOWN, failed.detail, status=failed.status, headers=failed.headers
            ) from failed
        except GatewayError:
            self._count("refused")
            raise
        except asyncio.CancelledError:
            self._count(Kinds.CLIENT_GONE.name)
            raise
        except Exception as error:
            self._count(Kinds.FUNCTION_FAILED.name)
            self._stumbles.tell(error)
            raise CallFailed(Kinds.FUNCTION_FAILED, Outcome.ANSWERED) from error
        finally:
            context.close()
        self._count("answered")
        self._seconds.observe(timer.now() - begin)
        return reply

    def _count(self, result: str) -> None:
        counter = self._results.get(result)
        if counter is None:
            counter = self._results[result] = self._calls.child(self._name, result)
        counter.value += 1
