"""A hundred reloads under load: no request fails, latency and memory stay.

python -m benchmarks.reload [--reloads N]
"""

import argparse
import contextlib
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

from benchmarks.measure import (
    CannotMeasure,
    Load,
    Running,
    Sample,
    measure,
    resident_memory,
    wait_until_serves,
    write_script,
)
from benchmarks.peers.castlegate import castlegate
from benchmarks.services.origin import origin

_PAUSE_S = 1.0  # between two reloads: nobody reloads ten times a second


def main() -> int:
    """Run it; 1 if a request failed."""
    parser = argparse.ArgumentParser(description="Reloads under load.")
    parser.add_argument("--reloads", type=int, default=100)
    reloads = parser.parse_args().reloads
    load = Load([f"/orders/{number}" for number in range(100)], (32,))
    head = Path(__file__).with_name("gateway_http.yaml").read_text()
    config = head + "".join(f"  GET /v{number}/{{id}}: {{call: origin}}\n" for number in range(200))
    config += "  GET /orders/{id}: {call: origin}\n"
    try:
        with contextlib.ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="castlegate-reload-")))
            port = stack.enter_context(origin(folder))
            home = folder / "gateway"
            home.mkdir()
            running = stack.enter_context(castlegate(config, {"ORIGIN_PORT": str(port)}).start(home))
            wait_until_serves(running, load)
            script = write_script(folder, load)
            seconds = max(2, round(reloads * (_PAUSE_S + 0.05)))
            measure(running, script, 32, 3)
            calm = measure(running, script, 32, seconds)
            memory = resident_memory(running.program.pid)

            thread = threading.Thread(target=_reload, args=(running, home, config, reloads))
            thread.start()
            busy = measure(running, script, 32, seconds)
            thread.join()
            grown = resident_memory(running.program.pid) - memory
    except CannotMeasure as error:
        print(error, file=sys.stderr)
        return 1
    for name, sample in (("without reloads", calm), (f"with {reloads} reloads", busy)):
        _print(name, sample)
    print(f"memory grew by {grown / 1e6:.1f} MB")
    return 1 if busy.failed else 0


def _reload(running: Running, home: Path, config: str, reloads: int) -> None:
    """One after the other, each with a new route; raises for one that is refused."""
    for number in range(reloads):
        (home / "gateway.yaml").write_text(f"{config}  GET /new/{number}: {{call: origin}}\n")
        urllib.request.urlopen(urllib.request.Request(f"{running.admin}/reload", method="POST"), timeout=30).close()
        time.sleep(_PAUSE_S)


def _print(name: str, sample: Sample) -> None:
    print(
        f"{name:20} {sample.per_second:8.0f}/s p50 {sample.p50_ms:.2f} ms p99 {sample.p99_ms:.2f} ms "
        f"failed {sample.failed:.0f}"
    )


if __name__ == "__main__":
    sys.exit(main())
