"""The gateway as users run it: `castlegate run` on a configuration, on free ports."""

import json
import re
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from tests.testbeds.processes import Program
from tests.testbeds.schema import assert_in_schema

_LISTENS = r"listens on https?://(?:[0-9.]+|\[[0-9a-f:]+\]):(\d+) .* on http://[0-9.]+:(\d+)"


class Gateway:
    """A running gateway; `port` is for clients, `admin` for operators."""

    def __init__(self, folder: Path, config: str, env: Mapping[str, str] | None = None) -> None:
        """`config` without `listen`'s address, `admin` and `access_log`, which are put before it."""
        self.access_log = folder / "access.log"
        self.path = folder / "gateway.yaml"
        self.rewrite(config)
        assert_in_schema(self.path)
        self.program = Program(self.command(self.path), name="castlegate", env=env, log=folder / "castlegate.log")
        found = self.program.wait_for_line(_LISTENS)
        self.port, self.admin = int(found[1]), int(found[2])
        self.program.wait_until(lambda: self._status("/health") == 200, "an answer of /health")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @classmethod
    def command(cls, path: Path) -> list[str | Path]:
        """Runs a gateway on a file."""
        return [sys.executable, "-m", "castlegate.cli.main", "run", path]

    def rewrite(self, config: str) -> None:
        """Another configuration in the same file."""
        listen = "" if _says("listen", config) else "listen: 127.0.0.1:0\n"
        admin = "" if _says("admin", config) else "admin: 127.0.0.1:0\n"
        log = "" if _says("access_log", config) else f"access_log: {self.access_log}\n"
        self.path.write_text(f"{listen}{admin}{log}{config}")

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        return self.program.terminate()

    def metrics(self) -> dict[str, float]:
        """Every sample by its name with labels."""
        text = self.metrics_text("text/plain")
        return {name: float(value) for name, value in re.findall(r"^([^#\s].*) (\S+)$", text, re.MULTILINE)}

    def metrics_text(self, accept: str) -> str:
        """As it is served."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.admin}/metrics", headers={"Accept": accept})
        with urllib.request.urlopen(request, timeout=5) as answer:
            text: str = answer.read().decode()
            return text

    def workers(self) -> list[dict[str, Any]]:
        """What the admin port tells of them."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/workers", timeout=5) as answer:
            workers: list[dict[str, Any]] = json.loads(answer.read())
            return workers

    def services(self) -> dict[str, Any]:
        """What the admin port tells of services' instances."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/services", timeout=5) as answer:
            services: dict[str, Any] = json.loads(answer.read())
            return services

    def instances(self, service: str) -> dict[str, dict[str, Any]]:
        """Those of one service by their names."""
        return {each["instance"]: each for each in self.services()[service]["instances"]}

    def order(self, path: str) -> tuple[int, dict[str, Any]]:
        """POST to the admin port; status and document."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.admin}{path}", method="POST")
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.loads(error.read())

    def readiness(self) -> tuple[int, dict[str, Any]]:
        """Status and document of /ready."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/ready", timeout=5) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.loads(error.read())

    def wait_logged(self, count: int, timeout_s: float = 5.0) -> list[dict[str, Any]]:
        """The lines of the access log, when there are so many."""
        end = time.monotonic() + timeout_s
        while True:
            text = self.access_log.read_text() if self.access_log.exists() else ""
            lines = text.split("\n")[:-1]
            if len(lines) >= count:
                return [json.loads(line) for line in lines]
            assert time.monotonic() < end, f"{len(lines)} of {count} requests logged\n{self.program.tail()}"
            time.sleep(0.01)

    def _status(self, path: str) -> int:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}{path}", timeout=5) as answer:
                status: int = answer.status
                return status
        except OSError:
            return 0


def _says(key: str, config: str) -> bool:
    """Whether a configuration has this key of its own: a route may be called so too."""
    return re.search(rf"^{key}:", config, re.MULTILINE) is not None
