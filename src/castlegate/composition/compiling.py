"""From settings to parts: templates, conditions, shapes and the graph. Every mistake is reported where it stands."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec

from castlegate.calls.plan import FieldRules
from castlegate.calls.settings import CallSettings
from castlegate.composition.conditions import compile_when
from castlegate.composition.graph import Cycle, waves
from castlegate.composition.parts import Batching, EachPlan, Part, PartCall, Tally
from castlegate.composition.reshaping import Shape, expression_shape, members_shape
from castlegate.composition.settings import Each, PartSettings, ShapeSettings
from castlegate.config.references import PartRoot, Reference, Scope, parse, roots_in
from castlegate.config.report import Place
from castlegate.config.templates import Sink, compile_json, compile_text
from castlegate.expressions.checking import Facts
from castlegate.expressions.syntax import Unreadable
from castlegate.telemetry.metrics import Counter, Family

ELEMENT = "each"

Bind = Callable[[CallSettings, float | None, float, Scope, Place], PartCall]
"""Of a call's settings, the seconds that are said of it, those that it has otherwise, what its references reach, and
where it stands: how it is made and by whom.
"""
MakeFacts = Callable[[], Facts]


def parts_scope(parts: Mapping[str, PartSettings], scope: Scope) -> Scope:
    """What templates reach that may refer to parts."""
    return scope.including({name: PartRoot(name) for name in parts})


def scope_of(settings: PartSettings, parts: Mapping[str, PartSettings], scope: Scope) -> Scope:
    """What the templates of a part reach."""
    found = parts_scope(parts, scope)
    return found if settings.each is None else found.including({ELEMENT: PartRoot(ELEMENT)})


def inputs_of(
    parts: Mapping[str, PartSettings], facts: MakeFacts, shown: Callable[[str], str] = str
) -> dict[str, list[str]]:
    """The parts that each one names, in the order of all. `shown`: texts as they were written."""
    found = {}
    for name, settings in parts.items():
        named: set[str] = set()
        for text in _texts(settings):
            named |= roots_in(shown(text))
        if settings.when is not None:
            with contextlib.suppress(Unreadable):  # told where it stands
                named |= compile_when(settings.when, facts(), parts)[1]
        found[name] = [each for each in parts if each in named]
    return found


def check_parts(parts: Mapping[str, PartSettings], scope: Scope, at: Place, facts: MakeFacts) -> dict[str, list[str]]:
    """Report what is wrong with templates, conditions and the graph; the inputs of each part."""
    for name, settings in parts.items():
        place = at.field(name)
        if name in (*scope.roots, ELEMENT, *facts().names):
            place.mistake(f"'{name}' has a meaning in references already; take another name")
        inner = scope_of(settings, parts, scope)
        _check_templates(settings, inner, place)
        if settings.fallback_call is not None:
            _check_templates(settings.fallback_call, inner, place.field("fallback_call"))
        for field in ("value", "fallback"):
            if getattr(settings, field) is not msgspec.UNSET:
                compile_json(getattr(settings, field), inner, place.field(field))
        if settings.each is not None:
            _reference(settings.each, parts_scope(parts, scope), place.field("each"))
        if settings.when is not None:
            try:
                compile_when(settings.when, facts(), parts)
            except Unreadable as wrong:
                place.field("when").inside(wrong.offset).mistake(wrong.text)
    inputs = inputs_of(parts, facts)
    try:
        waves(inputs)
    except Cycle as cycle:
        first = cycle.names[0]
        others = "itself" if len(cycle.names) == 1 else f"itself: {cycle}"
        at.field(first).mistake(f"waits for {others}; no part of a circle can begin")
    return inputs


def compile_parts(
    parts: Mapping[str, PartSettings],
    scope: Scope,
    at: Place,
    facts: MakeFacts,
    bind: Bind,
    *,
    timeout: float,
    counts: Family[Counter],
    route: str,
    fields: Mapping[str, str | None],
) -> list[Part]:
    """The parts in their order. `timeout`: seconds of the route; `counts`: by route, part and outcome; `fields`: of its
    answer, whose templates may refer to parts.
    """
    inputs = inputs_of(parts, facts)
    made = {name: Part(name, index) for index, name in enumerate(parts)}
    for text in fields.values():
        for name in roots_in(text or "") & made.keys():
            made[name].referenced = True
    for name, settings in parts.items():
        part, place, inner = made[name], at.field(name), scope_of(settings, parts, scope)
        part.inputs = [made[each].index for each in inputs[name]]
        for each in inputs[name]:
            made[each].followers.append(part)
            made[each].referenced = True
        part.counters = Tally(counts, route, name)
        part.timeout = min(settings.timeout or timeout, timeout)
        part.optional, part.merge, part.hidden = settings.optional, settings.merge, settings.hidden
        part.limit = settings.limit
        part.pass_status = frozenset(settings.pass_status)
        part.passed = tuple(f"{field.lower()}: ".encode() for field in settings.pass_headers)
        part.shapes = shapes_of(settings)
        if settings.value is not msgspec.UNSET:
            part.value = compile_json(settings.value, inner, place.field("value"))
        else:
            part.asked = bind(settings, settings.timeout, timeout, inner, place)
            part.timeout = part.asked.plan.timeout
        if settings.fallback is not msgspec.UNSET:
            part.fallback = compile_json(settings.fallback, inner, place.field("fallback"))
        if settings.fallback_call is not None:
            call = settings.fallback_call
            part.fallback_asked = bind(call, call.timeout, part.timeout, inner, place.field("fallback_call"))
        if settings.when is not None:
            part.when = compile_when(settings.when, facts(), parts)[0]
        if settings.each is not None:
            part.each = _each_plan(settings, parts_scope(parts, scope), place.field("each"))
    for part in made.values():
        part.compiled()
    return list(made.values())


def shapes_of(settings: PartSettings) -> list[Shape]:
    """What is done with an answer, in order."""
    members = members_shape(settings.pick, settings.drop, settings.rename)
    return [*([] if members is None else [members]), *shape_of(settings.shape)]


def shape_of(settings: ShapeSettings | None) -> list[Shape]:
    """What an expression does."""
    return [] if settings is None else [expression_shape(settings.expression, settings.most)]


def _each_plan(settings: PartSettings, scope: Scope, at: Place) -> EachPlan | None:
    said, batch = settings.each, settings.batch
    assert said is not None
    reference = _reference(said, scope, at)
    if reference is None:
        return None
    batching = None
    if batch is not None:
        batching = Batching(batch.by, batch.within.split(".") if batch.within else [])
    size = 1 if batch is None else batch.size
    return EachPlan(reference, said.most, said.concurrency, size, said.join, batching)


def _reference(each: Each, scope: Scope, at: Place) -> Reference | None:
    """The list that it names; after a mistake, None."""
    place = at.field("of")
    pieces = parse(each.of, scope, place)
    if pieces is None:
        return None
    if len(pieces) != 1 or not isinstance(pieces[0], Reference):
        place.mistake(f"expected one reference such as '{{orders[].sku}}', found {place.shown(each.of)}")
        return None
    return pieces[0]


def _check_templates(call: CallSettings, scope: Scope, at: Place) -> None:
    if call.verb is not None:
        compile_text(getattr(call, call.verb), Sink.TARGET, scope, at.field(call.verb))
    if call.key is not None:
        compile_text(call.key, Sink.KEY, scope, at.field("key"))
    if call.send is not msgspec.UNSET:
        compile_json(call.send, scope, at.field("send"))
    FieldRules(call.headers.request, scope, at.field("headers", "request"))


def _texts(settings: PartSettings) -> Iterator[str]:
    """Every text of a part that may hold references."""
    calls: list[CallSettings] = [settings]
    if settings.fallback_call is not None:
        calls.append(settings.fallback_call)
    for call in calls:
        yield from _strings([call.send, call.key, *call.headers.request.values()])
        if call.verb is not None:
            yield getattr(call, call.verb)
    yield from _strings([settings.value, settings.fallback])
    if settings.each is not None:
        yield settings.each.of


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from _strings(each)
    elif isinstance(value, list):
        for each in value:
            yield from _strings(each)
