"""Java programs: dependencies brought by Maven and sources compiled in the cache, once per state of either."""

import hashlib
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.testbeds.cache import cache_root, prepared
from tests.testbeds.kafka import QUICK_START, Unprepared, fetch_jars, find_java


@dataclass(frozen=True, slots=True)
class JavaProgram:
    """A compiled program, ready to be started."""

    command: tuple[str, ...]


def prepare_java_program(package: Path, main: str) -> JavaProgram:
    """Fetch what the folder's pom.xml names and compile its src/; say how to run the class `main`."""
    java = find_java()
    pom = package / "pom.xml"
    sources = sorted((package / "src").rglob("*.java"))
    label = "-".join(package.parts[-2:])
    libs = prepared(
        cache_root() / "java" / f"{label}-libs-{_digest(package, [pom])}",
        lambda folder: fetch_jars(pom, folder, label),
    )
    classes = prepared(
        cache_root() / "java" / f"{label}-{_digest(package, [pom, *sources])}",
        lambda folder: _compile(sources, libs, folder),
    )
    return JavaProgram((java, "-Xmx256m", *QUICK_START, "-cp", f"{classes}:{libs}/*", main))


def _compile(sources: Iterable[Path], libs: Path, folder: Path) -> None:
    compiler = shutil.which("javac")
    if compiler is None:
        raise Unprepared("there is no Java compiler (javac) on the PATH: apt-get install default-jdk-headless")
    done = subprocess.run(
        [compiler, "-parameters", "--release", "17", "-d", folder, "-cp", f"{libs}/*", *sources],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise Unprepared(f"javac failed:\n{done.stdout}{done.stderr}")


def _digest(package: Path, files: Iterable[Path]) -> str:
    state = hashlib.sha256()
    for path in files:
        state.update(f"\0{path.relative_to(package)}\0".encode() + path.read_bytes())
    return state.hexdigest()[:12]
