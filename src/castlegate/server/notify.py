"""Tells the service manager how it stands (systemd's sd_notify protocol); nothing where there is none."""

from __future__ import annotations

import logging
import os
import socket

logger = logging.getLogger("castlegate.supervisor")


def notify(state: str) -> None:
    """Such as `READY=1`, `RELOADING=1`, `STOPPING=1`."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.connect(address)
            manager.sendall(state.encode())
    except OSError as error:  # a manager that is not there is no reason to serve nobody
        logger.warning("the service manager could not be told '%s': %s", state, error.strerror)
