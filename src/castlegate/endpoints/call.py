"""A route that calls one service: the client's request becomes a call, its reply the response."""

from __future__ import annotations

from castlegate.body import Budget
from castlegate.calls.plan import CallPlan, FieldRules
from castlegate.calls.settings import CallSettings
from castlegate.config.references import Scope
from castlegate.config.report import Place
from castlegate.endpoints.settings import RouteLimits
from castlegate.errors import GatewayError
from castlegate.message import Caller, Handler, Request, Response
from castlegate.problem import problem

_UNKNOWN = 2**63  # bytes of a body that comes in chunks


def call_endpoint(
    plan: CallPlan,
    caller: Caller,
    settings: CallSettings,
    limits: RouteLimits,
    budget: Budget,
    *,
    whole: bool,
    scope: Scope,
    at: Place,
) -> Handler:
    """The handler. `whole`: the service wants the body in one piece."""
    response_fields = FieldRules(settings.headers.response, scope, at.field("headers", "response"))
    buffered = whole or plan.needs_body or response_fields.needs_body
    fields = response_fields or None
    success = settings.status
    largest, small = limits.largest_body, limits.largest_buffered

    async def handle(request: Request) -> Response:
        try:
            body = request.body
            if not isinstance(body, bytes) and (buffered or (body.length or _UNKNOWN) <= small):
                await request.collect(largest, budget)
            reply = await caller(plan.make(request))
        except GatewayError as error:
            return problem(error, request)
        try:
            headers = reply.headers if fields is None else fields.apply(reply.headers, request)
        except GatewayError as error:
            if not isinstance(reply.body, bytes):
                reply.body.close()
            return problem(error, request)
        status = success if success is not None and reply.status == 200 else reply.status
        return Response(status, headers, reply.body)

    return handle
