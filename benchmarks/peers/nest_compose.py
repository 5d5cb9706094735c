"""The composing gateway that teams write by hand, peers/nest_compose, as a subject."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from benchmarks.measure import SUBJECT_CORE, Running, Subject, pinned
from tests.testbeds.node import prepare_node_program
from tests.testbeds.processes import Program, free_port


def nest_compose(origin_port: int, bootstrap: str | None = None) -> Subject:
    """NestJS with Fastify and undici; with a broker also kafkajs, whose topics must exist."""
    return Subject("nestjs", lambda _: _start(origin_port, bootstrap))


@contextlib.contextmanager
def _start(origin_port: int, bootstrap: str | None) -> Iterator[Running]:
    built = prepare_node_program(Path(__file__).with_name("nest_compose"))
    port = free_port()
    env = {"ORIGIN": f"http://127.0.0.1:{origin_port}", "PORT": str(port), "NODE_ENV": "production"}
    if bootstrap is not None:
        env["KAFKA"] = bootstrap
    with Program(pinned(SUBJECT_CORE, built.command), name="nest gateway", env=env) as program:
        program.wait_for_line(r"^ready", 60)
        yield Running(f"http://127.0.0.1:{port}", program)
