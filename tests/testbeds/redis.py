"""A real Redis that keeps nothing, on a port of its own."""

from pathlib import Path

from tests.testbeds.certificates import Pair
from tests.testbeds.processes import Program, free_port


class RedisServer(Program):
    """A running one. Stopped and started anew on the same port by `RedisServer(folder, port=before.port)`."""

    def __init__(self, folder: Path, *, port: int = 0, password: str = "", tls: Pair | None = None) -> None:
        self.port = port or free_port()
        command: list[str | Path] = ["redis-server", "--bind", "127.0.0.1", "--save", "", "--dir", folder]
        if tls is None:
            command += ["--port", str(self.port)]
        else:
            command += ["--port", "0", "--tls-port", str(self.port), "--tls-auth-clients", "no"]
            command += ["--tls-cert-file", tls.cert, "--tls-key-file", tls.key]
        if password:
            command += ["--requirepass", password]
        super().__init__(command, name="redis", log=folder / "redis.log")
        self.wait_for_line("Ready to accept connections")

    @property
    def url(self) -> str:
        """Without TLS and password."""
        return f"redis://127.0.0.1:{self.port}"
