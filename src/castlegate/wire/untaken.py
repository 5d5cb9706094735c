"""How much of what was written a peer has yet to take: what tells a slow reader from one that does not read."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import termios
from array import array


def untaken(transport: asyncio.Transport) -> int:
    """Bytes that wait in the transport and in the system, which holds megabytes of them on a quick way."""
    held = array("i", [0])
    with contextlib.suppress(OSError):  # a system that does not tell
        fcntl.ioctl(transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, held)
    return transport.get_write_buffer_size() + held[0]
