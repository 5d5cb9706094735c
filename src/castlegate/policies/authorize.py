"""What callers may do: a route asks for scopes, for claims, for what a named policy says.

All that a route asks for must hold. What a caller lacks is told by the names of scopes and claims; of a policy, that
there is one. A policy that fails or cannot decide refuses.
"""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from castlegate.calls.claims import ClaimRule
from castlegate.config.report import Place, listed
from castlegate.errors import Kinds, RequestRefused
from castlegate.expressions.program import Undecided
from castlegate.expressions.syntax import Unreadable
from castlegate.message import Handler, Request, Response
from castlegate.policies.functions import FunctionRule
from castlegate.policies.named import NamedPolicy, Rule
from castlegate.policies.policy import Site, refuse
from castlegate.principal import Principal
from castlegate.problem import problem
from castlegate.sketch import Description, Sketch

_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")  # RFC 6749 §3.3
_CLAIM = re.compile(r"[^\s\x00-\x1f\x7f\"\\]+")


OF_CALLERS = ("scopes", "claims")
"""What a public route does not take from `defaults`: nobody knows who calls it."""


class AnyScope(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Several scopes of which one is enough."""

    any: list[str]
    """The scopes."""

    def check(self, at: Place) -> None:
        """The scopes."""
        if not self.any and not at.field("any").spoilt:
            at.field("any").mistake("this leaves nobody who may call it; name a scope")
        _check_scopes(self.any, at.field("any"))


class Authorization(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """What callers must be allowed. Each that a route does not say is that of `defaults`."""

    scopes: list[str] | AnyScope | None = None
    """Scopes that callers must have, all of them; `{any: [...]}` for one of them. `[]` asks for none."""
    claims: dict[str, Any] | None = None
    """Claims that callers must have: each with the value that it must have, or a list of those that will do. Of a claim
    that is a list itself, one item will do. A name with dots leads into objects (`realm_access.roles`), unless it has a
    `:` or `/` in it, such as `https://example.com/roles`. `{}` asks for none."""
    policy: str | list[str] | None = None
    """Names of `policies` that must all allow the request. The only one of these that a public route can say; callers
    are then unknown to it. `[]` asks for none."""

    def check(self, at: Place) -> None:
        """Scopes, and names and values of claims."""
        if isinstance(self.scopes, list):
            _check_scopes(self.scopes, at.field("scopes"))
        for name, accepted in (self.claims or {}).items():
            place = at.field("claims", name)
            if not _CLAIM.fullmatch(name):
                place.mistake("not a name of a claim")
            values = accepted if isinstance(accepted, list) else [accepted]
            if not values or not all(isinstance(value, (str, int, float)) for value in values):
                place.mistake("expected text, a number, true or false, or a list of these")

    @property
    def policies(self) -> list[str]:
        """The names of `policy`."""
        return [self.policy] if isinstance(self.policy, str) else list(self.policy or ())


def check_public(said: Authorization, place: Place, *, inherited: bool) -> None:
    """That an open route asks for nothing that only known callers have. `inherited`: it is `defaults` that open it."""
    for name in OF_CALLERS:
        if not getattr(said, name):
            continue
        if inherited:
            remedy = f"say who may call with 'auth', or leave '{name}' out"
            why = f"the route is public by 'defaults', so nobody's {name} are asked for; {remedy}"
            place.field(name).mistake(why)
        else:
            place.field(name).mistake("this route is public: it does not know who calls; leave out one of the two")


def check_use(name: str, policy: NamedPolicy, params: Collection[str], at: Place) -> None:
    """Whether a route has the path parameters that a policy asks for."""
    try:
        asked = set() if policy.allow is None else policy.rule().facts.params
    except Unreadable:
        return  # told where the policy stands
    for param in sorted(asked - set(params)):
        at.mistake(f"the policy '{name}' asks for path.{param}, and the path of this route has no such parameter")


def check_nobody(policies: Mapping[str, NamedPolicy], names: Collection[str], where: str, at: Place) -> None:
    """Warn of policies that ask who calls where nobody knows it."""
    for name in names:
        if name in policies and policies[name].allow is None:
            continue
        try:
            facts = policies[name].rule().facts
        except (KeyError, Unreadable):
            continue  # told elsewhere
        if "principal" in facts.used and not facts.expects_nobody:
            at.warning(
                f"the policy '{name}' asks who calls, which nobody knows on {where}: it refuses everyone for whom that "
                "counts; say what holds there with 'principal == null'"
            )


def _check_scopes(scopes: list[str], at: Place) -> None:
    for index, scope in enumerate(scopes):
        if not _SCOPE.fullmatch(scope):
            at.field(index).mistake(f"not a scope: {at.field(index).shown(scope)}; those have no spaces and quotes")


def authorize(settings: Authorization, site: Site) -> Authorize | None:
    """The policy, unless the route asks for nothing."""
    rules = {name: site.rules[name] for name in settings.policies}
    if not (settings.scopes or settings.claims or rules):
        return None
    return Authorize(settings, rules, site)


class Denied(NamedTuple):
    """By what, and what the client is told."""

    by: str
    detail: str
    scope: str = ""
    """As the challenge says it (RFC 6750 §3): all that are asked for."""


class Authorize:
    """Lets pass who has what the route asks for; answers 403."""

    def __init__(self, settings: Authorization, rules: Mapping[str, Rule | FunctionRule], site: Site) -> None:
        scopes = settings.scopes
        self._public = bool(getattr(settings, "public", None))
        self._all = frozenset(scopes) if isinstance(scopes, list) else frozenset()
        self._any = frozenset(scopes.any) if isinstance(scopes, AnyScope) else frozenset()
        self._scope = " ".join(scopes if isinstance(scopes, list) else scopes.any if scopes is not None else ())
        self._claims = [ClaimRule(*pair) for pair in (settings.claims or {}).items()]
        self._rules = rules
        self._report = site.at.report
        self._challenges = {
            name: scheme.challenge for name, scheme in site.schemes.items() if scheme.challenge.startswith("Bearer")
        }
        refused = site.means.registry.counter(
            "castlegate_denied_total",
            "Requests that the scopes, claims and policies of a route refused, and whether they could be decided.",
            "route",
            "by",
            "because",
        )
        asked = [*(["scopes"] if self._scope else []), *(["claims"] if self._claims else [])]
        self._false = {by: refused.child(site.name, by, "false") for by in [*asked, *map(_policy, rules)]}
        self._undecided = {by: refused.child(site.name, by, "undecided") for by in map(_policy, rules)}

    def describe(self, sketch: Sketch) -> Description:
        """What is asked for, and of a caller who is known, what of it holds."""
        says: dict[str, Any] = {}
        if self._scope:
            says["scopes"] = ("any of " if self._any else "") + self._scope
        if self._claims:
            says["claims"] = [rule.name for rule in self._claims]
        if self._rules:
            says["policies"] = list(self._rules)
        if self._public or sketch.caller is not None:
            says["decides"] = self._decides(sketch)
        return Description(role="policy", name="authorize", says=says)

    def _decides(self, sketch: Sketch) -> list[str]:
        """What is said of a caller who is known; a refusal is noted."""
        request = sketch.request
        denied = self._lacks_scopes(request) or self._lacks_claims(request)
        told = [] if denied is None else [f"{denied.by}: {denied.detail}"]
        open_questions = []
        for name, rule in self._rules.items():
            unknown = _unknown(rule, sketch)
            if unknown:
                told.append(f"{name}: hangs on {listed(unknown)}, which is not known here")
                open_questions.append(name)
                continue
            wrong = [f"{name}: {each}" for each in _wrong(rule, request)]
            told += wrong or [f"{name}: allows it"]
            if wrong and denied is None:
                denied = Denied(_policy(name), _BY_POLICY)
        if denied is not None:
            sketch.refusal = self._refusal(denied, request.principal)
            return [*map(self._report.without_secrets, told), "refuses it"]
        unless = f", unless {listed(open_questions, 'or')} refuses it" if open_questions else ""
        return [*map(self._report.without_secrets, told), f"allows it{unless}"]

    def wrap(self, inner: Handler) -> Handler:
        """Scopes first, which are the quickest to look at; the policies last."""
        for name, rule in reversed(list(self._rules.items())):
            with_rule = self._with_function if isinstance(rule, FunctionRule) else self._with_rule
            inner = with_rule(name, rule, inner)
        if self._claims:
            inner = self._with(self._lacks_claims, inner)
        if self._any:
            inner = self._with(self._lacks_scopes, inner)
        return self._with_all_scopes(inner) if self._all else inner

    def _with_all_scopes(self, inner: Handler) -> Handler:
        wanted = self._all

        def handle(request: Request) -> Awaitable[Response]:
            principal = request.principal
            if principal is not None and wanted <= principal.scopes:
                return inner(request)
            return self._refuse(self._lacks_scopes(request) or _NOBODY, request)  # it does lack some

        return handle

    def _with(self, lacks: Callable[[Request], Denied | None], inner: Handler) -> Handler:
        def handle(request: Request) -> Awaitable[Response]:
            denied = lacks(request)
            return inner(request) if denied is None else self._refuse(denied, request)

        return handle

    def _with_rule(self, name: str, rule: Rule, inner: Handler) -> Handler:
        holds = rule.condition.holds
        denied, undecided = Denied(_policy(name), _BY_POLICY), self._undecided[_policy(name)]

        def handle(request: Request) -> Awaitable[Response]:
            try:
                if holds(request, time.time()):
                    return inner(request)
            except RequestRefused as refused:  # its query is none
                return refuse(refused, request)
            except Undecided:
                undecided.value += 1
                return refuse(self._refusal(denied, request.principal), request)
            return self._refuse(denied, request)

        return handle

    def _with_function(self, name: str, rule: FunctionRule, inner: Handler) -> Handler:
        denied, undecided = Denied(_policy(name), _BY_POLICY), self._undecided[_policy(name)]

        async def handle(request: Request) -> Response:
            try:
                if await rule.holds(request):
                    return await inner(request)
            except RequestRefused as refused:  # its query is none
                return problem(refused, request)
            except Undecided:
                undecided.value += 1
                return problem(self._refusal(denied, request.principal), request)
            return await self._refuse(denied, request)

        return handle

    def _lacks_scopes(self, request: Request) -> Denied | None:
        principal = request.principal
        if not (self._all or self._any):
            return None
        if principal is None:
            return _NOBODY
        if self._all:
            missing = sorted(self._all - principal.scopes)
            detail = f"The {_counted('scope', missing)} missing."
            return Denied("scopes", detail, self._scope) if missing else None
        if not self._any.isdisjoint(principal.scopes):
            return None
        return Denied("scopes", f"One of the scopes {listed(sorted(self._any), 'or')} is needed.", self._scope)

    def _lacks_claims(self, request: Request) -> Denied | None:
        if not self._claims:
            return None
        if request.principal is None:
            return _NOBODY
        claims = request.principal.claims
        missing = [rule.name for rule in self._claims if not rule.holds(claims)]
        detail = f"The {_counted('claim', missing)} missing, or not as needed."
        return Denied("claims", detail, self._scope) if missing else None

    def _refuse(self, denied: Denied, request: Request) -> Awaitable[Response]:
        if denied is not _NOBODY:
            self._false[denied.by].value += 1
        return refuse(self._refusal(denied, request.principal), request)

    def _refusal(self, denied: Denied, principal: Principal | None) -> RequestRefused:
        """403. A better token helps against missing scopes and claims alone (RFC 6750 §3.1)."""
        if denied is _NOBODY:
            return RequestRefused(Kinds.UNAUTHORIZED, denied.detail)
        challenge = None if principal is None else self._challenges.get(principal.scheme)
        if challenge is None or denied.by not in ("scopes", "claims"):
            return RequestRefused(Kinds.FORBIDDEN, denied.detail)
        challenge += f'{", " if "=" in challenge else " "}error="insufficient_scope"'
        if denied.scope:
            challenge += f', scope="{denied.scope}"'
        return RequestRefused(
            Kinds.FORBIDDEN, denied.detail, headers=((b"www-authenticate", challenge.encode("latin-1")),)
        )


_NOBODY = Denied("nobody", "There is no credential in the request.")  # never behind a check of who calls
_BY_POLICY = "It is not allowed to you, or not in this way."


def _unknown(rule: Rule | FunctionRule, sketch: Sketch) -> list[str]:
    """What a policy asks of a request that is not known of it."""
    if isinstance(rule, FunctionRule):
        return [f"the function {rule.reference}"]
    request, facts = sketch.request, rule.facts
    fields = [field for field in sorted(facts.fields) if not sketch.knows(request.headers.get(field.encode()))]
    client = ["client"] if "client" in facts.used and not sketch.knows(request.client) else []
    return [*client, *[f"headers['{field}']" for field in fields]]


def _wrong(rule: Rule | FunctionRule, request: Request) -> list[str]:
    """Which parts of a policy refuse a request, and why."""
    assert isinstance(rule, Rule), "what a function says is not known before"
    words = []
    for part in rule.condition.parts():
        try:
            if not part.holds(request, time.time()):
                words.append(f"not true: {part.text}")
        except Undecided as undecided:
            words.append(f"{undecided}: {part.text}")
    return words


def _policy(name: str) -> str:
    return f"policy {name}"


def _counted(what: str, names: Sequence[str]) -> str:
    return f"{what} {names[0]} is" if len(names) == 1 else f"{what}s {listed(names)} are"
