"""Child programs of tests and benchmarks: started in a group of their own, listened to, surely ended.

A waiter waits for what the program says or does, with a deadline, and fails at once with the last output
when the program ends before. Every wait blocks: in a coroutine `await asyncio.to_thread(program.wait, ...)`.
"""

import atexit
import collections
import contextlib
import os
import random
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

_KEPT_LINES = 2000
_SHOWN_LINES = 40
_POLL_S = 0.02

_live: set["Program"] = set()


class ProgramFailed(AssertionError):
    """A program ended early, or did not do in time what was waited for."""


class Program:
    """A running child process with the last lines of its output (stdout and stderr as one)."""

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        name: str = "",
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        log: Path | None = None,
        lasting: bool = False,
    ) -> None:
        """Start `command`; `env` is added to this process's own, `log` gets everything it prints.

        A `lasting` one may be started in one test and go on in the next: its owner ends it.
        """
        self.command = [str(word) for word in command]
        self.lasting = lasting
        self.name = name or Path(self.command[0]).name
        self.log = log
        self._lines: collections.deque[str] = collections.deque(maxlen=_KEPT_LINES)
        self._said = 0  # lines ever read; with _lines and _closed guarded by _news
        self._closed = False
        self._news = threading.Condition()
        self._process = subprocess.Popen(
            self.command,
            cwd=cwd,
            env={**os.environ, "PYTHONUNBUFFERED": "1", "NO_COLOR": "1", **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        _live.add(self)
        self._reader = threading.Thread(target=self._read, name=f"output of {self.name}", daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.terminate()

    @property
    def pid(self) -> int:
        """The process id, which is also that of its group."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.poll() is None

    @property
    def returncode(self) -> int | None:
        """Its exit status, negative for a signal, None while it runs."""
        return self._process.poll()

    @property
    def lines(self) -> list[str]:
        """The last lines it printed."""
        with self._news:
            return list(self._lines)

    def wait_for_line(self, pattern: str, timeout_s: float = 30.0, *, after: int = 0) -> re.Match[str]:
        """The first line that `pattern` is found in, printed already or yet to come.

        `after` skips that many first lines: pass an earlier `line_count` to wait for news only.
        """
        sought = re.compile(pattern)
        deadline = time.monotonic() + timeout_s
        seen = after
        with self._news:
            while True:
                fresh = self._said - seen
                for line in list(self._lines)[-fresh:] if fresh > 0 else ():
                    if match := sought.search(line):
                        return match
                seen = max(seen, self._said)
                left = deadline - time.monotonic()
                if self._closed or left <= 0:
                    break
                self._news.wait(left)
        if self._closed:
            # Its output ends a moment before itself; one that only closed it runs on, and is told of as running.
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(1)
        raise self._failure(f"a line with {pattern!r}", timeout_s)

    @property
    def line_count(self) -> int:
        """How many lines it has printed so far."""
        with self._news:
            return self._said

    def wait_for_port(self, port: int, host: str = "127.0.0.1", timeout_s: float = 30.0) -> None:
        """Wait until something accepts connections there."""

        def accepts() -> bool:
            with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=1):
                return True
            return False

        self.wait_until(accepts, f"port {port} to accept connections", timeout_s)

    def wait_until(self, predicate: Callable[[], bool], what: str, timeout_s: float = 30.0) -> None:
        """Wait until `predicate` holds."""
        deadline = time.monotonic() + timeout_s
        while not predicate():
            if not self.running or time.monotonic() > deadline:
                raise self._failure(what, timeout_s)
            time.sleep(_POLL_S)

    def wait(self, timeout_s: float = 30.0) -> int:
        """Wait for its end and return the exit status."""
        try:
            status = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise self._failure("its end", timeout_s) from None
        self._reader.join(timeout_s)
        return status

    def send_signal(self, number: signal.Signals) -> None:
        """Signal the program alone, not what it started."""
        self._process.send_signal(number)

    def freeze(self) -> None:
        """Stop its whole group in its tracks; sockets stay open."""
        self._signal_group(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen group run on."""
        self._signal_group(signal.SIGCONT)

    def terminate(self, grace_s: float = 10.0) -> int:
        """SIGTERM, then SIGKILL if it takes longer than `grace_s`; what it started goes with it."""
        self._signal_group(signal.SIGTERM)
        self._signal_group(signal.SIGCONT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(grace_s)
        return self.kill()

    def kill(self) -> int:
        """SIGKILL for the whole group."""
        self._signal_group(signal.SIGKILL)
        status = self._process.wait()
        self._reader.join(5)
        _live.discard(self)
        return status

    def tail(self) -> str:
        """The last output, as failures show it."""
        shown = "\n".join(f"    {line}" for line in self.lines[-_SHOWN_LINES:]) or "    (nothing)"
        kept = f" (all of it in {self.log})" if self.log else ""
        return f"last output of {self.name}{kept}:\n{shown}"

    def _failure(self, what: str, timeout_s: float) -> ProgramFailed:
        status = self.returncode
        end = f"ended with {status}" if status is not None else f"did not bring it within {timeout_s:g} s"
        return ProgramFailed(f"waiting for {what}: {self.name} {end}; {self.tail()}")

    def _signal_group(self, number: signal.Signals) -> None:
        # The group outlives its leader as long as a member runs, so this is right after the leader's end too.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    def _read(self) -> None:
        assert self._process.stdout is not None
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._process.stdout)
            kept = stack.enter_context(self.log.open("ab")) if self.log else None
            for raw in self._process.stdout:
                if kept:
                    kept.write(raw)
                    kept.flush()
                with self._news:
                    self._lines.append(raw.decode("utf-8", "replace").rstrip("\r\n"))
                    self._said += 1
                    self._news.notify_all()
        with self._news:
            self._closed = True
            self._news.notify_all()


def lasting_programs() -> tuple[set[int], set[int]]:
    """The process ids of those that may outlive a test, and the descriptors that their output is read from."""
    lasting = [program for program in _live if program.lasting]
    outputs = {program._process.stdout.fileno() for program in lasting if program._process.stdout is not None}
    return {program.pid for program in lasting}, outputs


def free_port() -> int:
    """A port nobody listens on, below the range that outgoing connections take theirs from.

    In that range a client that keeps trying a stopped server's port may end up connected to itself. Each process of a
    parallel run has ports of its own: it may stop a server and start it again, and finds the port free.
    """
    process = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    first = 20_000 + process % 8 * 1_500
    for _ in range(200):
        port = random.randrange(first, first + 1_500)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError(f"no free port between {first} and {first + 1_500}")


@atexit.register
def _kill_the_living() -> None:
    for program in list(_live):
        program.kill()
