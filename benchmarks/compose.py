"""One answer of three: castlegate beside the gateway that teams write with NestJS, Fastify and undici, one core each.

    python -m benchmarks.compose [--rounds N] [--seconds N] [--json FILE] [--subjects castlegate,nestjs] [--http-only]

First three answers of 1 KB over HTTP under their names, then one over HTTP and two over a real Kafka, which shares both
cores with the answering service and the load.
"""

import dataclasses
import sys
import tempfile
from pathlib import Path

from benchmarks.kafka import echoing
from benchmarks.measure import CannotMeasure, Load, Options, compare, parse_options
from benchmarks.peers.castlegate import castlegate
from benchmarks.peers.nest_compose import nest_compose
from benchmarks.services.origin import origin
from tests.testbeds.kafka import Unprepared

_IDS = range(1, 101)


def main() -> int:
    """Run it; 1 if it cannot be run or requests failed."""
    http_only = "--http-only" in sys.argv
    if http_only:
        sys.argv.remove("--http-only")
    options = parse_options("One answer of three, beside a NestJS gateway.")
    try:
        with tempfile.TemporaryDirectory(prefix="castlegate-origin-") as folder, origin(Path(folder)) as port:
            done = _http(port, options)
            return done if http_only else done or _kafka(port, dataclasses.replace(options, json=None))
    except (CannotMeasure, Unprepared) as error:
        print(error, file=sys.stderr)
        return 1


def _http(port: int, options: Options) -> int:
    config, _, _ = _config().partition("  GET /page/{id}:")
    plain = "".join(line for line in config.splitlines(keepends=True) if "kafka" not in line)
    subjects = [castlegate(plain, {"ORIGIN_PORT": str(port)}), nest_compose(port)]
    load = Load([f"/home/{number}" for number in _IDS])
    return compare("Three parts over HTTP", subjects, load, options, warm_up_s=8)


def _kafka(port: int, options: Options) -> int:
    with echoing() as bootstrap:
        env = {"ORIGIN_PORT": str(port), "KAFKA": bootstrap}
        subjects = [castlegate(_config(), env), nest_compose(port, bootstrap)]
        load = Load([f"/page/{number}" for number in _IDS])
        return compare("One part over HTTP, two over Kafka", subjects, load, options, warm_up_s=10)


def _config() -> str:
    return Path(__file__).with_name("gateway_compose.yaml").read_text()


if __name__ == "__main__":
    sys.exit(main())
