"""What every way to prove who one is has in common.

A scheme finds its credential in a request and makes a `Principal` of it. It says of a credential either that it is not
there, or whose it is, or that it is not acceptable: nothing in between, and nothing that opens by mistake.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from castlegate.errors import Kind, Kinds, RequestRefused
from castlegate.message import Request
from castlegate.principal import Principal

if TYPE_CHECKING:
    from castlegate.schemes.carrier import Carrier


class Unauthenticated(RequestRefused):
    """A credential that is not accepted. `problem` is for the client (RFC 6750 §3.1: `invalid_token`, ...), `detail`
    says what is wrong without repeating any of the credential. Another kind than 401 where nothing can be judged (503).
    """

    def __init__(self, detail: str, problem: str = "invalid_token", kind: Kind = Kinds.UNAUTHORIZED) -> None:
        super().__init__(kind, detail)
        self.problem = problem


class Scheme(Protocol):
    """One entry of `auth`."""

    @property
    def challenge(self) -> str:
        """How clients are told to authenticate: a scheme name of HTTP and its parameters (RFC 9110 §11.6.1), such as
        `Bearer realm="api"`. Empty where it is not said in HTTP, as with client certificates.
        """

    @property
    def carrier(self) -> Carrier | None:
        """Where in a request the credential stands; None if it is in no part of it."""

    @property
    def credential(self) -> str:
        """What it is, in words for clients: `token`."""

    @property
    def ambient(self) -> bool:
        """Whether browsers send the credential by themselves (cookies): such requests need a check of their origin."""

    def take(self, request: Request) -> bytes | None:
        """The credential as it stands in the request; None if there is none for this scheme. Raises `Unauthenticated`
        where it cannot be told which one is meant.
        """

    def known(self, credential: bytes) -> Principal | None:
        """Whose it is, if it was verified before and still holds. Does no I/O: this is the way of most requests."""

    async def verify(self, credential: bytes, request: Request) -> Principal:
        """Whose it is. Raises `Unauthenticated`."""
