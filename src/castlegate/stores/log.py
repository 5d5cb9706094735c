"""A topic as those see it who keep something in it. `castlegate.upstreams.kafka.log` has the one of Kafka."""

from __future__ import annotations

from typing import Protocol


class Table(Protocol):
    """What is made of the records. Told in the loop; must not raise."""

    def restart(self) -> None:
        """Reading begins anew: nothing that was told holds any more."""

    def apply(self, key: bytes, value: bytes | None) -> None:
        """A record; without a value the key is deleted."""


class Log(Protocol):
    """One partition, in one order for all who read it. Deadlines are loop time."""

    @property
    def caught_up(self) -> bool:
        """Whether all that was there at the start has been read."""

    async def admit(self, deadline: float) -> None:
        """Return if records can be written now; raises `CallFailed` (not sent)."""

    def start(self, table: Table) -> None:
        """Read into a table from now on."""

    async def stop(self) -> None:
        """End; who waits is told that nothing is known."""

    async def append(self, key: bytes, value: bytes | None, deadline: float) -> int:
        """Write a record; its offset, once all in-sync replicas have it. Raises `CallFailed`."""

    async def reached(self, offset: int, deadline: float) -> None:
        """Return when the record there, and so all before it, were told to the table. Raises `CallFailed` (unknown)."""

    async def beginning(self, deadline: float) -> None:
        """Return when all that was there at the start has been read. Raises `CallFailed` (unknown)."""
