"""Two producers of requests, or one: the two that there are, always the prompt one, always the one that batches.

    python -m benchmarks.producers [--rounds N] [--seconds N] [--json FILE]

As benchmarks/kafka.py, with castlegate alone: `kafka.linger_above` says from how many pending requests on the one that
batches is taken.
"""

import sys

from benchmarks.kafka import compare_over_kafka
from benchmarks.measure import Subject, parse_options
from benchmarks.peers.castlegate import castlegate

_VARIANTS = {"castlegate": None, "always prompt": 1_000_000, "always batching": 0}


def main() -> int:
    """Run it; 1 if it cannot be run or requests failed."""
    options = parse_options("Request-reply over Kafka with two producers, and with one.")
    return compare_over_kafka("Producers of requests", _subjects, options, warm_up_s=5)


def _subjects(bootstrap: str, config: str) -> list[Subject]:
    made = []
    for name, above in _VARIANTS.items():
        said = "" if above is None else f", linger_above: {above}"
        made.append(castlegate(config.replace('"${KAFKA}"', f'"${{KAFKA}}"{said}', 1), {"KAFKA": bootstrap}, name=name))
    return made


if __name__ == "__main__":
    sys.exit(main())
