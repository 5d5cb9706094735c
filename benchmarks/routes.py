"""Ten to ten thousand routes: what finding one costs must not grow with their number.

python -m benchmarks.routes [--rounds N] [--seconds N] [--json FILE]
"""

import dataclasses
import sys
import tempfile
from pathlib import Path

from benchmarks.measure import CannotMeasure, Load, Subject, compare, parse_options
from benchmarks.peers.castlegate import castlegate
from benchmarks.services.origin import origin

_COUNTS = (10, 100, 1_000, 10_000)


def main() -> int:
    """Run it; 1 if it cannot be run or requests failed."""
    options = parse_options("castlegate with 10 to 10,000 routes.")
    try:
        with tempfile.TemporaryDirectory(prefix="castlegate-origin-") as folder, origin(Path(folder)) as port:
            subjects = [_with_routes(count, port) for count in _COUNTS]
            # In every table there are these ten; more of them would differ in what the processor's caches hold.
            load = Load([f"/api/v{number}/orders/7" for number in range(10)], (64,))
            return compare("Routes", subjects, load, options, warm_up_s=3, own="10000 routes")
    except CannotMeasure as error:
        print(error, file=sys.stderr)
        return 1


def _with_routes(count: int, port: int) -> Subject:
    head = Path(__file__).with_name("gateway_http.yaml").read_text()
    routes = "".join(f"  GET /api/v{number}/orders/{{id}}: {{call: origin}}\n" for number in range(count))
    return dataclasses.replace(castlegate(head + routes, {"ORIGIN_PORT": str(port)}), name=f"{count} routes")


if __name__ == "__main__":
    sys.exit(main())
