"""U5, and what else befalls the instances of a service: they are killed, frozen, slowed, reset and broken under load.

Four real programs behind a gateway of two workers. After each fault clients see no failure any more, and after its end
the instance is called again, without a restart of anything.
"""

import asyncio
import json
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from tests.testbeds.gateway import Gateway
from tests.testbeds.load import LOST, Load, Seen
from tests.testbeds.processes import Program, free_port

SERVICE = Path(__file__).parents[1] / "services" / "instance.py"
CHECKED = "health: {path: /healthz, interval: 100ms, timeout: 300ms, unhealthy: 2}, "
PASSIVE = "ejection: {time: 500ms, longest: 1s}, "
CLIENTS = 12


class Service:
    """The instances; each can be started again where it was."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.ports = [free_port() for _ in range(4)]
        self.programs: list[Program] = []
        for number in range(4):
            self.programs.append(self._started(number))

    def restart(self, number: int) -> None:
        self.programs[number] = self._started(number)

    def be(self, number: int, mode: str) -> None:
        request = urllib.request.Request(f"http://127.0.0.1:{self.ports[number]}/be/{mode}", method="POST")
        urllib.request.urlopen(request, timeout=5).close()

    def name(self, number: int) -> str:
        return f"127.0.0.1:{self.ports[number]}"

    def end(self) -> None:
        for program in self.programs:
            program.kill()

    def _started(self, number: int) -> Program:
        command = [sys.executable, str(SERVICE), str(self.ports[number]), str(number)]
        program = Program(command, name=f"instance {number}", log=self._folder / f"{number}.log")
        program.wait_for_line("listens")
        return program


class Bed:
    """Clients, gateway and service."""

    def __init__(self, gateway: Gateway, service: Service) -> None:
        self.gateway = gateway
        self.service = service
        self.seen: list[Seen] = []
        self._stop = asyncio.Event()
        self._stop.set()
        self._clients: list[asyncio.Task[None]] = []

    def begin(self, method: str = "GET") -> None:
        """Clients ask, one request after another, until `end`."""
        self._stop.clear()
        self._clients = [asyncio.create_task(self._ask(method)) for _ in range(CLIENTS)]

    async def end(self) -> Counter[str]:
        """How all requests since `begin` ended: by who answered, or why nobody did."""
        self._stop.set()
        await asyncio.gather(*self._clients)
        seen, self.seen = self.seen, []
        assert not [each for each in seen if each.outcome == LOST]
        return Counter(each.body.decode() if each.status == 200 else f"{each.status} {each.outcome}" for each in seen)

    async def more(self, count: int = 200) -> list[Seen]:
        """The requests of a while from now on: each begins after this is called."""
        began = time.monotonic()
        await self.until(lambda: sum(each.began >= began for each in list(self.seen)) >= count)
        return [each for each in self.seen if each.began >= began]

    async def until(self, condition: Callable[[], object], timeout_s: float = 20.0) -> None:
        end = time.monotonic() + timeout_s
        while not await asyncio.to_thread(condition):
            assert self.gateway.program.running, self.gateway.program.tail()
            assert time.monotonic() < end, self.gateway.program.tail()
            await asyncio.sleep(0.02)

    def state(self, number: int) -> str:
        """What the admin port says of an instance."""
        state: str = self.gateway.instances("service")[self.service.name(number)]["state"]
        return state

    async def no_failures(self, without: int) -> None:
        """Nobody sees that an instance is out."""
        assert {each.status for each in await self.more()} == {200}
        assert str(without) not in {each.body.decode() for each in await self.more()}

    async def all_answer(self) -> None:
        """Every instance is called again, and well."""
        await self.until(lambda: all(self.state(number) == "in" for number in range(4)))
        await self.until(lambda: {each.body for each in self.seen[-200:]} == {b"0", b"1", b"2", b"3"})
        assert {each.status for each in await self.more()} == {200}

    async def _ask(self, method: str) -> None:
        async with Load(self.gateway.port) as load:
            while not self._stop.is_set():
                self.seen.append(await load.ask("/x", method=method))


@asynccontextmanager
async def bed(folder: Path, more: str) -> AsyncIterator[Bed]:
    async with AsyncExitStack() as stack:
        service = await asyncio.to_thread(Service, folder)
        stack.callback(service.end)
        urls = json.dumps([f"http://127.0.0.1:{port}" for port in service.ports])
        text = f"""
workers: 2
services: {{service: {{http: {{instances: {urls}, pool: {{connect_timeout: 300ms}}}}, {more}}}}}
defaults: {{public: true, timeout: 1s}}
routes: {{ANY /x: {{call: service}}}}
"""
        gateway = await asyncio.to_thread(Gateway, folder, text)
        running = Bed(gateway, service)
        try:
            yield running
        finally:
            if not running._stop.is_set():
                await running.end()
            status = await asyncio.to_thread(gateway.stop)
        assert status == 0, gateway.program.tail()
        assert "Traceback" not in "\n".join(gateway.program.lines)


@pytest.mark.parametrize("care", [CHECKED + PASSIVE, PASSIVE, CHECKED + "ejection: off"])
async def test_an_instance_that_is_killed_costs_no_get(tmp_path: Path, care: str) -> None:
    async with bed(tmp_path, care) as it:
        it.begin()
        await it.more()
        await asyncio.to_thread(it.service.programs[1].kill)
        await it.until(lambda: it.state(1) == "out")
        await it.no_failures(without=1)
        await asyncio.to_thread(it.service.restart, 1)
        await it.all_answer()
        assert set(await it.end()) == {"0", "1", "2", "3"}


async def test_of_posts_only_those_that_it_may_have_executed_are_lost(tmp_path: Path) -> None:
    async with bed(tmp_path, CHECKED + PASSIVE) as it:
        it.begin("POST")
        await it.more()
        await asyncio.to_thread(it.service.programs[1].kill)
        await it.until(lambda: it.state(1) == "out")
        await it.no_failures(without=1)
        found = await it.end()
        assert set(found) <= {"0", "1", "2", "3", "502 unknown"}
        assert found["502 unknown"] <= CLIENTS


@pytest.mark.parametrize("care", [CHECKED + "ejection: off", PASSIVE.replace("500ms, longest: 1s", "3s, longest: 3s")])
async def test_a_frozen_instance_is_out_soon_and_back_when_it_runs_on(tmp_path: Path, care: str) -> None:
    async with bed(tmp_path, care) as it:
        it.begin()
        await it.more()
        it.service.programs[2].freeze()
        await it.until(lambda: it.state(2) == "out")
        await it.no_failures(without=2)
        it.service.programs[2].thaw()
        await it.all_answer()
        found = await it.end()
        assert set(found) <= {"0", "1", "2", "3", "504 unknown"}
        # Each client waits once or twice for its timeout until it is out; ejection takes five timeouts in each worker.
        assert found["504 unknown"] <= 3 * CLIENTS


@pytest.mark.parametrize("mode", ["slow", "reset", "broken", "cut"])
async def test_one_that_answers_badly_is_ejected_and_comes_back_when_it_is_well(tmp_path: Path, mode: str) -> None:
    async with bed(tmp_path, PASSIVE.replace("500ms, longest: 1s", "2s, longest: 2s")) as it:
        it.begin()
        await it.more()
        await asyncio.to_thread(it.service.be, 3, mode)
        await it.until(lambda: it.state(3) == "out")
        await it.no_failures(without=3)
        await asyncio.to_thread(it.service.be, 3, "well")
        await it.all_answer()
        found = await it.end()
        failed = {"slow": "504 unknown", "reset": "", "broken": "500 not a problem document", "cut": ""}[mode]
        assert set(found) - {"0", "1", "2", "3"} <= {failed, "502 unknown"}
        # Five in a row in each worker, again when a time out ended before the fault did, and who was on the way there.
        assert sum(count for kind, count in found.items() if len(kind) > 1) <= 2 * 5 * 3 + CLIENTS


async def test_when_all_are_dead_requests_fail_at_once_and_when_they_return_all_is_well(tmp_path: Path) -> None:
    async with bed(tmp_path, CHECKED + PASSIVE) as it:
        it.begin()
        await it.more()
        for program in it.service.programs:
            await asyncio.to_thread(program.kill)
        await it.until(lambda: all(it.state(number) == "out" for number in range(4)))
        seen = await it.more(100)
        assert {(each.status, each.outcome) for each in seen} == {(502, "not_sent")}
        assert max(each.took for each in seen) < 1.5
        for number in range(4):
            await asyncio.to_thread(it.service.restart, number)
        await it.all_answer()
        await it.end()


async def test_an_instance_that_comes_and_goes_again_and_again_is_out_for_longer_each_time(tmp_path: Path) -> None:
    async with bed(tmp_path, "ejection: {time: 100ms, longest: 10s, interval: 1m}") as it:
        it.begin()
        await asyncio.to_thread(it.service.be, 0, "broken")
        for seconds in ("0.1", "0.2", "0.3", "0.4"):
            pattern = rf"{it.service.name(0)} is ejected for {seconds} s"
            await asyncio.to_thread(it.gateway.program.wait_for_line, pattern)
        await asyncio.to_thread(it.service.be, 0, "well")
        await it.all_answer()
        await it.end()


async def test_a_drain_under_load_costs_nothing(tmp_path: Path) -> None:
    async with bed(tmp_path, CHECKED) as it:
        it.begin("POST")
        for _ in range(3):
            for number in (0, 1):
                path = f"/services/service/{it.service.name(number)}"
                await asyncio.to_thread(it.gateway.order, f"{path}/drain")
            assert {each.body for each in await it.more(100)} == {b"2", b"3"}, "workers knew when it was answered"
            for number in (0, 1):
                path = f"/services/service/{it.service.name(number)}"
                await asyncio.to_thread(it.gateway.order, f"{path}/undrain")
            await it.all_answer()
        assert set(await it.end()) == {"0", "1", "2", "3"}
