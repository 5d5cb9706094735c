"""Tokens that were verified before, by their SHA-256: a look-up in place of a signature, and no credential in memory.

Bounded: the half that was not asked for the longest goes when it is full. A token ends with its time, with the key
that it was verified with, and with whatever `forget` is told.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from typing import NamedTuple

from castlegate.principal import Principal
from castlegate.schemes.token_keys import Key


class Verified(NamedTuple):
    """What was found of a token."""

    principal: Principal
    until: float
    """Unix time."""
    key: Key


class VerifiedTokens:
    """See the module. A resource, so that a reload does not have all of them verified again."""

    __slots__ = ("_half", "_old", "_young")

    def __init__(self, size: int) -> None:
        self._half = -(-size // 2)
        # Changed by `get`, `put` and `forget` alone.
        self._young: dict[bytes, Verified] = {}
        self._old: dict[bytes, Verified] = {}

    async def start(self) -> None:
        """Nothing to begin."""

    async def stop(self) -> None:
        """Forget all of them."""
        self._young, self._old = {}, {}

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def get(self, token: bytes, now: float) -> Principal | None:
        """Whose it is, if that is known and still holds at this Unix time."""
        digest = sha256(token).digest()
        found = self._young.get(digest)
        if found is None:
            found = self._old.pop(digest, None)
            if found is None:
                return None
            self._keep(digest, found)
        if now < found.until and found.key.live:
            return found.principal
        self._young.pop(digest, None)
        return None

    def put(self, token: bytes, found: Verified) -> None:
        """Remember it."""
        self._keep(sha256(token).digest(), found)

    def _keep(self, digest: bytes, found: Verified) -> None:
        if len(self._young) >= self._half:
            self._old, self._young = self._young, {}
        if self._half:
            self._young[digest] = found

    def forget(self, unwanted: Callable[[Principal], bool]) -> None:
        """Have the tokens of these principals verified again before they are believed."""
        for tokens in (self._young, self._old):
            for token in [token for token, found in tokens.items() if unwanted(found.principal)]:
                del tokens[token]
