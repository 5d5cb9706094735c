"""Copies of calls go to a shadow service, whose answers nobody gets.

Nothing that becomes of a copy touches the call: it begins in a turn of the loop of its own, with a deadline of its own,
on connections of its own; there are so many at once and no more, and what fails is counted.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable
from random import random
from typing import Annotated, Any

import msgspec

from castlegate.config.report import Place, suggest
from castlegate.config.units import Count, Seconds, Size
from castlegate.errors import GatewayError
from castlegate.message import Call, Caller, Reply
from castlegate.sketch import Description, Sketch
from castlegate.telemetry.metrics import Registry

_METHODS = ("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE")


class MirrorSettings(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A service that gets copies of calls; what it answers goes nowhere."""

    service: str
    """The shadow: another service that speaks HTTP, called by nothing else, so that copies have connections of their
    own."""
    percent: Annotated[float, msgspec.Meta(gt=0, le=100)] = 100.0
    """How many of a hundred calls are copied."""
    methods: list[str] = msgspec.field(default_factory=lambda: ["GET", "HEAD"])
    """Of which methods. Say others only if the shadow may change what it likes."""
    concurrency: Count = 16
    """Copies under way at once, in each worker; further ones are dropped."""
    timeout: Seconds = 2.0
    """After this a copy is given up."""
    body: Size = 64 * 1024
    """Bytes up to which a request's body is copied; larger ones, and those that are passed on as they arrive, are not
    copied. As many of an answer are read before its connection is closed instead."""

    def check(self, at: Place) -> None:
        """The methods."""
        for index, method in enumerate(self.methods):
            if method not in _METHODS:
                at.field("methods", index).mistake(f"no such method{suggest(method, _METHODS, 'there are')}")


class Shadows:
    """The copies of one service that are under way (`resources.Resource`)."""

    def __init__(self) -> None:
        self.running: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Nothing to begin."""

    async def stop(self) -> None:
        """Give up what is under way."""
        for task in self.running:
            task.cancel()
        if self.running:
            await asyncio.wait(self.running)


class Mirror:
    """Of one service's operation."""

    def __init__(
        self,
        settings: MirrorSettings,
        service: str,
        shadow: Caller,
        shadows: Shadows,
        now: Callable[[], float],
        registry: Registry,
    ) -> None:
        self._settings = settings
        self._shadow = shadow
        self._shadows = shadows
        self._now = now
        self._methods = frozenset(method.encode() for method in settings.methods)
        self._share = settings.percent / 100
        self._service = service
        self._results = registry.counter(
            "castlegate_mirrored_total",
            "Copies of calls for a shadow: answered, the kind of failure, dropped (too many), or too_large.",
            "service",
            "result",
        )

    def describe(self, sketch: Sketch) -> Description:
        """Which calls are copied."""
        settings = self._settings
        if sketch.sent.method not in self._methods:
            says: dict[str, Any] = {"copies": f"nothing: the method is not among {', '.join(settings.methods)}"}
        else:
            says = {"copies": f"{settings.percent:g} of 100 calls to '{settings.service}', whose answers go nowhere"}
        return Description(role="guard", name="mirror", says=says)

    def wrap(self, inner: Caller) -> Caller:
        """The caller that has calls copied."""
        methods, share = self._methods, self._share

        async def call_and_copy(call: Call) -> Reply:
            if call.method in methods and (share >= 1 or random() < share):  # noqa: S311 - not a secret
                self._copy(call)
            return await inner(call)

        return call_and_copy

    def _copy(self, call: Call) -> None:
        settings, running = self._settings, self._shadows.running
        body = call.body
        if not isinstance(body, bytes) or len(body) > settings.body:
            self._count("too_large")
            return
        if len(running) >= settings.concurrency:
            self._count("dropped")
            return
        request = copy.copy(call.request)  # its deadline, who waits for its end, and its body are not ours
        request.deadline, request.on_end, request.body = self._now() + settings.timeout, None, b""
        copied = Call(
            request, call.method, call.target, call.headers, body, call.key, settings.timeout,
            idempotent=call.idempotent,
        )  # fmt: skip
        task = asyncio.get_running_loop().create_task(self._send(copied))
        running.add(task)
        task.add_done_callback(running.discard)

    def _count(self, result: str) -> None:
        self._results.child(self._service, result).value += 1

    async def _send(self, call: Call) -> None:
        """Ask the shadow, and read its answer to the end, so that the connection can be used again."""
        try:
            async with asyncio.timeout(self._settings.timeout):
                reply = await self._shadow(call)
                if not isinstance(reply.body, bytes):
                    try:
                        while reply.body.received <= self._settings.body and await reply.body.read():
                            pass
                    finally:
                        reply.body.close()
        except GatewayError as failed:
            self._count(failed.kind.name)
        except TimeoutError:
            self._count("timeout")
        else:
            self._count("answered")
