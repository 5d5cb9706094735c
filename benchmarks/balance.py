"""What choosing an instance costs, and what it is worth when one of four is slow.

python -m benchmarks.balance [--rounds N] [--seconds N] [--json FILE] [--subjects "one instance,round_robin"]
"""

import asyncio
import contextlib
import dataclasses
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.measure import LOAD_CORE, CannotMeasure, Load, Subject, compare, parse_options, pinned
from benchmarks.peers.castlegate import castlegate
from benchmarks.services.origin import origin
from tests.kafka.calls import make_request
from tests.testbeds.processes import Program, free_port

from castlegate.calls.keys import key_of
from castlegate.config.report import Report
from castlegate.headers import Headers
from castlegate.message import Call
from castlegate.rules.balancing import Balancer, LeastRequest, PeakEwma, RoundRobin
from castlegate.rules.instances import Instance, Instances
from castlegate.rules.ring import ConsistentHash

_CHOICES = 100_000
_BALANCES = ("round_robin", "least_request", "peak_ewma", "{by: hash, key: address}")
_QUICK, _SLOW = 5, 500  # milliseconds
_CLIENTS = 32  # of the slow services, each asking again as soon as it is answered


def main() -> int:
    """Run it; 1 if it cannot be run or requests failed."""
    options = parse_options("What choosing an instance costs, and what it is worth.")
    print(f"One choice, CPU us of {_CHOICES}\n")
    print(f"{'':15} {'4':>7} {'1000':>7} {'1000, weighted':>15}")
    for name, make in _BALANCERS.items():
        costs = [_choose(make, count, weighted) for count, weighted in ((4, False), (1000, False), (1000, True))]
        print(f"{name:15} {costs[0]:7.2f} {costs[1]:7.2f} {costs[2]:15.2f}", flush=True)
    try:
        _print_tail(options.seconds)
        with contextlib.ExitStack() as stack:
            ports = []
            for _ in range(4):
                folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="castlegate-origin-"))
                ports.append(stack.enter_context(origin(Path(folder))))
            subjects = [_subject("one instance", "least_request", ports[:1])]
            subjects += [_subject(f"four, {balance}", balance, ports) for balance in _BALANCES]
            load = Load([f"/orders/{number}" for number in range(1000)], (64,))
            return compare("Requests", subjects, load, options, warm_up_s=3, own="one instance")
    except CannotMeasure as error:
        print(error, file=sys.stderr)
        return 1


def _by_key(instances: Instances[Instance]) -> Balancer[Instance]:
    key = key_of("{header.x-tenant}", Report().place())
    return ConsistentHash(instances, lambda call: key(call.request), RoundRobin(instances))


_BALANCERS: dict[str, Callable[[Instances[Instance]], Balancer[Instance]]] = {
    "round_robin": RoundRobin,
    "least_request": LeastRequest,
    "peak_ewma": PeakEwma,
    "hash of a field": _by_key,
}


def _choose(make: Callable[[Instances[Instance]], Balancer[Instance]], count: int, weighted: bool) -> float:
    """Microseconds for one."""
    members = [
        Instance(f"10.0.{number >> 8}.{number & 255}:8000", 1 + number % 5 if weighted else 1)
        for number in range(count)
    ]
    choose = make(Instances(members)).choose
    for each in members:
        each.latency = 0.005
    request = make_request([(b"accept", b"*/*"), (b"x-tenant", b"acme-4711"), (b"user-agent", b"benchmark")])
    call = Call(request, b"GET", b"/", Headers(), b"", None, 1.0, idempotent=True)
    costs = []
    for _ in range(5):
        began = time.process_time()
        for _ in range(_CHOICES):
            choose(call, 1.0)
        costs.append((time.process_time() - began) / _CHOICES * 1e6)
    return statistics.median(costs)


def _subject(name: str, balance: str, ports: list[int], more: str = "") -> Subject:
    instances = ", ".join(f'"http://127.0.0.1:{port}"' for port in ports)
    text = f"""
listen: 127.0.0.1:${{PORT}}
admin: 127.0.0.1:${{ADMIN_PORT}}
access_log: "${{ACCESS_LOG}}"
services: {{origin: {{http: {{instances: [{instances}], balance: {balance}}}{more}}}}}
defaults: {{public: true, timeout: 2s}}
routes: {{"GET /orders/{{id}}": {{call: origin}}}}
"""
    return dataclasses.replace(castlegate(text, {}), name=name)


def _print_tail(seconds: int) -> None:
    print(f"\nOne of four instances answers after {_SLOW} ms, the others after {_QUICK}; {_CLIENTS} clients\n")
    print(f"{'':15} {'requests/s':>10} {'p50 ms':>8} {'p99 ms':>8} {'slow ones':>10}", flush=True)
    with _instances() as ports:
        for balance in _BALANCES[:3]:
            with (
                tempfile.TemporaryDirectory(prefix="castlegate-balance-") as folder,
                _subject(balance, balance, ports).start(Path(folder)) as running,
            ):
                port = int(running.url.rpartition(":")[2])
                asyncio.run(_ask(port, 1))  # connects
                times = sorted(asyncio.run(_ask(port, seconds)))
            slow = sum(each > 0.9 * _SLOW / 1000 for each in times) / len(times)
            p50, p99 = (times[int(len(times) * share)] * 1000 for share in (0.5, 0.99))
            print(f"{balance:15} {len(times) / seconds:10.0f} {p50:8.1f} {p99:8.1f} {slow:10.2%}", flush=True)


@contextlib.contextmanager
def _instances() -> Iterator[list[int]]:
    with contextlib.ExitStack() as stack:
        ports = [free_port() for _ in range(4)]
        for port, milliseconds in zip(ports, (_SLOW, _QUICK, _QUICK, _QUICK), strict=True):
            command = [sys.executable, "-m", "benchmarks.services.slow", str(port), str(milliseconds)]
            program = stack.enter_context(Program(pinned(LOAD_CORE, command), name="slow"))
            program.wait_for_port(port)
        yield ports


async def _ask(port: int, seconds: float) -> list[float]:
    """How long each answer took."""
    times: list[float] = []
    end = time.monotonic() + seconds

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while (began := time.monotonic()) < end:
            writer.write(b"GET /orders/7 HTTP/1.1\r\nHost: shop\r\n\r\n")
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 200"):
                raise CannotMeasure(f"the gateway answered {head!r}")
            await reader.readexactly(2)
            times.append(time.monotonic() - began)
        writer.close()

    async with asyncio.TaskGroup() as group:
        for _ in range(_CLIENTS):
            group.create_task(client())
    return times


if __name__ == "__main__":
    sys.exit(main())
