"""Who calls: each route names the schemes of which any will do, or is open to everyone.

A credential that one scheme finds and does not accept refuses the request unless another accepts its own. Nothing is
public by omission: the configuration's check refuses a route that says neither. What was accepted is taken out of the
request, so that nothing behind this policy gets it, unless its scheme says `forward`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Any, ClassVar, NamedTuple

import msgspec

from castlegate.errors import GatewayError, Kinds, RequestRefused
from castlegate.message import Handler, Request, Response
from castlegate.policies.policy import Site, refuse
from castlegate.problem import problem
from castlegate.schemes.scheme import Scheme, Unauthenticated
from castlegate.sketch import Description, Sketch


class Access(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Who may call a route. What a route says here replaces all that `defaults` say of it."""

    one_choice: ClassVar[bool] = True

    public: bool | None = None
    """`true` opens the route to everyone. Every route must say who may call it."""
    auth: str | list[str] | None = None
    """The scheme under `auth` by which callers prove who they are, or several of which any will do."""

    @property
    def schemes(self) -> list[str]:
        """The names of `auth`."""
        return [self.auth] if isinstance(self.auth, str) else list(self.auth or ())


def authenticate(settings: Access, site: Site) -> Authenticate | None:
    """The policy, unless the route is public."""
    if settings.public:
        return None
    return Authenticate({name: site.schemes[name] for name in settings.schemes})


class Authenticate:
    """Puts the principal on the request, or answers 401."""

    def __init__(self, schemes: dict[str, Scheme]) -> None:
        self._names = list(schemes)
        self._schemes: Sequence[Scheme] = list(schemes.values())
        carriers = [scheme.carrier for scheme in self._schemes]
        self._withhold = [None if carrier is None else carrier.withholder() for carrier in carriers]

    def describe(self, sketch: Sketch) -> Description:
        """Which schemes, and who is taken to call."""
        caller = sketch.caller
        sketch.request.principal = sketch.someone(self._names[0])
        says: dict[str, Any] = {"by": self._names}
        if caller is not None and caller.scheme not in ("", *self._names):
            says["refuses"] = f"callers known by '{caller.scheme}'"
            sketch.refusal = RequestRefused(Kinds.UNAUTHORIZED, "This caller is not known to the schemes of the route.")
        elif caller is not None:
            scheme = caller.scheme or self._names[0]
            sketch.request.principal = msgspec.structs.replace(caller, scheme=scheme)
            says["accepts"] = f"{caller.subject}, by {scheme}"
        self._describe_withheld(says, sketch)
        return Description(role="policy", name="authenticate", says=says)

    def _describe_withheld(self, says: dict[str, Any], sketch: Sketch) -> None:
        """What is taken out if it is there, and the request without it."""
        principal = sketch.request.principal
        for name, scheme, withhold in zip(self._names, self._schemes, self._withhold, strict=True):
            if withhold is None or scheme.carrier is None or principal is None or principal.scheme != name:
                continue
            says["withholds"] = [f"{place}, from services" for place in scheme.carrier.places]
            fields = [field.lower().encode() for field in scheme.carrier.fields]
            withhold(sketch.request)
            sketch.request.headers = sketch.request.headers.without(*fields)

    def wrap(self, inner: Handler) -> Handler:
        """Handlers behind it find the request's principal set."""
        schemes, withhold = self._schemes, self._withhold

        def handle(request: Request) -> Awaitable[Response]:
            for number, scheme in enumerate(schemes):
                try:
                    credential = scheme.take(request)
                except Unauthenticated:
                    return self._verify(inner, request, number, None)
                if credential is not None:
                    principal = scheme.known(credential)
                    if principal is None:
                        return self._verify(inner, request, number, credential)
                    request.principal = principal
                    take_out = withhold[number]
                    if take_out is not None:
                        take_out(request)
                    return inner(request)
            return refuse(self._refusal(_NOTHING, request), request)

        return handle

    async def _verify(self, inner: Handler, request: Request, first: int, unknown: bytes | None) -> Response:
        """By the first scheme that has a credential, which it does not know yet, or those behind it; without one, by
        all from the first.
        """
        failed = _NOTHING
        for number in range(first, len(self._schemes)):
            scheme = self._schemes[number]
            asked = unknown is not None and number == first
            try:
                credential = unknown if asked else scheme.take(request)
                if credential is None:
                    continue
                known = None if asked else scheme.known(credential)
                request.principal = known or await scheme.verify(credential, request)
            except GatewayError as error:
                if failed.error is None or failed.error.kind is Kinds.UNAUTHORIZED:
                    failed = Failed(scheme, error)
            else:
                take_out = self._withhold[number]
                if take_out is not None:
                    take_out(request)
                return await inner(request)
        return problem(self._refusal(failed, request), request)

    def _refusal(self, failed: Failed, request: Request) -> GatewayError:
        """401 with a challenge for each scheme; the one whose credential was refused says why (RFC 6750 §3)."""
        error = failed.error
        if error is not None and error.kind is not Kinds.UNAUTHORIZED:
            return error
        challenges = []
        for scheme in self._schemes:
            challenge = scheme.challenge
            if challenge and scheme is failed.scheme and isinstance(error, Unauthenticated):
                separator = ", " if "=" in challenge else " "
                challenge += f'{separator}error="{error.problem}", error_description="{error.detail}"'
            if challenge and challenge not in challenges:
                challenges.append(challenge)
        detail = " ".join(self._absent(request)) if error is None else error.detail
        headers = tuple([(b"www-authenticate", challenge.encode("latin-1")) for challenge in challenges])
        return RequestRefused(Kinds.UNAUTHORIZED, detail, headers=headers)

    def _absent(self, request: Request) -> list[str]:
        """Where each scheme looked in vain."""
        told = []
        for scheme in self._schemes:
            carrier, what = scheme.carrier, scheme.credential
            told.append(f"There is no {what}." if carrier is None else carrier.absent(request, what))
        return list(dict.fromkeys(told))


class Failed(NamedTuple):
    """The last scheme that found a credential and did not accept it, or the first that could not judge its own: then
    nobody knows whether it is good, whatever the others make of theirs.
    """

    scheme: Scheme | None
    error: GatewayError | None


_NOTHING = Failed(None, None)  # no scheme has found a credential
