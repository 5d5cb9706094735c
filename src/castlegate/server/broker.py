"""The embedded broker beside the gateway, as a program of its own, where the configuration asks for it by name."""

from __future__ import annotations

import contextlib
import select
import subprocess
import sys
from collections.abc import Iterator

from castlegate.upstreams.kafka.settings import EMBEDDED, Kafka

_START_S = 15.0  # for the program to say that it listens


@contextlib.contextmanager
def embedded_broker(kafka: Kafka | None) -> Iterator[None]:
    """Runs it for as long as the context lasts, if `kafka` says `embedded`. Raises `OSError`."""
    if kafka is None or kafka.bootstrap != "embedded":
        yield
        return
    command = [sys.executable, "-m", "castlegate_broker", "--listen", EMBEDDED, "--exit-with-parent"]
    broker = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)  # noqa: S603
    try:
        assert broker.stdout is not None
        told, _, _ = select.select([broker.stdout], [], [], _START_S)
        if not told or not broker.stdout.readline().startswith(b"listening on "):
            raise OSError(f"the embedded broker did not start on {EMBEDDED}")
        yield
    finally:
        broker.terminate()
        try:
            broker.wait(timeout=5)
        except subprocess.TimeoutExpired:
            broker.kill()
            broker.wait()
