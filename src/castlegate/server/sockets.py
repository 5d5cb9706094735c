"""The listening sockets: opened once by the supervisor, handed to workers, there while a worker is replaced.

On Linux each worker has a socket of its own on the same port (SO_REUSEPORT): the kernel spreads connections evenly,
where one socket shared by several event loops would feed the first to wake. What waits in the queue of a worker that
died is served by the one that replaces it. Elsewhere all share one socket.
"""

from __future__ import annotations

import socket
import sys

from castlegate.config.addresses import parse_address

_BACKLOG = 2048


def listen(address: str, count: int = 1) -> list[socket.socket]:
    """`count` sockets on one address, all listening; raises `OSError` with words for operators."""
    host, port = parse_address(address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    spread = count > 1 and sys.platform == "linux"
    first = _bind(address, family, host, port, spread=spread)
    if not spread:
        first.listen(_BACKLOG)
        return [first] * count
    port = first.getsockname()[1]
    sockets = [first, *(_bind(address, family, host, port, spread=True, probe=False) for _ in range(count - 1))]
    for each in sockets:
        each.listen(_BACKLOG)
    return sockets


def _bind(
    address: str, family: socket.AddressFamily, host: str, port: int, *, spread: bool, probe: bool = True
) -> socket.socket:
    try:
        if spread and probe and port:
            # Sharing a port would also share it with another gateway that was started by mistake.
            with socket.socket(family, socket.SOCK_STREAM) as probing:
                probing.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probing.bind((host, port))
                probing.listen()
        opened = socket.socket(family, socket.SOCK_STREAM)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if spread:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        opened.bind((host, port))
    except OSError as error:
        raise OSError(error.errno, f"cannot listen on {address}: {error.strerror}") from error
    opened.setblocking(False)
    return opened


def place_of(listening: socket.socket) -> str:
    """`host:port`, as it stands in URLs."""
    host, port = listening.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
