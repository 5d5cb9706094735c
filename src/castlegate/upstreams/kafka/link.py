"""Whether brokers answer, as far as looks at them and broken connections tell. No I/O, no clock: `now` is passed in.

    starting ──look──▶ up ──all connections broke──▶ suspect ──look──▶ up or down
        └──look fails──▶ down ──look──▶ up

Looks that fail out of the blue, while all connections stand, make the link suspect only after a while: brokers that
stall for some seconds lose nothing, since records wait in the producers for as long as somebody waits for the answer.
"""

from __future__ import annotations

from enum import Enum

_SILENCE_S = 3.0  # how long looks may fail with all connections standing: the first has waited for 2 s before


class Link(Enum):
    """Whether brokers answer."""

    STARTING = "starting"
    UP = "up"
    SUSPECT = "suspect"  # connections broke: the next look tells
    DOWN = "down"


class Brokers:
    """Those of one cluster."""

    __slots__ = ("_silent_since", "link", "reason")

    def __init__(self) -> None:
        # Mutable, changed by the methods below alone.
        self.link = Link.STARTING
        self.reason = "no broker has answered yet"  # why requests cannot be answered, where they cannot
        self._silent_since: float | None = None

    def broke(self) -> bool:
        """All connections of a client broke: brokers are down, or the connections were idle. Whether that is news."""
        if self.link is not Link.UP:
            return False
        self.link = Link.SUSPECT
        return True

    def answered(self, *, lately: bool) -> bool:
        """A look succeeded; `lately`: it was begun since the last suspicion. Whether they had been given up before."""
        self._silent_since = None
        if not lately:
            return False
        before, self.link = self.link, Link.UP
        return before is Link.DOWN

    def silent(self, reason: str, now: float) -> bool:
        """A look failed. Whether they are given up with that."""
        self.reason = reason
        if self.link is Link.UP:
            if self._silent_since is None:
                self._silent_since = now
            if now - self._silent_since >= _SILENCE_S:
                self.link = Link.SUSPECT
            return False
        before, self.link = self.link, Link.DOWN
        return before is not Link.DOWN

    def unusable(self, reason: str) -> None:
        """There is no client to ask them with."""
        self.reason = reason
