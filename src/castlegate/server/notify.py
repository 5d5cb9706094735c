"""Tells the service manager how it stands (systemd's sd_notify protocol); nothing where there is none."""

from __future__ import annotations

import os
import socket


def notify(state: str) -> None:
    """Such as `READY=1`, `RELOADING=1`, `STOPPING=1`."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as manager:
        manager.connect(address)
        manager.sendall(state.encode())
