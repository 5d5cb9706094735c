"""Node.js programs: dependencies installed and TypeScript compiled in the cache, once per state of the sources."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.testbeds.cache import cache_root, prepared
from tests.testbeds.kafka import Unprepared

MINIMUM = 20  # NestJS 12 asks for it


@dataclass(frozen=True, slots=True)
class Node:
    """Where node is, and the words that call npm with it."""

    node: Path
    npm: Path
    major: int
    path: str  # npm and its scripts look `node` up there: it must be the same one


@dataclass(frozen=True, slots=True)
class NodeProgram:
    """A compiled package, ready to be started."""

    folder: Path
    command: tuple[str, ...]


def find_node() -> Node:
    """The Node beside this Python, where scripts/setup puts one if the system's is missing or too old; else that."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    node, npm = shutil.which("node", path=path), shutil.which("npm", path=path)
    if node is None or npm is None or (major := _major(node)) < MINIMUM:
        raise Unprepared(f"Node.js {MINIMUM} or later with npm is not on the PATH; scripts/setup brings one")
    return Node(Path(node), Path(npm), major, path)


def prepare_node_program(package: Path) -> NodeProgram:
    """Install and compile the package in this folder (package.json, tsconfig.json, src/); say how to run it."""
    node = find_node()
    sources = sorted((package / "src").rglob("*.ts"))
    settings = [package / "tsconfig.json"]
    installed = _modules(node, package)
    state = _digest(package, [*_manifest(package), *settings, *sources], str(node.major))
    program = prepared(
        cache_root() / "node" / f"{_label(package)}-{state}", lambda folder: _compile(node, package, installed, folder)
    )
    return NodeProgram(program, (str(node.node), str(program / "dist" / "main.js")))


def prepare_node_script(package: Path) -> NodeProgram:
    """Install what the package in this folder depends on (package.json, main.js); say how to run it."""
    node = find_node()
    installed = _modules(node, package)
    script = package / "main.js"
    program = prepared(
        cache_root() / "node" / f"{_label(package)}-{_digest(package, [*_manifest(package), script], str(node.major))}",
        lambda folder: _place(package, installed, folder),
    )
    return NodeProgram(program, (str(node.node), str(program / "main.js")))


def _modules(node: Node, package: Path) -> Path:
    """The folder with the package's dependencies."""
    manifest = _manifest(package)
    return prepared(
        cache_root() / "node" / f"{_label(package)}-modules-{_digest(package, manifest, str(node.major))}",
        lambda folder: _install(node, manifest, folder),
    )


def _manifest(package: Path) -> list[Path]:
    return [path for name in ("package.json", ".npmrc") if (path := package / name).exists()]


def _label(package: Path) -> str:
    return "-".join(package.parts[-2:])


def _place(package: Path, installed: Path, folder: Path) -> None:
    for name in ("package.json", "main.js"):
        shutil.copy(package / name, folder)
    (folder / "node_modules").symlink_to(Path("..", installed.name, "node_modules"))  # the cache may be moved


def _install(node: Node, manifest: Iterable[Path], folder: Path) -> None:
    for path in manifest:
        shutil.copy(path, folder)
    _run([str(node.npm), "install", "--no-audit", "--no-fund"], folder, node)


def _compile(node: Node, package: Path, installed: Path, folder: Path) -> None:
    for name in ("package.json", "tsconfig.json"):
        shutil.copy(package / name, folder)
    shutil.copytree(package / "src", folder / "src")
    (folder / "node_modules").symlink_to(Path("..", installed.name, "node_modules"))
    _run([str(node.node), "node_modules/typescript/bin/tsc", "-p", ".", "--outDir", "dist"], folder, node)


def _run(command: list[str], folder: Path, node: Node) -> None:
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PATH": node.path},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise Unprepared(f"`{' '.join(command)}` failed:\n{done.stdout}{done.stderr}")


def _digest(package: Path, files: Iterable[Path], *more: str) -> str:
    state = hashlib.sha256("\0".join(more).encode())
    for path in files:
        state.update(f"\0{path.relative_to(package)}\0".encode() + path.read_bytes())
    return state.hexdigest()[:12]


def _major(node: str) -> int:
    said = subprocess.run([node, "--version"], capture_output=True, text=True, check=False).stdout
    version = re.match(r"v(\d+)\.", said)
    return int(version[1]) if version else 0
