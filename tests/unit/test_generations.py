"""What one generation leaves to the next, and what it must not."""

import asyncio
import gc
import weakref
from pathlib import Path

from castlegate.build import Generation
from castlegate.document import load
from castlegate.telemetry.metrics import Registry
from castlegate.wire.timer import Timer

CONFIG = """
listen: {{address: "127.0.0.1:0", limits: {{collected: {collected}}}}}
auth: {{idp: {{jwt: {{issuer: "https://idp.example.com", audience: api}}}}}}
services: {{users: {{http: [http://127.0.0.1:1]}}}}
defaults: {{auth: idp}}
routes: {{GET /a: {{call: users}}}}
"""


class Maker:
    """Makes generations of one worker, each after the one before."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "gateway.yaml"
        self._timer, self._registry = Timer(asyncio.get_running_loop()), Registry()

    async def make(self, previous: Generation | None, collected: str = "200MiB") -> Generation:
        """Prepared, as a reload does it."""
        self._path.write_text(CONFIG.format(collected=collected))
        loaded = load(self._path)
        timer, registry = self._timer, self._registry
        generation = Generation(loaded, instance="i", timer=timer, registry=registry, previous=previous)
        await generation.compile()
        return generation


async def test_a_generation_is_not_kept_alive_by_what_it_hands_on(tmp_path: Path) -> None:
    maker = Maker(tmp_path)
    generation = first = await maker.make(None)
    seen = weakref.ref(first)
    for _ in range(2):
        generation = await maker.make(generation)
        generation.watch()
    del first
    gc.collect()
    assert seen() is None


async def test_what_was_only_prepared_changes_no_bound(tmp_path: Path) -> None:
    maker = Maker(tmp_path)
    serving = await maker.make(None, "200MiB")
    serving.watch()
    prepared = await maker.make(serving, "20MiB")
    await prepared.retire([serving], 0.0)
    assert serving._budget.left == 200 * 1024 * 1024
    (await maker.make(serving, "30MiB")).watch()
    assert serving._budget.left == 30 * 1024 * 1024
