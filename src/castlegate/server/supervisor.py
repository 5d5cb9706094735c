"""The program that `castlegate run` is: opens the sockets, starts the worker with them, stops it on SIGTERM.

With `bootstrap: embedded` it also starts the in-memory broker, as a program of its own, before the worker.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import FrameType

from castlegate.config.addresses import parse_address
from castlegate.document import Document, load
from castlegate.telemetry.access_log import LOG_FLAGS, LOG_MODE
from castlegate.upstreams.kafka.settings import EMBEDDED


def run(config: Path) -> int:
    """Serve until told to stop; returns the exit status. Raises `ConfigError` and `OSError` (address in use)."""
    document = load(config).document
    _check_log(document.access_log.path)
    listening, admin = _listen(document.listen.address), _listen(document.admin.address)
    broker = _start_broker() if document.kafka is not None and document.kafka.bootstrap == "embedded" else None
    try:
        return _serve(config, document, listening, admin)
    finally:
        if broker is not None:
            broker.terminate()
            broker.wait(timeout=5)


def _serve(config: Path, document: Document, listening: socket.socket, admin: socket.socket) -> int:
    """Run the worker: it says through one pipe that it serves, and learns by the other's end that we are gone."""
    ready, tell_ready = os.pipe()
    alive, keep_alive = os.pipe()
    handed = {"--listen": listening.fileno(), "--admin": admin.fileno(), "--ready": tell_ready, "--supervisor": alive}
    command = [sys.executable, "-m", "castlegate.server.worker", str(config)]
    for name, descriptor in handed.items():
        command += [name, str(descriptor)]
    stopping = False

    def stop(_number: int, _frame: FrameType | None) -> None:
        nonlocal stopping
        stopping = True
        worker.terminate()

    worker = subprocess.Popen(command, pass_fds=tuple(handed.values()), start_new_session=True)  # noqa: S603
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    os.close(tell_ready)
    os.close(alive)
    if os.read(ready, 1):
        _announce(document, listening, admin)
    listening.close()
    admin.close()
    status = worker.wait()
    os.close(ready)
    os.close(keep_alive)
    # Stopped before it could listen for the signal, it dies of it: that is no failure either.
    return 0 if stopping and status == -signal.SIGTERM else status


def _check_log(path: str) -> None:
    if path in ("stdout", "off"):
        return
    try:
        os.close(os.open(path, LOG_FLAGS, LOG_MODE))
    except OSError as error:
        raise OSError(error.errno, f"the access log {path} cannot be written: {error.strerror}") from error


def _announce(document: Document, listening: socket.socket, admin: socket.socket) -> None:
    host, port = listening.getsockname()[:2]
    scheme = "http" if document.listen.tls is None else "https"
    sys.stderr.write(
        f"castlegate listens on {scheme}://{host}:{port} with {len(document.routes)} routes; "
        f"health, readiness and metrics are on http://{admin.getsockname()[0]}:{admin.getsockname()[1]}\n"
    )
    sys.stderr.flush()


def _listen(address: str) -> socket.socket:
    host, port = parse_address(address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise OSError(error.errno, f"cannot listen on {address}: {error.strerror}") from error
    listening.listen(2048)
    listening.setblocking(False)
    return listening


def _start_broker() -> subprocess.Popen[bytes]:
    """The embedded broker; returns when it listens."""
    command = [sys.executable, "-m", "castlegate_broker", "--listen", EMBEDDED, "--exit-with-parent"]
    broker = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True, env=dict(os.environ))  # noqa: S603
    assert broker.stdout is not None
    if not broker.stdout.readline().startswith(b"listening on "):
        broker.wait(timeout=5)
        raise OSError(f"the embedded broker did not start on {EMBEDDED}")
    return broker
