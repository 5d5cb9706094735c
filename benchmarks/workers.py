"""Two workers beside one, each pair of figures on as many cores as it has workers: CPU per request must not grow.

python -m benchmarks.workers [--rounds N] [--seconds N] [--json FILE]

The load shares the cores, so requests per second say little here; CPU per request is what is compared.
"""

import dataclasses
import sys
import tempfile
from pathlib import Path

from benchmarks.measure import CannotMeasure, Load, Subject, compare, parse_options
from benchmarks.peers.castlegate import castlegate
from benchmarks.services.origin import origin


def main() -> int:
    """Run it; 1 if it cannot be run or requests failed."""
    options = parse_options("castlegate with two workers beside one.")
    try:
        with tempfile.TemporaryDirectory(prefix="castlegate-origin-") as folder, origin(Path(folder)) as port:
            subjects = [_with_workers(count, port) for count in (1, 2)]
            load = Load([f"/orders/{number}" for number in range(100)], (64,))
            return compare("Workers", subjects, load, options, warm_up_s=3, own="2 workers")
    except CannotMeasure as error:
        print(error, file=sys.stderr)
        return 1


def _with_workers(count: int, port: int) -> Subject:
    head = (
        Path(__file__).with_name("gateway_http.yaml").read_text().replace("services:", f"workers: {count}\n\nservices:")
    )
    config = f"{head}  GET /orders/{{id}}: {{call: origin}}\n"
    return dataclasses.replace(castlegate(config, {"ORIGIN_PORT": str(port)}, cores=count), name=f"{count} workers")


if __name__ == "__main__":
    sys.exit(main())
