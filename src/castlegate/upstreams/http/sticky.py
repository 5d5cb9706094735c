"""Clients that stay at the instance which answered them first, by a cookie.

The cookie names an instance by a keyed hash of its address. So it says nothing of addresses, nobody can make one, and
all workers and instances of the gateway understand it without keeping anything.
"""

from __future__ import annotations

import re
from hashlib import blake2b
from typing import Any, Literal

import msgspec

from castlegate.config.report import Place
from castlegate.config.units import Seconds
from castlegate.message import Call, Caller, Reply
from castlegate.rules.balancing import Balancer
from castlegate.rules.instances import Instance, Instances

_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")  # RFC 6265 §4.1.1
_SHORTEST = 16  # characters of a secret


class Sticky(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """The cookie that keeps a client at an instance."""

    cookie: str
    """Its name."""
    secret: str
    """16 characters or more that nobody else knows, the same for all instances of the gateway: `${STICKY_SECRET}`.
    What the cookie says is made of it, so that clients can neither read nor choose where they are sent."""
    max_age: Seconds | None = None
    """How long browsers keep it; until they are closed, if nothing is said."""
    same_site: Literal["lax", "strict", "none"] = "lax"
    """Whether it goes along with requests that pages of other sites cause."""
    secure: bool = True
    """Over HTTPS only. It is never readable by scripts (`HttpOnly`)."""

    def check(self, at: Place) -> None:
        """Name, secret, and what browsers would not take."""
        if not _TOKEN.fullmatch(self.cookie):
            at.field("cookie").mistake("not a name of a cookie: letters, digits, '_' and '-' are")
        if self.cookie.startswith(("__Secure-", "__Host-")) and not self.secure:
            at.field("cookie").mistake("browsers take a cookie of this name with 'secure: true' only")
        if len(self.secret) < _SHORTEST or len(self.secret.encode()) > blake2b.MAX_KEY_SIZE:
            at.field("secret").mistake(f"expected {_SHORTEST} to {blake2b.MAX_KEY_SIZE} characters")
        if self.same_site == "none" and not self.secure:
            at.field("same_site").mistake("browsers take 'none' with 'secure: true' only")


class Stickiness:
    """A balancer and the wrapper that sets the cookie."""

    def __init__(self, settings: Sticky, service: str, instances: Instances[Any], otherwise: Balancer[Any]) -> None:
        """`otherwise` chooses where the cookie does not."""
        self._name = settings.cookie.encode()
        self._key = settings.secret.encode()
        self._service = service.encode()
        self._otherwise = otherwise
        self._instances = instances
        age = b"" if settings.max_age is None else b"; Max-Age=%d" % settings.max_age
        secure = b"; Secure" if settings.secure else b""
        self._attributes = b"; Path=/; HttpOnly; SameSite=%b%b%b" % (
            settings.same_site.capitalize().encode(), secure, age,
        )  # fmt: skip
        self._by_token: dict[bytes, Instance] = {}
        self._tokens: dict[Instance, bytes] = {}
        instances.watch(self._changed)
        self._changed()

    def choose(self, call: Call, now: float) -> Instance:
        """The one that the cookie stands for, if it may be asked."""
        token = call.request.headers.cookie(self._name)
        if token is not None:
            instance = self._by_token.get(token)
            if instance is not None and instance.available and instance not in call.tried:
                return instance
        chosen: Instance = self._otherwise.choose(call, now)
        return chosen

    def wrap(self, inner: Caller) -> Caller:
        """The caller that has clients told where they are, unless they know."""
        name, attributes = self._name, self._attributes

        async def call_and_stick(call: Call) -> Reply:
            reply = await inner(call)
            token = self._tokens.get(call.instance)  # None: it was removed meanwhile
            if token is not None and call.request.headers.cookie(name) != token:
                reply.headers = reply.headers.adding(b"set-cookie", b"%b=%b%b" % (name, token, attributes))
            return reply

        return call_and_stick

    def _changed(self) -> None:
        members = self._instances.members
        if len(members) == len(self._tokens) and all(each in self._tokens for each in members):
            return
        self._tokens = {each: self._tokens.get(each) or self._token(each.name) for each in members}
        self._by_token = {token: each for each, token in self._tokens.items()}

    def _token(self, name: str) -> bytes:
        said = b"%b\0%b" % (self._service, name.encode())
        return blake2b(said, key=self._key, digest_size=16).hexdigest().encode()
