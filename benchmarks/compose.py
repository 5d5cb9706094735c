"""One answer of three: castlegate beside the gateway that teams write with NestJS, Fastify and undici, one core each.

    python -m benchmarks.compose [--rounds N] [--seconds N] [--json FILE] [--subjects castlegate,nestjs] [--http-only]

First three answers of 1 KB over HTTP under their names, then one over HTTP and two over a real Kafka, which shares both
cores with the answering service and the load.
"""

import dataclasses
import sys
import tempfile
from pathlib import Path

from benchmarks.measure import LOAD_CORE, CannotMeasure, Load, Options, compare, parse_options, pinned
from benchmarks.peers.castlegate import castlegate
from benchmarks.peers.nest_compose import nest_compose
from benchmarks.services.origin import origin
from tests.testbeds.cache import REPO
from tests.testbeds.kafka import RealKafka, Unprepared
from tests.testbeds.processes import Program
from tests.testbeds.topics import create_topics

_PARTITIONS = 4
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
    kafka = RealKafka(quick=False)
    try:
        create_topics(kafka.bootstrap, {"bench.echo": _PARTITIONS, "bench.echo.reply": _PARTITIONS})
        env = {"ORIGIN_PORT": str(port), "KAFKA": kafka.bootstrap}
        subjects = [castlegate(_config(), env), nest_compose(port, kafka.bootstrap)]
        command = pinned(LOAD_CORE, [sys.executable, "-m", "benchmarks.services.echo"])
        with Program(command, name="echo", cwd=REPO, env={"BOOTSTRAP": kafka.bootstrap}) as echo:
            echo.wait_for_line("^ready")
            load = Load([f"/page/{number}" for number in _IDS])
            return compare("One part over HTTP, two over Kafka", subjects, load, options, warm_up_s=10)
    finally:
        kafka.discard()


def _config() -> str:
    return Path(__file__).with_name("gateway_compose.yaml").read_text()


if __name__ == "__main__":
    sys.exit(main())
