"""What watching over instances costs: a judged call and a check in the process, and requests beside plain ones.

python -m benchmarks.health [--rounds N] [--seconds N] [--json FILE] [--subjects ...]
"""

import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from benchmarks.measure import CannotMeasure, Load, measure_all, parse_options, tell_failures
from benchmarks.peers.castlegate import castlegate
from benchmarks.services.origin import origin

from castlegate.config.addresses import Origin
from castlegate.headers import Headers
from castlegate.message import Caller, Reply
from castlegate.rules.ejection import Ejection
from castlegate.rules.instances import Instance, Instances
from castlegate.telemetry.metrics import Registry
from castlegate.upstreams.http.checks import Question
from castlegate.upstreams.http.ejecting import Ejecting
from castlegate.upstreams.http.health import Health
from castlegate.upstreams.http.settings import HttpService
from castlegate.wire.timer import Timer

_AIM_US = 3.0  # that watching over instances may add to a request
_TIMES = 50_000
_CHECKS = 1000
_TWO = '{instances: ["http://127.0.0.1:${ORIGIN_PORT}", "http://localhost:${ORIGIN_PORT}"]}'
_SERVICES = {
    "one instance": '{http: ["http://127.0.0.1:${ORIGIN_PORT}"]}',
    "two, not judged": f"{{http: {_TWO}, ejection: off}}",
    "two, judged": f"{{http: {_TWO}}}",
    "two, judged and checked": f"{{http: {_TWO}, health: {{path: /healthz, interval: 1s}}}}",
}


def main() -> int:
    """Run it; 1 if it cannot be run, requests failed, or it costs more than it may."""
    options = parse_options("What judging and checking instances costs.")
    try:
        with tempfile.TemporaryDirectory(prefix="castlegate-origin-") as name, origin(Path(name)) as port:
            inside = {"a call, judged": _judged(), "a check": asyncio.run(_check(port))}
            variables = {"ORIGIN_PORT": str(port)}
            subjects = [castlegate(_config(service), variables, name=name) for name, service in _SERVICES.items()]
            medians, _ = measure_all(subjects, Load(["/x"], (64,)), options, warm_up_s=3)
    except CannotMeasure as error:
        print(error, file=sys.stderr)
        return 1
    print(f"\n{'in the process':32} {'us':>8}\n")
    for name, cost in inside.items():
        print(f"{name:32} {cost:8.2f}")
    print(f"\n{'CPU us per request, medians':32} {'us':>8} {'more':>8}\n")
    bare = medians.get(("two, not judged", 64))
    for (name, _), sample in medians.items():
        print(f"{name:32} {sample.cpu_us:8.1f} {'' if bare is None else f'{sample.cpu_us - bare.cpu_us:+8.1f}'}")
    if options.json:
        requests = {name: sample.cpu_us for (name, _), sample in medians.items()}
        options.json.write_text(json.dumps({"inside_us": inside, "request_us": requests}, indent=2) + "\n")
    return tell_failures(medians) or inside["a call, judged"] > _AIM_US


def _judged() -> float:
    """What judging adds to a call, in microseconds."""
    instance = Instance("127.0.0.1:1")
    ejecting = Ejecting("o", Ejection(), Instances([instance, Instance("127.0.0.1:2")]), time.monotonic, Registry())
    call, reply = SimpleNamespace(instance=instance), Reply(200, Headers(), b"")

    async def answer(_call: Any) -> Reply:
        return reply

    bare = min(_took(answer, call) for _ in range(5))
    return round(min(_took(ejecting.wrap(answer), call) for _ in range(5)) - bare, 3)


def _took(caller: Caller, call: Any) -> float:
    began = time.perf_counter()
    for _ in range(_TIMES):
        try:  # noqa: SIM105 - what is measured is small
            caller(call).send(None)  # type: ignore[attr-defined]  # it waits for nothing
        except StopIteration:
            pass
    return (time.perf_counter() - began) / _TIMES * 1e6


async def _check(port: int) -> float:
    """CPU of one check, in microseconds."""
    service = HttpService(instances=[f"http://127.0.0.1:{port}"])
    question = Question(Health(path="/x"), service, Timer(asyncio.get_running_loop()), None)
    began = time.process_time()
    for _ in range(_CHECKS):
        assert not await question.ask(Origin("127.0.0.1", port, False))
    return round((time.process_time() - began) / _CHECKS * 1e6, 1)


def _config(service: str) -> str:
    head = Path(__file__).with_name("gateway_http.yaml").read_text()
    plain = '{http: ["http://127.0.0.1:${ORIGIN_PORT}"]}'
    assert plain in head
    return f"{head.replace(plain, service)}  GET /x: {{call: origin}}\n"


if __name__ == "__main__":
    sys.exit(main())
