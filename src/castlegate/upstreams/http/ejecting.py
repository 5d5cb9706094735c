"""Takes instances out for how they answer this worker's calls, and in again when their time is over.

The rule is `rules.ejection`; this is its clock, its log and its counters.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Any

from castlegate.config.units import write_seconds
from castlegate.errors import CallFailed, Kinds
from castlegate.message import Call, Caller, Reply
from castlegate.rules.ejection import Ejected, Ejection, Outliers
from castlegate.rules.instances import Instance, Instances
from castlegate.sketch import Description, Sketch
from castlegate.telemetry.metrics import Registry

logger = logging.getLogger("castlegate.health")

EJECTION = "ejection"
"""Who holds out an instance that calls failed on."""

_NOT_REACHED = frozenset((Kinds.CONNECT, Kinds.CONNECT_TIMEOUT, Kinds.CERTIFICATE, Kinds.TLS))
_FAILED = _NOT_REACHED | {Kinds.NO_ANSWER, Kinds.RESET, Kinds.BAD_ANSWER, Kinds.TIMEOUT}
_OF_REQUESTS = (501, 505)  # about what was asked, not about who was asked


class Ejecting:
    """Of one service, around its calls."""

    def __init__(
        self,
        service: str,
        settings: Ejection,
        instances: Instances[Any],
        now: Callable[[], float],
        registry: Registry,
    ) -> None:
        self._service = service
        self._settings = settings
        self._instances = instances
        self._now = now
        self._outliers = Outliers[Instance](settings)
        self._ejections = registry.counter(
            "castlegate_instance_ejections_total", "Instances taken out because calls failed on them.", "service"
        ).child(service)
        # What wakes it next: the end of an interval, while any is looked at, and of the first time out.
        self._sweeping: asyncio.TimerHandle | None = None
        self._releasing: asyncio.TimerHandle | None = None
        self._members: set[Instance] = set()
        instances.watch(self._follow)
        self._follow()

    def close(self) -> None:
        """Wake no more."""
        for handle in (self._sweeping, self._releasing):
            if handle is not None:
                handle.cancel()

    def describe(self, sketch: Sketch) -> Description:
        """When an instance is taken out."""
        del sketch
        settings = self._settings
        says: dict[str, Any] = {
            "takes out": f"an instance after {settings.errors} failures in a row",
            "for": f"{write_seconds(settings.time)} at first, at most {write_seconds(settings.longest)}",
            "at most": f"{settings.share:.0%} of the instances, never the last",
        }
        return Description(role="guard", name="ejection", says=says)

    def wrap(self, inner: Caller) -> Caller:
        """The caller that is judged by."""
        succeed, failed_on = self._outliers.succeed, self._failed

        async def call_and_judge(call: Call) -> Reply:
            try:
                reply = await inner(call)
            except CallFailed as failed:
                if failed.kind in _FAILED:
                    failed_on(call.instance, connect=failed.kind in _NOT_REACHED)
                raise
            if reply.status >= 500 and reply.status not in _OF_REQUESTS:
                failed_on(call.instance, connect=False)
            elif isinstance(reply.body, bytes):
                succeed(call.instance)
            else:
                reply.body.when_over(partial(self._over, call.instance))
            return reply

        return call_and_judge

    def _over(self, instance: Instance, error: BaseException | None) -> None:
        """The body of an answer that began well has ended, or never will."""
        if isinstance(error, CallFailed) and error.kind in _FAILED:
            self._failed(instance, connect=False)
        else:
            self._outliers.succeed(instance)

    def reached(self, instance: Instance, at: float) -> None:
        """A check that began then has passed: calls will reach it too, however it answers them."""
        now = self._now()
        if self._outliers.reached(instance, at):
            logger.info("service %s: %s is called again: a check has passed", self._service, instance.name)
            self._instances.put_back(instance, EJECTION, now)
            self._release_later(now)

    def _follow(self) -> None:
        """Instances have come or gone."""
        members = set(self._instances.members)
        for gone in self._members - members:
            self._outliers.remove(gone)
        for come in members - self._members:
            self._outliers.add(come)
        self._members = members

    def _usable(self) -> int:
        return sum(each.well for each in self._instances.members)

    def _failed(self, instance: Instance, *, connect: bool) -> None:
        now = self._now()
        if self._sweeping is None:
            self._outliers.begin()
            self._sweep_later()
        ejected = self._outliers.fail(instance, now, self._usable, connect=connect)
        if ejected is not None:
            self._eject(instance, ejected, now)

    def _eject(self, instance: Instance, ejected: Ejected, now: float) -> None:
        self._ejections.value += 1
        self._instances.take_out(instance, EJECTION, ejected.why, now)
        logger.warning(
            "service %s: %s is ejected for %g s: %s", self._service, instance.name, ejected.until - now, ejected.why
        )
        self._release_later(now)

    def _release_later(self, now: float) -> None:
        if self._releasing is not None:
            self._releasing.cancel()
            self._releasing = None
        due = self._outliers.next_due
        if due is not None:
            self._releasing = asyncio.get_running_loop().call_later(max(0.0, due - now), self._release)

    def _release(self) -> None:
        now = self._now()
        for instance in self._outliers.due(now):
            logger.info("service %s: %s is called again: its time out is over", self._service, instance.name)
            self._instances.put_back(instance, EJECTION, now)
        self._release_later(now)

    def _sweep_later(self) -> None:
        self._sweeping = asyncio.get_running_loop().call_later(self._settings.interval, self._sweep)

    def _sweep(self) -> None:
        now = self._now()
        for instance, ejected in self._outliers.sweep(now, self._usable):
            self._eject(instance, ejected, now)
        self._sweeping = None
        if not self._outliers.quiet:
            self._sweep_later()
