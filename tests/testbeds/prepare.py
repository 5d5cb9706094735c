"""Fetch and compile all that the test beds need: `python -m tests.testbeds.prepare`. Quick when it is there already."""

import functools
import sys
import time
from collections.abc import Callable

from tests.testbeds.cache import REPO, cache_root
from tests.testbeds.java import prepare_java_program
from tests.testbeds.kafka import VERSION, Unprepared, prepare_kafka
from tests.testbeds.node import prepare_node_program, prepare_node_script

_NODE_PROGRAMS = ["tests/services/nest", "examples/shop/orders"]
_NODE_SCRIPTS = ["tests/services/oidc"]
_JAVA_PROGRAMS = {"tests/services/spring": "testbed.Service"}


def main() -> int:
    """Prepare one thing after the other, saying what takes how long; 1 if anything is missing."""
    print(f"preparing test beds in {cache_root()}", flush=True)
    try:
        _step(f"Apache Kafka {VERSION} (Maven)", prepare_kafka)
        for path in _NODE_PROGRAMS:
            _step(f"{path} (npm, TypeScript)", functools.partial(prepare_node_program, REPO / path))
        for path in _NODE_SCRIPTS:
            _step(f"{path} (npm)", functools.partial(prepare_node_script, REPO / path))
        for path, main_class in _JAVA_PROGRAMS.items():
            _step(f"{path} (Maven, javac)", functools.partial(prepare_java_program, REPO / path, main_class))
    except Unprepared as error:
        print(f"failed\n{error}", file=sys.stderr)
        return 1
    return 0


def _step(what: str, prepare: Callable[[], object]) -> None:
    print(f"  {what} ... ", end="", flush=True)
    began = time.monotonic()
    prepare()
    print(f"ready after {time.monotonic() - began:.1f} s", flush=True)


if __name__ == "__main__":
    sys.exit(main())
