"""What limits count, from the supervisor's side: it makes the memory, clears up after workers, and keeps quotas."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import sqlite3
import threading
from functools import partial
from pathlib import Path

from castlegate.document import Document
from castlegate.stores.counts import Counts, Layout
from castlegate.stores.ledger import Ledger
from castlegate.telemetry.metrics import Registry
from castlegate.telemetry.stumbles import Stumbles

logger = logging.getLogger("castlegate.limits")

_EVERY = 1.0  # seconds between two writes: what a crash may forget


class Counting:
    """Of one instance. `descriptor` is handed to every worker."""

    def __init__(self, document: Document, folder: Path, workers: int, registry: Registry) -> None:
        """Raises `OSError`."""
        self._ledger = None if document.state is None else Ledger(folder / document.state)
        secret = secrets.token_bytes(16) if self._ledger is None else self._ledger.secret
        self.keys = document.limit_store.entries
        layout = Layout(self.keys, workers)
        self.descriptor = Counts.create(layout, secret)
        self._counts = Counts(layout, self.descriptor)
        self._writing = threading.Lock()  # the last write waits for one that was begun
        self._failing = False
        writes = registry.counter(
            "castlegate_quota_writes_total", "How often what is used of quotas was written, by result.", "result"
        )
        self._written, self._failed = writes.child("ok"), writes.child("error")
        held = registry.gauge("castlegate_limit_keys", "Entries of the limit store, idle ones among them.", "of")
        for name in self._counts.held():
            held.watch(partial(self._held, name), name)
        if self._ledger is not None:
            self._ledger.restore(self._counts.quotas)

    def _held(self, name: str) -> float:
        return self._counts.held()[name]

    def forget(self, worker: int) -> None:
        """What a worker held that has died: its requests have ended with it."""
        self._counts.slots.forget(worker)

    async def keep(self) -> None:
        """Write what is used of quotas, again and again."""
        loop, stumbles = asyncio.get_running_loop(), Stumbles(logger, "writing what is used of quotas")
        while self._ledger is not None:
            await asyncio.sleep(_EVERY)
            try:
                await loop.run_in_executor(None, self._save, self._ledger)
            except Exception as error:  # noqa: BLE001 - logged
                self._failed.value += 1
                stumbles.tell(error)

    def close(self) -> None:
        """The last write, when no worker is left."""
        if self._ledger is not None:
            self._save(self._ledger)
            self._ledger.close()
        self._counts.close()
        os.close(self.descriptor)

    def _save(self, ledger: Ledger) -> None:
        try:
            with self._writing:
                ledger.save(self._counts.quotas)
        except sqlite3.Error as error:
            self._failed.value += 1
            if not self._failing:
                logger.error("what is used of quotas cannot be written to %s: %s", ledger.path, error)
            self._failing = True
        else:
            self._written.value += 1
            self._failing = False
