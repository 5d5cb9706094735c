"""Request-reply over a real Kafka: castlegate beside the gateway that teams write with NestJS, one core each.

    python -m benchmarks.kafka [--rounds N] [--seconds N] [--json FILE] [--subjects castlegate,nestjs]

The subject has one core, the load and the answering service the other; Kafka shares both.
"""

import sys
from pathlib import Path

from benchmarks.measure import LOAD_CORE, CannotMeasure, Load, compare, parse_options, pinned
from benchmarks.peers.castlegate import castlegate
from benchmarks.peers.nest import nest_gateway
from tests.testbeds.cache import REPO
from tests.testbeds.kafka import RealKafka, Unprepared
from tests.testbeds.processes import Program
from tests.testbeds.topics import create_topics

PARTITIONS = 4
PATHS = [f"/orders/{number}" for number in range(1, 101)]


def main() -> int:
    """Run it; 1 if it cannot be run or requests failed."""
    options = parse_options("Request-reply over Kafka beside a NestJS gateway.")
    try:
        kafka = RealKafka(quick=False)
    except Unprepared as error:
        print(error, file=sys.stderr)
        return 1
    try:
        create_topics(kafka.bootstrap, {"bench.echo": PARTITIONS, "bench.echo.reply": PARTITIONS})
        config = Path(__file__).with_name("gateway_kafka.yaml").read_text()
        subjects = [castlegate(config, {"KAFKA": kafka.bootstrap}), nest_gateway(kafka.bootstrap)]
        command = pinned(LOAD_CORE, [sys.executable, "-m", "benchmarks.services.echo"])
        with Program(command, name="echo", cwd=REPO, env={"BOOTSTRAP": kafka.bootstrap}) as echo:
            echo.wait_for_line("^ready")
            # Long enough for the compilers of two virtual machines: Kafka's and Node's.
            return compare("Kafka request-reply", subjects, Load(PATHS), options, warm_up_s=10)
    except (CannotMeasure, Unprepared) as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        kafka.discard()


if __name__ == "__main__":
    sys.exit(main())
