"""Credentials of any kind, judged by a service of the configuration, whichever way it is reached.

It is sent the credential and answers with whose it is, or refuses: as it would be called by a route. Where it fails,
is late or makes no sense, nobody is let in.
"""

from __future__ import annotations

import re
import time
from typing import Annotated, Any

import msgspec

from castlegate.calls.plan import CallPlan
from castlegate.calls.settings import VERBS, CallSettings, HeaderRules
from castlegate.config.references import Fetch, Scope
from castlegate.config.report import Place, Report
from castlegate.config.units import Count, Seconds, Template, TemplateText
from castlegate.errors import CallFailed, Outcome, RequestRefused
from castlegate.headers import Headers
from castlegate.means import Means
from castlegate.message import Reply, Request
from castlegate.principal import Principal
from castlegate.rules.freshness import max_age
from castlegate.schemes.answers import Accepted, AnswerCache, Nonsense, Verdict, kept_answers
from castlegate.schemes.carrier import Carrier, challenge
from castlegate.schemes.scheme import Unauthenticated
from castlegate.schemes.verdict import LARGEST, REFUSAL, read_answer

_CREDENTIAL = re.compile(rb"[\x20-\x7e]{1,8192}")
_REFUSING = (401, 403)
_NO_HEADERS = Headers()


class CredentialRoot:
    """`{credential}`: the only thing that a question is made of, since its answer is kept for it."""

    needs_body = False

    def __init__(self) -> None:
        self.used = False

    def bind(self, name: str, every: bool, at: Place) -> Fetch | None:
        """Always there."""
        if name or every:
            at.mistake("a credential is text without parts; write '{credential}'")
            return None
        self.used = True
        return lambda request, _parts: request.params["credential"]

    def rest(self, name: str) -> None:
        """Never."""


class Authorizer(Carrier, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A service that is sent the credential and says whose it is. Without another place being said, the credential is a
    bearer token in `Authorization`.

    It answers with JSON: `subject`; if it likes `scopes` (a list, or text with spaces between), `claims` (an object;
    without it, all that the answer says besides), and how long it may be kept: `ttl` in seconds, `exp` in Unix time,
    or over HTTP `Cache-Control`. The names of RFC 7662 (`sub`, `scope`) will do too. It refuses by status 401 or 403,
    as over HTTP or with an `RpcException`, by `{"active": false}`, or by `null`. Whatever else comes of it is answered
    503.
    """

    call: str
    """`service`, or `service.operation` of one behind Kafka."""
    get: TemplateText | None = None
    """Path of a GET to an HTTP service: a template."""
    post: TemplateText | None = None
    """The same for POST."""
    put: TemplateText | None = None
    """The same for PUT."""
    patch: TemplateText | None = None
    """The same for PATCH."""
    send: Annotated[Any, Template()] = msgspec.UNSET
    """What the service gets as JSON: any value with `{credential}` in it, the only reference there is.
    `{token: "{credential}"}` if nothing is said, but with `get`."""
    key: TemplateText | None = None
    """Record key for a Kafka service: a template."""
    headers: HeaderRules = HeaderRules()
    """Fields sent along (`request`)."""
    timeout: Seconds = 2.0
    """For each question. The request's own deadline bounds the wait too."""
    cache: AnswerCache = AnswerCache()
    """How long answers are believed."""
    questions: Count = 256
    """Credentials that the instance may ask about at once; requests with further ones are answered 503."""

    @property
    def calls(self) -> CallSettings:
        """The call that a question is."""
        send = self.send
        if send is msgspec.UNSET and self.get is None:
            send = {"token": "{credential}"}
        verbs = {verb: getattr(self, verb) for verb in VERBS if verb != "delete"}
        return CallSettings(call=self.call, send=send, key=self.key, headers=self.headers, **verbs)

    def plan(self, at: Place) -> tuple[CallPlan, CredentialRoot]:
        """How a question is made of a credential; mistakes are reported to `at`."""
        root, calls = CredentialRoot(), self.calls
        over_http = calls.verb is not None
        return CallPlan(calls, self.timeout, Scope({"credential": root}), at, carries_fields=over_http), root

    @property
    def carrier(self) -> Carrier:
        """Where the credential stands."""
        return self if self.said else Carrier(authorization="Bearer", forward=self.forward)

    def check(self, at: Place) -> None:
        """What makes it a question."""
        Carrier.check(self, at)
        self.calls.check(at)
        before = len(at.report.mistakes)
        _, root = self.plan(at)
        sound = len(at.report.mistakes) == before
        if self.headers.response:
            at.field("headers", "response").mistake("its answer goes to no client; only 'request' can be said")
        spoilt = any(at.field(name).spoilt for name in (*VERBS, "send", "headers", "key"))
        if sound and not root.used and not spoilt:
            hint = 'headers: {request: {authorization: "Bearer {credential}"}}'
            at.mistake(f"the service is not told the credential: '{{credential}}' stands nowhere; write '{hint}'")


class AuthorizerScheme:
    """See `castlegate.schemes.scheme.Scheme`."""

    credential = "credential"

    def __init__(self, name: str, settings: Authorizer, means: Means) -> None:
        self._name = name
        self.carrier = place = settings.carrier
        self.ambient = place.ambient
        self.challenge = challenge(place.authorization or "Bearer", name)
        self.take = place.taker()
        self._timeout = settings.timeout
        self._now = means.timer.now
        self._call = means.caller(settings.call)
        self._over_http = settings.calls.verb is not None
        self._plan, _ = settings.plan(Report(means.folder).place("auth", name, "authorizer"))
        # Of this name and these settings, whatever became of the service: a reload does not have all ask again.
        self._answers = kept_answers(f"authorizer of {name}", name, settings, means)
        self.known = self._answers.known

    async def verify(self, credential: bytes, request: Request) -> Principal:
        """Whose it is, as the service says."""
        if _CREDENTIAL.fullmatch(credential) is None:
            raise Unauthenticated("The credential is malformed.")
        return await self._answers.ask(credential, request, lambda: self._question(credential, request))

    async def _question(self, credential: bytes, request: Request) -> Verdict:
        now = self._now()
        # Nothing of the request that came first but its id and trace: the answer is for all that have the credential.
        asking = Request(request.id, request.trace, "-", b"https", b"", b"POST", b"/", b"", _NO_HEADERS, b"", now)
        asking.deadline = now + self._timeout
        asking.params = {"credential": credential.decode("ascii")}
        try:
            call = self._plan.make(asking)
        except RequestRefused:
            return REFUSAL  # it has no place where the configuration puts it, such as '..' in a path
        call.idempotent = True  # a question may be asked twice
        try:
            reply = await self._call(call)
        except CallFailed as failed:
            if failed.status in _REFUSING and failed.outcome is Outcome.ANSWERED:
                return REFUSAL
            raise
        body = await reply.content(LARGEST, asking.deadline, self._now)
        if reply.status in _REFUSING:
            return REFUSAL
        if not 200 <= reply.status <= 299:
            raise Nonsense(f"the authorizer answers with status {reply.status}")
        if body is None:
            raise Nonsense(f"the answer is larger than {LARGEST} bytes")
        if not body and not self._over_http:
            return REFUSAL  # what a handler that returns nothing comes to
        return _bounded(read_answer(body, self._name, time.time()), reply)


def _bounded(verdict: Verdict, reply: Reply) -> Verdict:
    """Kept no longer than the answer's fields allow (RFC 9111 §5.2.2)."""
    age = max_age(reply.headers.get(b"cache-control"))
    if age is None or not isinstance(verdict, Accepted):
        return verdict
    return verdict._replace(keep=age if verdict.keep is None else min(age, verdict.keep))
