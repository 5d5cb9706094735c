"""The embedded broker as a program of its own, with the same handles as the real Kafka's."""

import sys
from pathlib import Path

from tests.testbeds.cache import REPO
from tests.testbeds.processes import Program


class EmbeddedBroker:
    """A running `castlegate_broker`; it keeps nothing, so a restarted one is empty."""

    kind = "embedded"

    def __init__(self, *arguments: str, log: Path | None = None) -> None:
        """Start it on a free port, with more `arguments` if need be, and wait until it listens."""
        self._arguments = arguments
        self._log = log
        self._program = self._start("127.0.0.1:0")
        self.bootstrap = self._listening()
        self.port = int(self.bootstrap.rpartition(":")[2])

    @property
    def pid(self) -> int:
        """The broker's process id."""
        return self._program.pid

    @property
    def program(self) -> Program:
        """The running broker and its output."""
        return self._program

    def stop(self) -> None:
        """Ask it to end."""
        self._program.terminate()

    def kill(self) -> None:
        """End it as a crash would."""
        self._program.kill()

    def restart(self) -> None:
        """Start again on the same port, empty."""
        self._program.kill()
        self._program = self._start(self.bootstrap)
        self._listening()

    def freeze(self) -> None:
        """Stop it in its tracks: connections stay open, nothing answers."""
        self._program.freeze()

    def thaw(self) -> None:
        """Let a frozen broker run on."""
        self._program.thaw()

    def discard(self) -> None:
        """Kill it."""
        self._program.kill()

    def _start(self, listen: str) -> Program:
        return Program(
            [sys.executable, "-m", "castlegate_broker", "--listen", listen, *self._arguments],
            name="embedded broker",
            cwd=REPO,
            env={"PYTHONPATH": str(REPO / "src")},
            log=self._log,
        )

    def _listening(self) -> str:
        try:
            return self._program.wait_for_line(r"^listening on (\S+)")[1]
        except BaseException:
            self._program.kill()
            raise
