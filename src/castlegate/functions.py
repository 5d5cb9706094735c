"""What must hold of the functions in Python that a configuration names: they are there, and fit where they are used.

They are looked at in a program of its own (`castlegate.python.examining`), all at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

from castlegate.calls.settings import VERBS, CallSettings
from castlegate.config.report import Place, Report, listed, show, suggest
from castlegate.python.examining import Finding, Question, examine
from castlegate.python.reference import is_function, parse_reference
from castlegate.routing.template import parse_key

if TYPE_CHECKING:
    from castlegate.document import Document, Route, Service

_NOT_OF_FUNCTIONS = (*VERBS, "strip_prefix", "add_prefix", "key", "reply", "gather")


class Use(NamedTuple):
    """Where a configuration names a function."""

    question: Question
    at: Place
    public: list[str]
    """Routes on which nobody is known where it is called."""


def check_functions(document: Document, at: Place) -> None:
    """Report every mistake."""
    uses = list(_uses(document, at))
    if not uses:
        return
    for use, found in zip(uses, examine([use.question for use in uses], at.report.folder), strict=True):
        if found.mistake:
            use.at.mistake(found.mistake)
        else:
            _check_found(document, use, found)


def refuse_beside_function(call: CallSettings, place: Place) -> None:
    """Report what means nothing for a function."""
    for name in _NOT_OF_FUNCTIONS:
        if getattr(call, name) is not None:
            place.field(name).mistake("this is for services; a function gets the request as it is")


def unreachable(services: Mapping[str, Service], call: str) -> str:
    """Why `call` is nothing that a function can call; nothing if it is."""
    name, _, operation = call.partition(".")
    service = services.get(name)
    if service is None:
        hint = suggest(name, services, "there are") or "; there are none under 'services'"
        return f"no service is called {show(name)}{hint}"
    if service.http is not None and operation:
        return f"'{name}' speaks HTTP, which has no operations; write '{name}'"
    if service.kafka is not None and not operation:
        known = listed([f"'{name}.{each}'" for each in service.kafka.operations], "or")
        return f"'{name}' is behind Kafka: say which operation, such as {known or f'{name}.get'}"
    return ""


def _check_found(document: Document, use: Use, found: Finding) -> None:
    for service in found.services:
        why = unreachable(document.services, service)
        if why:
            use.at.mistake(f"the function calls {show(service)}: {why}")
        copied = [name for name, each in document.services.items() if each.mirror and each.mirror.service == service]
        if copied:
            whose = listed([show(name) for name in copied])
            use.at.mistake(f"the function calls {show(service)}, which is for copies of the calls of {whose} alone")
    if not (found.needs_principal and use.public):
        return
    if use.question.use == "policy":
        use.at.warning(
            f"it must know who calls, which nobody knows on {listed([show(name) for name in use.public])}: it refuses "
            "everyone there; have it take 'Principal | None' if that is not meant"
        )
    else:
        use.at.mistake(
            "the function must know who calls, and this route is public; have it take 'Principal | None', or name a "
            "scheme with 'auth'"
        )


def _calls(route: Route, at: Place) -> Iterator[tuple[str, Place]]:
    """What a route calls, or its parts do."""
    if route.call is not None and route.publish is None:
        yield route.call, at.field("call")
    for name, part in (route.compose or {}).items():
        place = at.field("compose", name)
        if part.call is not None:
            yield part.call, place.field("call")
        if part.fallback_call is not None and part.fallback_call.call is not None:
            yield part.fallback_call.call, place.field("fallback_call", "call")


def _uses(document: Document, at: Place) -> Iterator[Use]:
    for name, route in document.routes.items():
        key = parse_key(name, Report().place())
        params = [] if key is None else list(key.params)
        public = [name] if document.effective(route).public else []
        for call, place in _calls(route, at.field("routes", name)):
            if not is_function(call):
                continue
            reference = parse_reference(call)
            if reference is None:
                place.mistake(f"expected python:package.module:function, found {place.shown(call)}")
                continue
            yield Use(Question(reference, "call", params), place, public)
    for name, policy in document.policies.items():
        if policy.python is None:
            continue
        place = at.field("policies", name, "python")
        reference = parse_reference(policy.python)
        if reference is None:
            place.mistake(f"expected package.module:function, found {place.shown(policy.python)}")
            continue
        used = [(each, document.effective(route)) for each, route in document.routes.items()]
        public = [each for each, route in used if route.public and name in route.policies]
        yield Use(Question(reference, "policy"), place, public)
