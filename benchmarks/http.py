"""Plain HTTP proxying, 1 KB answers, two hundred routes: castlegate beside Envoy and nginx, one core each.

python -m benchmarks.http [--rounds N] [--seconds N] [--json FILE] [--subjects castlegate,envoy]
"""

# ruff: noqa: A005 - it is only ever `benchmarks.http`

import dataclasses
import sys
import tempfile
from pathlib import Path

from benchmarks.api import LOAD_PATHS, ROUTES
from benchmarks.measure import CannotMeasure, Load, compare, parse_options
from benchmarks.peers.castlegate import castlegate
from benchmarks.peers.envoy import envoy
from benchmarks.peers.nginx import nginx
from benchmarks.services.origin import origin


def main() -> int:
    """Run it; 1 if it cannot be run or requests failed."""
    options = parse_options("Plain HTTP proxying beside Envoy and nginx.")
    try:
        with tempfile.TemporaryDirectory(prefix="castlegate-origin-") as folder, origin(Path(folder)) as port:
            subjects = [castlegate(_config(), {"ORIGIN_PORT": str(port)}), envoy(port), nginx(port)]
            done = compare("HTTP proxying", subjects, Load(LOAD_PATHS), options, warm_up_s=3)
            # Fields that say the same as before on their connection are read once: what if one of them never does?
            varied = dataclasses.replace(options, json=None)
            return done or compare(
                "A field differs in every request", subjects, Load(LOAD_PATHS, (64,), vary=True), varied, warm_up_s=3
            )
    except CannotMeasure as error:
        print(error, file=sys.stderr)
        return 1


def _config() -> str:
    head = Path(__file__).with_name("gateway_http.yaml").read_text()
    return head + "".join(f"  {route.method} {route.path}: {{call: origin}}\n" for route in ROUTES)


if __name__ == "__main__":
    sys.exit(main())
