"""What is said of a route that is made of several calls, and of each of its parts."""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar

import msgspec

from castlegate.calls.settings import CallSettings
from castlegate.composition.reshaping import compiled
from castlegate.config.report import Place
from castlegate.config.units import ExpressionText, Seconds, Size, Template
from castlegate.expressions.syntax import Unreadable
from castlegate.guards.hedge import HedgeSettings
from castlegate.guards.retry import Retries

MOST_PARTS = 64
DEFAULT_ANSWER = 1024 * 1024  # bytes of a part's answer

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_FIELD = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_OURS = ("castlegate-parts", "cache-control", "content-encoding", "content-length", "content-type", "vary")


class Each(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A part that is called for each element of a list. A plain reference stands for `of` alone."""

    short: ClassVar[str] = "of"

    of: ExpressionText
    """The list: a reference to what another part answered or the client sent, such as `{orders[].sku}`. Equal elements
    are asked for once. In the part's templates `{each}` is the element, `{each.sku}` what is in it."""
    most: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 100
    """Different elements that there may be; with more of them the part fails."""
    concurrency: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 8
    """Calls under way at once."""
    join: str | None = None
    """Where the results go: into the elements, which must be objects, as a member of this name. Without it the part is
    a list of results in the order of the elements."""


class Batch(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """How many elements go in one call. A plain text stands for `by` alone; `{}` where the answer is a list in the
    order of what was asked for.
    """

    short: ClassVar[str] = "by"

    by: str | None = None
    """The member of each item of the answer that says which element it is for. An answer that is an object has its
    items under the elements' names instead. An element without an item gets `null`."""
    within: str | None = None
    """Where in the answer its items are, such as `data.items`; else it is all of it."""
    size: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 1000
    """Elements in one call; more of them go in several. In the part's templates `{each}` is the list of these."""


class ShapeSettings(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """An answer in another shape. A plain text stands for `expression` alone."""

    short: ClassVar[str] = "expression"

    expression: ExpressionText
    """In JMESPath, at most 4,096 characters."""
    most: Size = 256 * 1024
    """Bytes that may be reshaped: it takes time by their number, in which nobody else is served. With more of them the
    part fails."""

    def check(self, at: Place) -> None:
        """The expression."""
        try:
            compiled(self.expression)
        except Unreadable as wrong:
            at.field("expression").inside(wrong.offset).mistake(wrong.text)


class FallbackCall(CallSettings, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Another call, made where the part's own fails."""

    timeout: Seconds | None = None
    """How long it may take, within the time that the route has; that of the part if nothing is said."""


class PartSettings(CallSettings, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """One part of a composition: a call, or a `value`. Its templates may refer to other parts by their names:
    `{user.id}`, `{orders[].sku}`; it begins as soon as those have answered.
    """

    value: Annotated[Any, Template()] = msgspec.UNSET
    """A constant, or what is made of other parts, in place of a call."""
    timeout: Seconds | None = None
    """How long the part may take, within the time that the route has."""
    retry: Retries | None = None
    """When its call is tried again, within its `timeout`; else as the service says."""
    hedge: HedgeSettings | None = None
    """When another instance is asked as well, because no answer has come; else as the service says."""
    optional: bool = False
    """`true`: where it fails, its place has `null`, and the rest is answered. Otherwise the route fails with it."""
    fallback: Annotated[Any, Template()] = msgspec.UNSET
    """What stands in its place where it fails."""
    fallback_call: FallbackCall | None = None
    """The call that is made where its own fails; before `fallback`, if that is said too."""
    when: ExpressionText | None = None
    """A condition in CEL over what policies know of a request, and the parts by their names. Unless it is true the part
    is left out, and so are those that need it."""
    each: Each | None = None
    """Called for each element of a list."""
    batch: Batch | None = None
    """For `each`: several elements in one call."""
    pick: list[str] | None = None
    """The members that are passed on, such as `name` or `address.city`, of an object or of each in a list. Other parts
    see all of them."""
    drop: list[str] = msgspec.field(default_factory=list)
    """Members that are not passed on."""
    rename: dict[str, str] = msgspec.field(default_factory=dict)
    """Members under other names: old to new."""
    shape: ShapeSettings | None = None
    """What is passed on, said in JMESPath; after `pick`, `drop` and `rename`."""
    merge: bool = False
    """`true`: the members of its answer, an object, stand in the answer itself, not under the part's name. Of several
    with the same name the one of the part that is written last stands."""
    hidden: bool = False
    """`true`: it is for other parts, and not passed on."""
    limit: Size = DEFAULT_ANSWER
    """Bytes of its answer, of `each` of all of them together; with more of them it fails."""
    pass_status: list[Annotated[int, msgspec.Meta(ge=400, le=499)]] = msgspec.field(default_factory=list)
    """Statuses of the service with which the route itself is answered, with what the service says."""
    pass_headers: list[str] = msgspec.field(default_factory=list)
    """Fields of the service's answer that the client gets, such as `set-cookie`."""

    def check(self, at: Place) -> None:
        """What excludes one another."""
        CallSettings.check(self, at)
        if self.call is not None and self.value is not msgspec.UNSET:
            at.mistake("both 'call' and 'value' are said; a part is one of them")
        elif self.call is None and self.value is msgspec.UNSET:
            if not (at.field("call").spoilt or at.field("value").spoilt):
                at.mistake("neither 'call' nor 'value' is said; a part is one of them")
        elif self.call is None:
            self._check_value(at)
        if self.reply == "stream":
            at.field("reply").mistake("a part is answered as a whole; say 'all' for a list of the values")
        if self.headers.response:
            at.field("headers", "response").mistake(
                "say 'pass_headers' here, or set fields of the route's answer there"
            )
        if self.batch is not None and self.each is None:
            at.field("batch").mistake("goes with 'each'")
        if self.each is not None and self.fallback_call is not None:
            at.field("fallback_call").mistake("'each' marks what fails; say 'fallback' for where all of it does")
        if self.merge and self.each is not None:
            at.field("merge").mistake("'each' gives a list, which has no members to merge")
        if self.merge and self.fallback is not msgspec.UNSET and not isinstance(self.fallback, dict):
            at.field("fallback").mistake("expected an object, whose members are merged")
        if self.hidden and self.merge:
            at.field("merge").mistake("the part is hidden; leave out one of the two")
        forgiving = self.optional or self.fallback is not msgspec.UNSET or self.fallback_call is not None
        if self.pass_status and (forgiving or self.each is not None):
            reason = "'each' marks what fails" if self.each is not None else "the part may fail without the route"
            at.field("pass_status").mistake(f"never used: {reason}")
        for index, name in enumerate(self.pass_headers):
            place = at.field("pass_headers", index)
            if not _FIELD.fullmatch(name):
                place.mistake("not a name of a header field")
            elif name.lower() in _OURS:
                place.mistake(f"'{name}' is written by the gateway")
        if self.pass_headers and self.each is not None:
            at.field("pass_headers").mistake("never used: 'each' has many answers")

    def _check_value(self, at: Place) -> None:
        of_calls = (
            "get", "post", "put", "patch", "delete", "strip_prefix", "add_prefix", "key", "status", "reply", "timeout",
            "each", "fallback_call",
        )  # fmt: skip
        for name in of_calls:
            if getattr(self, name) is not None:
                at.field(name).mistake("goes with 'call', not with 'value'")
        for name in ("pass_status", "pass_headers"):
            if getattr(self, name):
                at.field(name).mistake("goes with 'call', not with 'value'")
        if self.send is not msgspec.UNSET:
            at.field("send").mistake("goes with 'call', not with 'value'")


class ComposeSettings(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """An answer made of several."""

    compose: dict[str, PartSettings] | None = None
    """The parts by name, at most 64; in the answer each stands under its name, in this order."""
    shape: ShapeSettings | None = None
    """The answer of `compose` in another shape."""
    server_timing: bool | None = None
    """`true` adds `Server-Timing` to the answer of `compose`: how long each part took."""

    @property
    def composed(self) -> list[CallSettings]:
        """The calls of its parts."""
        parts = list((self.compose or {}).values())
        calls = [*parts, *[part.fallback_call for part in parts if part.fallback_call is not None]]
        return [call for call in calls if call.call is not None]

    def check(self, at: Place) -> None:
        """Names of parts."""
        if self.compose is None:
            return
        place = at.field("compose")
        if not self.compose and not place.spoilt:
            place.mistake("there are no parts; one looks like 'user: {call: users, get: /users/1}'")
        if len(self.compose) > MOST_PARTS:
            place.mistake(f"expected at most {MOST_PARTS} parts, found {len(self.compose)}")
        for name in self.compose:
            if not _NAME.fullmatch(name):
                place.field(name).mistake("a part's name has letters, digits and '_', and begins with a letter")
