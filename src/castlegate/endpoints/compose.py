"""A route that makes one answer of several calls."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from castlegate.body import Budget
from castlegate.calls.plan import FieldRules
from castlegate.composition.answering import ASKED, Answer, failure, passed_on
from castlegate.composition.contents import too_deep
from castlegate.composition.parts import Part
from castlegate.composition.running import Run
from castlegate.errors import GatewayError
from castlegate.message import Handler, Request, Response
from castlegate.problem import problem
from castlegate.wire.timer import Timer


def compose_endpoint(
    parts: Sequence[Part], answer: Answer, fields: FieldRules, timer: Timer, budget: Budget, *, largest: int
) -> Handler:
    """The handler. `fields`: rules for the answer's; `largest`: bytes that a request's body may have."""
    own_fields = fields or None

    async def handle(request: Request) -> Response:
        if not isinstance(request.body, bytes):
            try:
                await request.collect(largest, budget)
            except GatewayError as error:
                return problem(error, request)
        run = Run(parts, request, timer, budget)
        run.begin()
        try:
            await run.waiter
        except asyncio.CancelledError:
            run.stop()  # the client has gone
            raise
        try:
            if run.error is not None:
                return _failed(run, run.error)
            wire = request.headers.wire
            response = answer.response(run, told=b"prefer: " in wire and _prefers_report(request))
            run.release()
            if own_fields is not None:
                response.headers = own_fields.apply(response.headers, request, run.values)
        except GatewayError as error:
            return problem(failure(run, error), request)
        except RecursionError:
            return problem(failure(run, too_deep()), request)
        return response

    return handle


def _failed(run: Run, error: BaseException) -> Response:
    """Raises what was not foreseen."""
    if not isinstance(error, GatewayError):
        raise error
    if run.passed_on is None or run.ended_by is None:
        return problem(failure(run, error), run.request)
    return passed_on(run, run.passed_on, run.ended_by)


def _prefers_report(request: Request) -> bool:
    preferred = request.headers.get(b"prefer") or b""
    return any(each.partition(b"=")[0].strip().lower() == ASKED for each in preferred.split(b","))
