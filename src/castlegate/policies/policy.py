"""What policies are made of and from.

A policy is made for a route at load by a function of its module: `NAME(settings, site)` returns it, or None where the
route does not use it. A handler that a policy wraps never raises a `GatewayError`, nor may the one that it becomes:
what a policy refuses it answers itself, by `problem(...)`, so that those around it see a response like any other.
Where it only lets pass or refuses, its handler is a plain function that returns the inner one's awaitable: it costs no
coroutine.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple, Protocol, runtime_checkable

from castlegate.config.references import Scope
from castlegate.config.report import Place
from castlegate.errors import GatewayError
from castlegate.means import Means
from castlegate.message import Policy, Request, Response
from castlegate.policies.functions import FunctionRule
from castlegate.policies.named import Rule
from castlegate.problem import problem
from castlegate.routing.template import RouteKey
from castlegate.schemes.scheme import Scheme
from castlegate.sketch import Described


class Site(NamedTuple):
    """The route that a policy is made for."""

    name: str
    key: RouteKey
    scope: Scope
    """What references of this route reach."""
    at: Place
    """Of the route in the configuration."""
    body: int
    """Bytes that its requests' bodies have at most."""
    schemes: Mapping[str, Scheme]
    """The entries of `auth`."""
    means: Means
    rules: Mapping[str, Rule | FunctionRule] = MappingProxyType({})
    """The entries of `policies`."""


class DescribedPolicy(Policy, Described, Protocol):
    """What the policies of a route are."""


@runtime_checkable
class Dresses(Protocol):
    """A policy that puts fields on answers: asked for those of the edge too, which no handler made."""

    def dress(self, request: Request, response: Response) -> None:
        """Put them on."""


@runtime_checkable
class AnswersPreflights(Protocol):
    """A policy that answers the preflights of its route (Fetch standard, CORS protocol)."""

    async def preflight(self, request: Request) -> Response:
        """The answer."""


async def refuse(error: GatewayError, request: Request) -> Response:
    """The answer, as something to be awaited: for handlers that are plain functions."""
    return problem(error, request)
