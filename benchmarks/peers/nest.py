"""The gateway that teams write by hand, peers/nest_gateway, as a subject."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from benchmarks.measure import SUBJECT_CORE, Running, Subject, pinned
from tests.testbeds.node import prepare_node_program
from tests.testbeds.processes import Program, free_port


def nest_gateway(bootstrap: str) -> Subject:
    """NestJS with Fastify and kafkajs; the topics `bench.echo` and `bench.echo.reply` must exist."""
    return Subject("nestjs", lambda _: _start(bootstrap))


@contextlib.contextmanager
def _start(bootstrap: str) -> Iterator[Running]:
    built = prepare_node_program(Path(__file__).with_name("nest_gateway"))
    port = free_port()
    env = {"KAFKA": bootstrap, "PORT": str(port), "NODE_ENV": "production"}
    with Program(pinned(SUBJECT_CORE, built.command), name="nest gateway", env=env) as program:
        program.wait_for_line(r"^ready", 60)
        yield Running(f"http://127.0.0.1:{port}", program)
