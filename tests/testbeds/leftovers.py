"""What a test may leave behind by mistake: open files and sockets, child processes, asyncio tasks.

Descriptors and children are read from /proc: where there is none (macOS) they are not checked.
"""

import asyncio
import gc
import os
import time
from dataclasses import dataclass
from pathlib import Path

from tests.testbeds.processes import lasting_programs

_GRACE_S = 3.0  # librdkafka closes its sockets in threads of its own
_POLL_S = 0.02
_HARMLESS = ("/dev/null", "/dev/urandom")


@dataclass(frozen=True, slots=True)
class Holdings:
    """The descriptors (number and what it is) and child processes that this process has now."""

    descriptors: frozenset[tuple[int, str]]
    children: frozenset[int]

    @classmethod
    def now(cls) -> "Holdings":
        """Read them."""
        return cls(frozenset(_descriptors()), frozenset(_children()))


def left_since(before: Holdings, grace_s: float = _GRACE_S) -> list[str]:
    """Name what was opened or started since and is still there after a short grace; empty if nothing."""
    deadline = time.monotonic() + grace_s
    while (found := _more_than(before)) and time.monotonic() < deadline:
        gc.collect()
        time.sleep(_POLL_S)
    return found


async def left_in_loop_since(before: Holdings) -> list[str]:
    """The same with the tasks of the running loop, which gets turns to end and close what is about to."""
    await asyncio.sleep(0)
    tasks = [f"task {task!r}" for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    deadline = time.monotonic() + _GRACE_S
    while (found := _more_than(before)) and time.monotonic() < deadline:
        gc.collect()
        await asyncio.sleep(_POLL_S)
    return tasks + found


def _more_than(before: Holdings) -> list[str]:
    now = Holdings.now()
    pids, outputs = lasting_programs()
    # A socket or pipe has its inode in its name: another one under an old number is found too.
    found = [
        f"descriptor {number}: {what}"
        for number, what in sorted(now.descriptors - before.descriptors)
        if number not in outputs
    ]
    return found + [f"child process {pid}: {_command(pid)}" for pid in sorted(now.children - before.children - pids)]


def _descriptors() -> list[tuple[int, str]]:
    found = []
    for name in _entries(Path("/proc/self/fd")):
        try:
            what = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue  # the one that listed this folder
        if what not in _HARMLESS:
            found.append((int(name), what))
    return found


def _children() -> list[int]:
    found = []
    for name in filter(str.isdigit, _entries(Path("/proc"))):
        try:
            stat = Path(f"/proc/{name}/stat").read_text()
        except OSError:
            continue  # it has ended
        # The name in brackets may hold anything; after it come the state and the parent.
        if int(stat.rpartition(")")[2].split()[1]) == os.getpid():
            found.append(int(name))
    return found


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
    except OSError:
        return "(ended)"


def _entries(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []
