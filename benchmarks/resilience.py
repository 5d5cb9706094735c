"""What guards cost a request that goes well, and what hedging does to the slowest ones.

First one call through the guards in the process; then requests beside those without them; then four instances of which
one answers in 500 ms and the others in 5.

python -m benchmarks.resilience [--rounds N] [--seconds N] [--json FILE] [--subjects plain,...]
"""

import asyncio
import json
import re
import sys
import tempfile
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.measure import (
    CannotMeasure,
    Load,
    Options,
    Running,
    Subject,
    measure,
    measure_all,
    parse_options,
    tell_failures,
    wait_until_serves,
    write_script,
)
from benchmarks.peers.castlegate import castlegate
from benchmarks.services.delayed import delayed
from benchmarks.services.origin import origin

from castlegate.guards.breaker import BreakerSettings, CircuitBreaker
from castlegate.guards.concurrency import Concurrency, ConcurrencySettings, Places
from castlegate.guards.hedge import Hedge, HedgeSettings
from castlegate.guards.retry import Retries, Retry
from castlegate.headers import Headers
from castlegate.message import Call, Caller, Guard, Reply, Request
from castlegate.rules.breaker import Breaker
from castlegate.rules.budget import RepeatBudget
from castlegate.rules.instances import Instances
from castlegate.rules.percentile import Percentile
from castlegate.telemetry.metrics import Registry
from castlegate.telemetry.trace import Trace
from castlegate.wire.timer import Timer

_CALLS = 200_000
_DELAYS = (500.0, 5.0, 5.0, 5.0)  # ms of the four instances
_CONNECTIONS = 64

_RETRY = ", retry: {tries: 3, status: [503], per_try: 1s}"
_GUARDS = {
    "plain": ", ejection: off",
    "retries": f", ejection: off{_RETRY}",
    "breaker": ", ejection: off, breaker: {}",
    "retries, health, breaker": f", health: tcp{_RETRY}, breaker: {{}}",
    "concurrency": ", ejection: off, concurrency: 10000",
    "adaptive": ", ejection: off, concurrency: {least: 100}",
    "hedge": ", ejection: off, hedge: 1s",
}
_TAILS = {
    "round robin": ("round_robin", ""),
    "round robin, hedged": ("round_robin", ", hedge: {}"),
    "default": ("least_request", ""),
    "default, hedged": ("least_request", ", hedge: {}"),
}


def main() -> int:
    """Run it; 1 if it cannot be run or requests failed."""
    options = parse_options("What guards cost, and what hedging gains.")
    inside = asyncio.run(_inside())
    print(f"One call through a guard, in the process: {_CALLS} of them\n")
    for name, cost in inside.items():
        print(f"{name:24} {cost:8.2f} us", flush=True)
    try:
        costs, status = _costs(options)
        tails = _tails(options)
    except CannotMeasure as error:
        print(error, file=sys.stderr)
        return 1
    if options.json:
        result = {"guards_us": inside, "requests_us": costs, "tail": tails}
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    return status


async def _inside() -> dict[str, float]:
    """Microseconds of CPU that each guard adds to a call which is answered at once."""
    timer, registry, budget = Timer(asyncio.get_running_loop()), Registry(), RepeatBudget(0.2, 3)
    settings, limit = BreakerSettings(), ConcurrencySettings(limit=100)
    guards: dict[str, Guard] = {
        "retry, as it is": Retry("s", None, Instances[Any](), budget, timer.now, registry),
        "retry, said": Retry("s", Retries(tries=3, status=[503]), Instances[Any](), budget, timer.now, registry),
        "breaker": CircuitBreaker("s", settings, "service", Breaker(settings.rule), timer.now, registry),
        "concurrency": Concurrency("s", limit, Places(limit, 1, timer), timer.now, registry),
        "adaptive": Concurrency(
            "s", ConcurrencySettings(), Places(ConcurrencySettings(), 1, timer), timer.now, registry
        ),
        "hedge": Hedge("s", HedgeSettings(after=1.0), Percentile(95), budget, timer.now, registry),
    }
    bare = await _time(_answer)
    return {name: await _time(guard.wrap(_answer)) - bare for name, guard in guards.items()}


async def _answer(_call: Call) -> Reply:
    return _REPLY


_REPLY = Reply(200, Headers(), b"{}")


async def _time(caller: Caller) -> float:
    headers = Headers()
    request = Request(b"1", Trace(b"", None), "", b"http", b"x", b"GET", b"/", b"", headers, b"", 0.0)
    call = Call(request, b"GET", b"/", headers, b"", None, 10.0, idempotent=True)
    best = float("inf")
    for _ in range(3):
        began = time.process_time()
        for _ in range(_CALLS):
            await caller(call)
        best = min(best, time.process_time() - began)
    return best / _CALLS * 1e6


def _costs(options: Options) -> tuple[dict[str, float], int]:
    """CPU per request with each guard, in the real program."""
    with tempfile.TemporaryDirectory(prefix="castlegate-origin-") as folder, origin(Path(folder)) as port:
        urls = [f"http://{host}:{port}" for host in ("127.0.0.1", "localhost")]
        subjects = [_subject(name, more, urls) for name, more in _GUARDS.items()]
        medians, _ = measure_all(subjects, Load(["/x"], (_CONNECTIONS,)), options, warm_up_s=2)
    plain = medians.get(("plain", _CONNECTIONS))
    print(f"\n{'CPU per request, medians':24} {'us':>8} {'more':>8}\n")
    for (name, _), sample in medians.items():
        more = "" if plain is None else f"{sample.cpu_us - plain.cpu_us:8.1f}"
        print(f"{name:24} {sample.cpu_us:8.1f} {more}")
    return {name: sample.cpu_us for (name, _), sample in medians.items()}, tell_failures(medians)


def _tails(options: Options) -> dict[str, Mapping[str, float]]:
    """Latencies and attempts with one slow instance of four."""
    told: dict[str, Mapping[str, float]] = {}
    print(f"\n{'one of four in 500 ms':24} {'p50 ms':>8} {'p99 ms':>8} {'per s':>8} {'attempts':>9}\n")
    with delayed(_DELAYS) as ports, tempfile.TemporaryDirectory(prefix="castlegate-bench-") as folder:
        load = Load(["/x"], (_CONNECTIONS,))
        script = write_script(Path(folder), load)
        urls = [f"http://127.0.0.1:{port}" for port in ports]
        for name, (by, more) in _TAILS.items():
            home = Path(folder) / name
            home.mkdir()
            with _subject(name, more, urls, by).start(home) as running:
                wait_until_serves(running, load)
                measure(running, script, _CONNECTIONS, 3)
                before = _sent(running)
                sample = measure(running, script, _CONNECTIONS, max(10, options.seconds))
                attempts = (_sent(running) - before) / (sample.per_second * max(10, options.seconds))
            print(
                f"{name:24} {sample.p50_ms:8.1f} {sample.p99_ms:8.1f} {sample.per_second:8.0f} {attempts:9.3f}",
                flush=True,
            )
            told[name] = {"p50_ms": sample.p50_ms, "p99_ms": sample.p99_ms, "attempts": attempts}
    return told


def _sent(running: Running) -> float:
    """Requests and hedges that were begun."""
    with urllib.request.urlopen(f"{running.admin}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    return sum(
        float(value)
        for value in re.findall(
            r'^castlegate_(?:requests_total\{route="GET /x"|upstream_hedges_total\{[^}]*what="sent")[^}]*\} (\S+)$',
            text,
            re.MULTILINE,
        )
    )


def _subject(name: str, more: str, urls: list[str], by: str = "least_request") -> Subject:
    listed = ", ".join(f'"{url}"' for url in urls)
    text = f"""
listen: 127.0.0.1:${{PORT}}
admin: 127.0.0.1:${{ADMIN_PORT}}
access_log: "${{ACCESS_LOG}}"
services:
  origin: {{http: {{instances: [{listed}], balance: {by}}}{more}}}
defaults: {{public: true, timeout: 2s}}
routes:
  GET /x: {{call: origin}}
"""
    return castlegate(text, {}, name=name)


if __name__ == "__main__":
    sys.exit(main())
