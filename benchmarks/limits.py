"""What a limit costs: one decision at one key and at a million, then requests beside those of a plain route.

python -m benchmarks.limits [--rounds N] [--seconds N] [--json FILE] [--subjects plain,rate]
"""

import dataclasses
import math
import os
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.measure import CannotMeasure, Load, Subject, compare, parse_options
from benchmarks.peers.castlegate import castlegate
from benchmarks.services.origin import origin

from castlegate.config.references import request_scope
from castlegate.config.report import Report
from castlegate.headers import Headers
from castlegate.message import Request
from castlegate.policies.limits.measures import LimitName, Rate
from castlegate.policies.limits.per import key_of
from castlegate.rules.gcra import SECOND, Pace
from castlegate.stores.counts import Counts, Layout
from castlegate.telemetry.metrics import Counter
from castlegate.telemetry.trace import Trace

_KEYS = 1_000_000
_DECISIONS = 1_000_000
_PATHS = 20_000

_ROUTES = {
    "plain": "",
    "rate": ", limit: 1000000/s",
    "rate by path": ', limit: {rate: 1000000/s, per: "{path.id}"}',
    "quota": ", quota: {daily: 1000000000, per: address}",
    "concurrency": ", concurrency: 10000",
}


def main() -> int:
    """Run it; 1 if it cannot be run or requests failed."""
    options = parse_options("What limits cost.")
    print(f"One decision, with its fields: {_DECISIONS} of them\n")
    print(f"{'workers':>8} {'keys':>8} {'CPU us':>8}")
    for workers in (1, 4):
        for keys in (1, _KEYS):
            print(f"{workers:8} {keys:8} {_decide(workers, keys):8.2f}", flush=True)
    try:
        with tempfile.TemporaryDirectory(prefix="castlegate-origin-") as folder, origin(Path(folder)) as port:
            subjects = [_subject(name, more, port) for name, more in _ROUTES.items()]
            load = Load([f"/orders/{number}" for number in range(_PATHS)], (64,))
            return compare("Limits", subjects, load, options, warm_up_s=3, own="plain")
    except CannotMeasure as error:
        print(error, file=sys.stderr)
        return 1


def _subject(name: str, more: str, port: int) -> Subject:
    head = Path(__file__).with_name("gateway_http.yaml").read_text()
    text = f"state: state\n{head}  GET /orders/{{id}}: {{call: origin{more}}}\n"
    return dataclasses.replace(castlegate(text, {"ORIGIN_PORT": str(port)}), name=name)


def _decide(workers: int, keys: int) -> float:
    """Microseconds of CPU for one, all keys being known."""
    layout = Layout(_KEYS, workers)
    descriptor = Counts.create(layout, os.urandom(16))
    counts = Counts(layout, descriptor)
    limit_name = LimitName("address", key_of("address", request_scope(), Report().place()), ("benchmark",), Counter())
    take = Rate(limit_name, Pace(1000, SECOND, 1000), counts).take
    requests = [_request(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}") for number in range(keys)]
    for request in requests:
        take(request)
    rounds = _DECISIONS // keys
    began = time.process_time()
    for _ in range(rounds):
        for request in requests:
            take(request)
    spent = time.process_time() - began
    counts.close()
    os.close(descriptor)
    return spent / rounds / keys * 1e6


def _request(client: str) -> Request:
    return Request(
        b"1", Trace(b"", None), client, b"http", b"x", b"GET", b"/", b"", Headers(), b"", math.inf
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
