"""Bodies of 4 MB both ways: castlegate beside nginx, one core each; throughput, CPU per body, peak memory.

python -m benchmarks.stream [--rounds N] [--seconds N]
"""

import sys

from benchmarks.measure import LOAD_CORE, CannotMeasure, Load, compare, parse_options, pinned
from benchmarks.peers.castlegate import castlegate
from benchmarks.peers.nginx import nginx
from benchmarks.services.sink import SIZE
from tests.testbeds.cache import REPO
from tests.testbeds.processes import Program, free_port

_CONFIG = """\
listen: 127.0.0.1:${PORT}
admin: 127.0.0.1:${ADMIN_PORT}
access_log: "${ACCESS_LOG}"
services: {origin: {http: ["http://127.0.0.1:${ORIGIN_PORT}"]}}
defaults: {public: true, timeout: 10s, limits: {body: 64MiB}}
routes: {"ANY /files/{path...}": {call: origin}}
"""


def main() -> int:
    """Run it; 1 if it cannot be run or requests failed."""
    options = parse_options("Bodies of 4 MB beside nginx.")
    port = free_port()
    command = pinned(LOAD_CORE, [sys.executable, "-m", "benchmarks.services.sink"])
    try:
        with Program(command, name="sink", cwd=REPO, env={"PORT": str(port)}) as sink:
            sink.wait_for_line("^ready")
            subjects = [castlegate(_CONFIG, {"ORIGIN_PORT": str(port)}), nginx(port, streaming=True)]
            down = Load(["/files/orders/4mb"], (8,))
            up = Load(["/files/orders/4mb"], (8,), "POST", SIZE)
            return compare("Downloads of 4 MB", subjects, down, options, warm_up_s=2) or compare(
                "Uploads of 4 MB", subjects, up, options, warm_up_s=2
            )
    except CannotMeasure as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
