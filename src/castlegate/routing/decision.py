"""What becomes of a request before a handler sees it: one decision, for the edge and for `castlegate explain`.

A path that servers read in different ways is refused, the route is found, and OPTIONS is answered here where no route
asks for it.
"""

from __future__ import annotations

from castlegate.errors import Kinds, RequestRefused
from castlegate.headers import Headers
from castlegate.message import Handler, Request, Response
from castlegate.routing.path import normalise
from castlegate.routing.route import Route
from castlegate.routing.router import Router

PREFLIGHT = b"access-control-request-method"


def decide(router: Router[Route], unrouted: Route, request: Request) -> tuple[Route, Handler]:
    """The route that the request counts as, and who answers it: the route's handler, unless it is answered here. Puts
    the path into normal form and notes the values of placeholders. Raises `RequestRefused`.
    """
    method, host, path = request.method, request.host, request.path
    if path != b"*":
        request.path = normalise(path)
    if method == b"OPTIONS" and not _takes_options(router, request):
        return _options(router, unrouted, request)
    route, request.params = router.match(method, host, request.path)
    if request.path is not path:
        router.confirm(method, host, request.path, route, route.is_passed_by)
    return route, route.handler


def _takes_options(router: Router[Route], request: Request) -> bool:
    """Whether a route answers OPTIONS itself."""
    try:
        return router.match(b"OPTIONS", request.host, request.path)[0].takes_options
    except RequestRefused:
        return False


def _options(router: Router[Route], unrouted: Route, request: Request) -> tuple[Route, Handler]:
    """The answer for a route. A preflight is counted as the route that it asks about, whose endpoint it must never
    reach: asking whether a DELETE is allowed is no DELETE (Fetch standard, CORS-preflight fetch).
    """
    if request.path == b"*":
        return unrouted, _answer_options
    route = unrouted
    wanted = request.headers.get(PREFLIGHT)
    if wanted is not None:
        try:
            route = router.match(wanted, request.host, request.path)[0]
        except RequestRefused:
            # A page that may read answers which no route makes must be let ask for them.
            if unrouted.preflight is None:
                raise
        if route.preflight is not None:
            return route, route.preflight
    allow = router.allowed(request.host, request.path)
    if allow is None:
        raise RequestRefused(Kinds.NOT_FOUND)
    response = Response(204, Headers.of([(b"allow", allow)]))

    async def answer(_request: Request) -> Response:
        return response

    return route, answer


async def _answer_options(_request: Request) -> Response:
    """`OPTIONS *`: the gateway is there."""
    return Response(204)
