"""What is said about one call of a service."""

from __future__ import annotations

import re
from typing import Annotated, Any

import msgspec

from castlegate.calls.gathering import Gather
from castlegate.config.report import Place, listed
from castlegate.config.targets import check_prefix
from castlegate.config.units import Template, TemplateText
from castlegate.message import ReplyMode

VERBS = ("get", "post", "put", "patch", "delete")

_FIELD_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_NOT_TO_SET = {
    "connection",
    "content-length",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
}


class HeaderRules(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Fields set (a template) or removed (null)."""

    request: dict[str, TemplateText | None] = {}
    """On the way to the service."""
    response: dict[str, TemplateText | None] = {}
    """On the way to the client."""

    def check(self, at: Place) -> None:
        """The names of the fields."""
        for way, fields in (("request", self.request), ("response", self.response)):
            seen: set[str] = set()
            for name in fields:
                place = at.field(way, name)
                if not _FIELD_NAME.fullmatch(name):
                    place.mistake("not a name of a header field")
                elif name.lower() in _NOT_TO_SET:
                    place.mistake(f"'{name}' belongs to the connection and is set by the gateway itself")
                elif name.lower() == "host" and way == "request":
                    place.mistake("say it with 'host' of the service")
                elif name.lower() in seen:
                    place.mistake("the same field is here a second time, in other letters")
                seen.add(name.lower())


class CallSettings(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """One call of a service."""

    call: str | None = None
    """`service`, or `service.operation` of one behind Kafka; or a function in Python, `python:package.module:function`,
    of a module beside the configuration file."""
    get: TemplateText | None = None
    """Path template of a GET to an HTTP service, in place of the client's own method and path."""
    post: TemplateText | None = None
    """The same for POST."""
    put: TemplateText | None = None
    """The same for PUT."""
    patch: TemplateText | None = None
    """The same for PATCH."""
    delete: TemplateText | None = None
    """The same for DELETE."""
    strip_prefix: str | None = None
    """Taken off the front of the client's path before it is forwarded."""
    add_prefix: str | None = None
    """Put before the path that is forwarded."""
    send: Annotated[Any, Template()] = msgspec.UNSET
    """What the service gets as JSON: any value with references in it. Without it the client's body goes as it is."""
    key: TemplateText | None = None
    """Record key for a Kafka service: a template."""
    headers: HeaderRules = HeaderRules()
    """Fields set and removed on the way."""
    status: Annotated[int, msgspec.Meta(ge=200, le=299)] | None = None
    """Status of a success that names none itself, from a Kafka service or a function."""
    reply: ReplyMode | None = None
    """What is made of several values from a NestJS service (an observable): the `last` one, as if nothing is said;
    `all` of them as a JSON array; or a `stream` of lines of JSON (`application/x-ndjson`), each sent as it comes."""

    gather: Gather | None = None
    """How the answers of several services or groups behind Kafka to this one message are put together."""

    @property
    def verb(self) -> str | None:
        """Which of `get`, `post`, ... is said."""
        return next((verb for verb in VERBS if getattr(self, verb) is not None), None)

    def check(self, at: Place) -> None:
        """What excludes one another."""
        said = [verb for verb in VERBS if getattr(self, verb) is not None]
        for verb in said[1:]:
            at.field(verb).mistake(f"only one of {listed(VERBS, 'or')} can be said")
        for name in ("strip_prefix", "add_prefix"):
            prefix = getattr(self, name)
            if prefix is None:
                continue
            if said:
                at.field(name).mistake(f"'{said[0]}' says the whole path; leave out one of the two")
            check_prefix(prefix, at.field(name))
        if self.gather is not None and self.reply is not None:
            at.field("reply").mistake("'gather' says what is made of several replies; leave out one of the two")
        if said[:1] == ["get"] and self.send is not msgspec.UNSET:
            at.field("send").mistake("a GET carries no body; use 'post', 'put' or 'patch', or the path's query")
