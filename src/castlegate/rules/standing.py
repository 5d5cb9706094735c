"""What checks say of an instance: how many results in a row turn it. Reads no clock, knows no socket.

unknown ──the first result──▶ well or ill      well ──so many failures in a row──▶ ill ──so many passes──▶ well
"""

from __future__ import annotations

NOT_CHECKED = "not checked yet"


class Standing:
    """Of one instance."""

    __slots__ = ("_healthy", "_row", "_unhealthy", "well", "why")

    def __init__(self, unhealthy: int, healthy: int) -> None:
        """`unhealthy`: failures in a row that make it ill, `healthy`: passes that make it well."""
        self._unhealthy = unhealthy
        self._healthy = healthy
        self._row = 0  # results that contradict it
        self.well: bool | None = None
        self.why = NOT_CHECKED
        """It is not well."""

    def note(self, failure: str) -> bool:
        """The next result, `failure` says what was wrong, nothing if it passed. Whether that has turned it."""
        passed = not failure
        if passed == self.well:
            self._row = 0
            if failure:
                self.why = failure
            return False
        self._row += 1
        if self.well is not None and self._row < (self._healthy if passed else self._unhealthy):
            return False
        self.well, self.why, self._row = passed, failure, 0
        return True
