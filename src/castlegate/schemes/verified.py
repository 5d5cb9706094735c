"""Tokens that were verified before, by their SHA-256: a look-up in place of a signature, and no credential in memory.

Bounded: what was not asked for the longest goes. A token ends with its time, and with the key that it was verified
with.
"""

from __future__ import annotations

from hashlib import sha256
from typing import NamedTuple

from castlegate.principal import Principal
from castlegate.rules.remembered import Remembered
from castlegate.schemes.token_keys import Key


class Verified(NamedTuple):
    """What was found of a token."""

    principal: Principal
    key: Key


class VerifiedTokens:
    """See the module. A resource, so that a reload does not have all of them verified again."""

    __slots__ = ("_known", "_size")

    def __init__(self, size: int) -> None:
        self._size = size
        # Changed by `get` and `put` alone.
        self._known: Remembered[bytes, Verified] = Remembered(size)

    async def start(self) -> None:
        """Nothing to begin."""

    async def stop(self) -> None:
        """Forget all of them."""
        self._known.clear()

    def __len__(self) -> int:
        return len(self._known)

    def get(self, token: bytes, now: float) -> Principal | None:
        """Whose it is, if that is known and still holds at this Unix time."""
        if not self._size:
            return None
        digest = sha256(token).digest()
        found = self._known.get(digest)
        if found is None:
            return None
        if now < found.principal.expires and found.key.live:
            return found.principal
        self._known.drop(digest)
        return None

    def put(self, token: bytes, found: Verified) -> None:
        """Remember it."""
        if self._size:
            self._known.put(sha256(token).digest(), found)
