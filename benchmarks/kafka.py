"""Request-reply over a real Kafka: castlegate beside the gateway that teams write with NestJS, one core each.

    python -m benchmarks.kafka [--rounds N] [--seconds N] [--json FILE] [--subjects castlegate,nestjs]

The subject has one core, the load and the answering service the other; Kafka shares both.
"""

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.measure import LOAD_CORE, CannotMeasure, Load, Options, Subject, compare, parse_options, pinned
from benchmarks.peers.castlegate import castlegate
from benchmarks.peers.nest import nest_gateway
from tests.testbeds.cache import REPO
from tests.testbeds.kafka import RealKafka, Unprepared
from tests.testbeds.processes import Program
from tests.testbeds.topics import create_topics

_PARTITIONS = 4
_PATHS = [f"/orders/{number}" for number in range(1, 101)]


def main() -> int:
    """Run it; 1 if it cannot be run or requests failed."""
    options = parse_options("Request-reply over Kafka beside a NestJS gateway.")

    def subjects(bootstrap: str, config: str) -> list[Subject]:
        return [castlegate(config, {"KAFKA": bootstrap}), nest_gateway(bootstrap)]

    # Long enough for the compilers of two virtual machines: Kafka's and Node's.
    return compare_over_kafka("Kafka request-reply", subjects, options, warm_up_s=10)


def compare_over_kafka(
    title: str, subjects: Callable[[str, str], list[Subject]], options: Options, *, warm_up_s: int
) -> int:
    """Measure beside a real Kafka and its echo. `subjects` are made of its address and castlegate's configuration."""
    try:
        with echoing() as bootstrap:
            config = Path(__file__).with_name("gateway_kafka.yaml").read_text()
            return compare(title, subjects(bootstrap, config), Load(_PATHS), options, warm_up_s=warm_up_s)
    except (CannotMeasure, Unprepared) as error:
        print(error, file=sys.stderr)
        return 1


@contextlib.contextmanager
def echoing() -> Iterator[str]:
    """Run a real Kafka and, on the load's core, the service that echoes; gives the broker's address."""
    kafka = RealKafka(quick=False)
    try:
        create_topics(kafka.bootstrap, {"bench.echo": _PARTITIONS, "bench.echo.reply": _PARTITIONS})
        command = pinned(LOAD_CORE, [sys.executable, "-m", "benchmarks.services.echo"])
        with Program(command, name="echo", cwd=REPO, env={"BOOTSTRAP": kafka.bootstrap}) as echo:
            echo.wait_for_line("^ready")
            yield kafka.bootstrap
    finally:
        kafka.discard()


if __name__ == "__main__":
    sys.exit(main())
