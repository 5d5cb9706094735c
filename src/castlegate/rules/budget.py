"""How much may be asked of a service twice: a share of what is asked of it at all. Pure.

Without one, a service that is overloaded gets a multiple of its load in repetitions, and never recovers.
"""

from __future__ import annotations


class RepeatBudget:
    """Of one service in one worker. Who calls counts itself into `active` and out again."""

    __slots__ = ("_least", "_share", "active", "repeats")

    def __init__(self, share: float, least: int) -> None:
        """`share` of the active calls (0 to 1) may be repetitions at once, but at any rate `least`."""
        self._share = share
        self._least = least
        self.active = 0  # calls under way, each once however often it is tried
        self.repeats = 0  # tries under way, or waiting for their turn, beyond the first of their call

    def take(self) -> bool:
        """Room for one more repetition, to be given back; False if there is none."""
        if self.repeats >= self._least and self.repeats + 1 > self.active * self._share:
            return False
        self.repeats += 1
        return True

    def give_back(self) -> None:
        """A repetition has ended."""
        self.repeats -= 1
