"""Two producers of requests, or one: the two that there are, always the prompt one, always the one that batches.

    python -m benchmarks.producers [--rounds N] [--seconds N] [--json FILE]

As benchmarks/kafka.py, with castlegate alone: `kafka.linger_above` says from how many pending requests on the one that
batches is taken.
"""

import sys
from pathlib import Path

from benchmarks.kafka import PARTITIONS, PATHS
from benchmarks.measure import LOAD_CORE, CannotMeasure, Load, compare, parse_options, pinned
from benchmarks.peers.castlegate import castlegate
from tests.testbeds.cache import REPO
from tests.testbeds.kafka import RealKafka, Unprepared
from tests.testbeds.processes import Program
from tests.testbeds.topics import create_topics

_VARIANTS = {"castlegate": None, "always prompt": 1_000_000, "always batching": 0}


def main() -> int:
    """Run it; 1 if it cannot be run or requests failed."""
    options = parse_options("Request-reply over Kafka with two producers, and with one.")
    try:
        kafka = RealKafka(quick=False)
    except Unprepared as error:
        print(error, file=sys.stderr)
        return 1
    try:
        create_topics(kafka.bootstrap, {"bench.echo": PARTITIONS, "bench.echo.reply": PARTITIONS})
        config = Path(__file__).with_name("gateway_kafka.yaml").read_text()
        subjects = []
        for name, above in _VARIANTS.items():
            said = config if above is None else config.replace('"${KAFKA}"', f'"${{KAFKA}}", linger_above: {above}', 1)
            subjects.append(castlegate(said, {"KAFKA": kafka.bootstrap}, name=name))
        command = pinned(LOAD_CORE, [sys.executable, "-m", "benchmarks.services.echo"])
        with Program(command, name="echo", cwd=REPO, env={"BOOTSTRAP": kafka.bootstrap}) as echo:
            echo.wait_for_line("^ready")
            return compare("Producers of requests", subjects, Load(PATHS), options, warm_up_s=5)
    except (CannotMeasure, Unprepared) as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        kafka.discard()


if __name__ == "__main__":
    sys.exit(main())
