"""Families of refresh tokens: what one login began, and which token of it is good.

A refresh token is two secrets of 256 bits. The first is the family's and stays; the second is new in each token. Only
hashes of them are kept: the family is called by that of its first secret, and remembers that of the second one which is
good. So an old token is told from an invented one, although nothing is kept of old tokens: whoever knows the first
secret had a token of the family once.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from base64 import urlsafe_b64decode
from typing import NamedTuple, Protocol

import msgspec

from castlegate.errors import CallFailed, Kinds, Outcome
from castlegate.issuer.keys import b64

_SECRET = 32  # bytes
_TOKEN = re.compile(r"[A-Za-z0-9_-]{85}[AQgw]")  # 64 bytes in base64url, the last character without spare bits


class Granted(msgspec.Struct, frozen=True, gc=False):
    """What a login was granted."""

    subject: str
    scopes: str
    """With spaces between."""
    claims: msgspec.Raw
    """An object, as JSON."""
    until: float
    """Unix time at which refreshing ends, whatever is done."""


class Family(msgspec.Struct, frozen=True, gc=False):
    """A family after its latest use."""

    granted: Granted
    current: str
    """Hash of the token that is good."""
    until: float
    """Unix time at which that one ends."""
    used: float
    """Unix time of the use that gave it."""
    replaces: str = ""
    """Hash of the token that was used; nothing at the login."""
    former: str = ""
    """Hash of one that is taken once more if its answer was lost,"""
    grace: float = 0.0
    """until this Unix time."""

    def takes(self, token: str, now: float) -> bool:
        """Whether a token can be used at this Unix time."""
        return now < self.until and (token == self.current or (token == self.former and now < self.grace))


class Bounds(NamedTuple):
    """In seconds."""

    idle: float
    lifetime: float
    grace: float
    access: float
    """That an access token outlives the refresh token that came with it."""


class Room(NamedTuple):
    """For how many families."""

    most: int
    per_subject: int
    """With one more, the one goes that was not used for the longest."""


class RefreshToken(NamedTuple):
    """A refresh token."""

    text: str
    family: str
    """Hash of the family's secret."""
    own: str
    """Hash of its own."""


def new_token(of: RefreshToken | None = None) -> RefreshToken:
    """One of a new family, or the next of a family."""
    first = secrets.token_bytes(_SECRET) if of is None else urlsafe_b64decode(of.text + "==")[:_SECRET]
    return _token(first + secrets.token_bytes(_SECRET))


def read_token(text: str) -> RefreshToken | None:
    """The token of a request; None for what is none."""
    return _token(urlsafe_b64decode(text + "==")) if _TOKEN.fullmatch(text) else None


def _token(both: bytes) -> RefreshToken:
    return RefreshToken(b64(both), _hash(both[:_SECRET]), _hash(both[_SECRET:]))


def _hash(secret: bytes) -> str:
    return b64(hashlib.sha256(secret).digest())


def begun(granted: Granted, token: RefreshToken, now: float, bounds: Bounds) -> Family:
    """What a login begins."""
    return Family(granted, token.own, min(now + bounds.idle, granted.until), now)


def used(family: Family, token: RefreshToken, following: RefreshToken, now: float, bounds: Bounds) -> Family:
    """What the family is after `token` was used for `following`."""
    # A token that comes once more within its grace does not prolong it.
    again = token.own != family.current
    return Family(
        family.granted,
        following.own,
        min(now + bounds.idle, family.granted.until),
        now,
        token.own,
        token.own if bounds.grace else "",
        family.grace if again else now + bounds.grace,
    )


class Families(Protocol):
    """Where they are kept. A resource. What is written is there for all who share it before any of these returns.

    All raise `CallFailed`: `not_sent` where nothing was written, `unknown` where something may have been.
    """

    @property
    def problem(self) -> str:
        """Why tokens cannot be refreshed now, for operators; nothing if they can."""

    async def check(self, deadline: float) -> None:
        """Raise if no login can begin now."""

    async def begin(self, token: RefreshToken, granted: Granted, deadline: float) -> None:
        """Begin a family."""

    async def use(self, token: RefreshToken, following: RefreshToken, deadline: float) -> Granted | None:
        """Have `following` take the place of `token`; None where it was not good: then there is no such family any
        more, whoever else has a token of it.
        """

    async def end(self, token: RefreshToken, deadline: float) -> None:
        """End the family, if there is one."""

    def holds(self, family: str) -> bool:
        """See `castlegate.means.Logins`."""

    async def lasts(self, family: str, deadline: float) -> bool:
        """See `castlegate.means.Logins`."""

    async def start(self) -> None:
        """Begin."""

    async def stop(self) -> None:
        """End what it runs, close what it holds."""


def full() -> CallFailed:
    """There are as many as there may be."""
    return CallFailed(Kinds.NOT_KEPT, Outcome.NOT_SENT, "There are too many logins under way.")
