"""A gateway between clients and a scripted Kafka service, and what must hold of it after every fault."""

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.testbeds.gateway import Gateway
from tests.testbeds.load import Load, Seen
from tests.testbeds.services import Service, start_plain
from tests.testbeds.topics import create_topics
from tests.testbeds.wire import Origin

_STEP_S = 0.02
# librdkafka connects to a broker it knows by bootstrap address and by number, and drops either when it likes.
_SPARE_CONNECTIONS = 4


class Rig:
    """A running gateway, its services and a client."""

    def __init__(self, gateway: Gateway, service: Service | None, origin: Origin, name: str) -> None:
        self.gateway = gateway
        self.service = service
        self.origin = origin
        self.name = name
        self.load = Load(gateway.port)

    async def ask(self, path: str = "/plain", replies: list[Mapping[str, Any]] | None = None, **more: Any) -> Seen:
        """A request whose body tells the service what to answer; without `replies` it answers with what it saw."""
        identity = more.setdefault("identity", os.urandom(8).hex())
        body = {"id": identity} if replies is None else {"id": identity, "replies": replies}
        return await self.load.ask(path, more.pop("body", body), fields=f"X-Request-Id: {identity}\r\n", **more)

    async def until(self, condition: Callable[[], object], what: str, timeout_s: float = 30.0) -> None:
        """Wait for something that another program brings about."""
        end = time.monotonic() + timeout_s
        while not await asyncio.to_thread(condition):
            assert self.gateway.program.running, self.gateway.program.tail()
            assert time.monotonic() < end, f"no {what} within {timeout_s:g} s\n{self.gateway.program.tail()}"
            await asyncio.sleep(_STEP_S)

    async def answered(self, path: str = "/plain", within: float = 20.0) -> float:
        """Ask until there is an answer; how long that took."""
        began = time.monotonic()
        while (seen := await self.ask(path)).outcome != "ok":
            took = time.monotonic() - began
            assert took < within, f"{seen} after {took:.1f} s\n{self.gateway.program.tail()}"
            await asyncio.sleep(_STEP_S)
        return time.monotonic() - began

    def count(self, name: str, **labels: str) -> float:
        """A metric now, 0 for one that is not there."""
        wanted = ",".join(f'{key}="{value}"' for key, value in labels.items())
        return self.gateway.metrics().get(f"castlegate_{name}{{{wanted}}}" if wanted else f"castlegate_{name}", 0.0)

    def replies(self) -> dict[str, int]:
        """Replies by kind, without those that did not come."""
        kinds = ("ok", "malformed", "late", "duplicate", "unknown", "foreign")
        counts = {kind: int(self.count("kafka_replies_total", kind=kind)) for kind in kinds}
        return {kind: count for kind, count in counts.items() if count}

    async def replies_since(self, before: Mapping[str, int], wanted: Mapping[str, int]) -> None:
        """Wait until so many of each kind, and no others, have come."""

        def news() -> dict[str, int]:
            now = self.replies()
            return {kind: more for kind in now if (more := now[kind] - before.get(kind, 0))}

        await self.until(lambda: sum(news().values()) >= sum(wanted.values()), f"replies {wanted}")
        assert news() == wanted

    def executed(self) -> dict[str, int]:
        """The service's ledger: how often it was asked, by the id in the body."""
        assert self.service is not None
        counts: dict[str, int] = {}
        for entry in self.service.handled():
            if isinstance(entry["payload"], dict) and "id" in entry["payload"]:
                counts[entry["payload"]["id"]] = counts.get(entry["payload"]["id"], 0) + 1
        return counts

    def descriptors(self) -> int:
        """Open files of the gateway's workers."""
        return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in _children(self.gateway.program.pid))

    @asynccontextmanager
    async def unharmed(self, path: str = "/plain", spare: int = _SPARE_CONNECTIONS) -> AsyncIterator[None]:
        """What holds after every fault: alive, the next request is answered, nothing is left over."""
        await self.load.__aexit__()
        pids, before = _children(self.gateway.program.pid), self.descriptors()
        yield
        seen = await self.ask(path)
        assert (seen.status, seen.took < 1) == (200, True), f"{seen}\n{self.gateway.program.tail()}"
        await self.load.__aexit__()
        await self.until(lambda: self.count("kafka_pending") == 0, "empty pending table", 5)
        await self.until(lambda: self.descriptors() <= before + spare, f"{before} open files again", 5)
        assert _children(self.gateway.program.pid) == pids, "the worker is the same"


def _children(parent: int) -> list[int]:
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            stat = Path(f"/proc/{name}/stat").read_text()
        except OSError:
            continue  # it has ended
        if int(stat.rpartition(")")[2].split()[1]) == parent:
            found.append(int(name))
    return found


def routes(name: str, origin: int, kafka: Mapping[str, Any], *, timeout: str = "10s") -> str:
    """The configuration. Topics are `NAME.script` of the service and `NAME.events`."""
    return f"""
kafka: {json.dumps({"inbox": f"{name}.replies", **kafka})}
services:
  {name}: {{kafka: {{dialect: plain, status_header: status, reply_headers: {{location: at, connection-info: ci}}}}}}
  origin: {{http: ["http://127.0.0.1:{origin}"]}}
defaults: {{public: true, timeout: {timeout}, limits: {{body: 4MiB}}}}
routes:
  POST /plain: {{call: {name}.script}}
  POST /quick: {{call: {name}.script, timeout: 500ms}}
  POST /lost: {{call: {name}.lost}}
  POST /events: {{publish: {name}.events}}
  ANY /http: {{call: origin}}
"""


@asynccontextmanager
async def gateway_for(
    bootstrap: str,
    folder: Path,
    name: str,
    *,
    kafka: Mapping[str, Any] | None = None,
    service_bootstrap: str = "",
    answer_within: str = "10s",
    ready: bool = True,
) -> AsyncIterator[Rig]:
    """A gateway and its service on topics of their own; not `ready`: nothing of the broker is needed or waited for.

    What stands as `service` in the end is ended with it.
    """
    own = service_bootstrap or bootstrap
    with Origin() as origin:
        config = routes(name, origin.port, {"bootstrap": bootstrap, **(kafka or {})}, timeout=answer_within)
        service = None
        if ready:
            await asyncio.to_thread(create_topics, own, {f"{name}.events": 4})
            service = await asyncio.to_thread(plain_service, own, folder, name)
        gateway = await asyncio.to_thread(Gateway, folder, config)
        rig = Rig(gateway, service, origin, name)
        try:
            if ready:
                await rig.until(lambda: gateway.readiness()[0] == 200, "readiness")
                await rig.answered()
            yield rig
        finally:
            await rig.load.__aexit__()
            status = await asyncio.to_thread(gateway.stop)
            if rig.service is not None:
                await asyncio.to_thread(rig.service.program.terminate)
        assert status == 0, gateway.program.tail()


def plain_service(bootstrap: str, folder: Path, name: str) -> Service:
    """The scripted service on `NAME.script`."""
    return start_plain(bootstrap, folder, {"TOPICS": f"{name}.script"})
