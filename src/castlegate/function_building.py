"""The functions in Python of one generation: what calls them, and what decides for policies that are functions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from castlegate.body import Budget
from castlegate.config.report import Place
from castlegate.document import Service
from castlegate.functions import unreachable
from castlegate.message import Call, Caller, Reply
from castlegate.policies.functions import FunctionRule, function_rule
from castlegate.policies.named import NamedPolicy
from castlegate.python.context import Link, Means
from castlegate.python.deciding import read_decision
from castlegate.python.hints import Unusable
from castlegate.python.importing import modules_of
from castlegate.python.reference import parse_reference
from castlegate.python.running import Runner
from castlegate.python.settings import PythonSettings
from castlegate.python.threads import Threads
from castlegate.resources import Resources
from castlegate.telemetry.metrics import Registry
from castlegate.upstreams.python.upstream import PythonUpstream
from castlegate.wire.timer import Timer

if TYPE_CHECKING:
    from castlegate.sketch import Described


class Functions:
    """Modules are imported, and threads made, when the first function is asked for."""

    def __init__(
        self,
        settings: PythonSettings,
        services: Mapping[str, Service],
        caller: Callable[[str], Caller],
        *,
        folder: Path,
        resources: Resources,
        timer: Timer,
        registry: Registry,
        budget: Budget,
    ) -> None:
        """`caller`: of `service` or `service.operation`, inside the service's guards."""
        self._settings = settings
        self._services = services
        self._caller = caller
        self._resources = resources
        self._timer = timer
        self._registry = registry
        self._budget = budget
        self._modules = modules_of(folder)
        self._modules.refresh()
        self._threads: Threads | None = None
        self._upstream: PythonUpstream | None = None

    def watch(self) -> None:
        """Have gauges tell of these from now on."""
        if self._threads is not None:
            self._threads.watch(self._registry)

    def rule(self, policy: NamedPolicy, at: Place) -> FunctionRule:
        """What decides for a policy that is a function. Raises `ConfigError` if it has become unusable."""
        assert policy.python is not None, "it is said"
        reference = parse_reference(policy.python)
        assert reference is not None, "the document was checked"
        try:
            decision = read_decision(self._modules.function(reference))
        except Unusable as unusable:  # the file has changed since the document was checked
            at.mistake(str(unusable))
            at.report.raise_if_any()
            raise
        return function_rule(policy.python, decision, self._runner(), policy.timeout)

    def caller(self, call: str, params: Sequence[str], at: Place) -> tuple[Caller, list[Described]]:
        """Who calls a function on a route with such placeholders, and the links that the call passes."""
        reference = parse_reference(call)
        assert reference is not None, "the document was checked"
        if self._upstream is None:
            means = Means(self._link, self._timer, self._budget, self._settings.collected)
            self._upstream = PythonUpstream(self._modules, means, self._runner(), self._registry)
        try:
            function = self._upstream.bind(reference, params)
        except (Unusable, LookupError) as unusable:  # the file has changed since the document was checked
            at.mistake(str(unusable))
            return _uncallable, []
        return function, [function]

    def _runner(self) -> Runner:
        settings, loop = self._settings, asyncio.get_running_loop()
        self._threads = self._resources.keep("threads of functions", settings, lambda: Threads(settings, loop))
        return Runner(self._timer, self._threads, loop)

    def _link(self, call: str) -> Link:
        """How a function reaches a service. Raises `LookupError`."""
        why = unreachable(self._services, call)
        if why:
            raise LookupError(why)
        return Link(self._caller(call), http=self._services[call.partition(".")[0]].http is not None)


async def _uncallable(_call: Call) -> Reply:
    raise AssertionError("a generation with mistakes serves nothing")
