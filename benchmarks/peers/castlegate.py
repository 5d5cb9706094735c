"""castlegate itself as a subject: `castlegate run CONFIG` on the subject's core."""

import contextlib
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from benchmarks.measure import SUBJECT_CORE, CannotMeasure, Running, Subject, pinned
from tests.testbeds.processes import Program, free_port


def castlegate(config: str, env: Mapping[str, str], *, cores: int = 1, name: str = "castlegate") -> Subject:
    """The gateway with this configuration, whose variables are `env`, PORT, ADMIN_PORT and ACCESS_LOG."""
    return Subject(name, lambda folder: _start(config, env, folder, cores))


@contextlib.contextmanager
def _start(config: str, env: Mapping[str, str], folder: Path, cores: int) -> Iterator[Running]:
    program_file = Path(sys.executable).with_name("castlegate")
    if not program_file.exists():
        raise CannotMeasure("castlegate is not installed here: uv pip install -e .")
    port, admin = free_port(), free_port()
    file = folder / "gateway.yaml"
    file.write_text(config)
    settings = {
        **env,
        "PORT": str(port),
        "ADMIN_PORT": str(admin),
        "ACCESS_LOG": str(folder / "access.log"),
    }
    command: list[str | Path] = [program_file, "run", file]
    pinning = pinned(SUBJECT_CORE, command) if cores == 1 else command
    with Program(pinning, name="castlegate", env=settings) as program:
        program.wait_for_port(port)
        yield Running(f"http://127.0.0.1:{port}", program, f"http://127.0.0.1:{admin}")
