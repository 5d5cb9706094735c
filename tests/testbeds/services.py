"""The sample and test services as programs on a given broker, ready when returned: consuming all their partitions."""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.testbeds.cache import REPO
from tests.testbeds.java import prepare_java_program
from tests.testbeds.node import prepare_node_program
from tests.testbeds.processes import Program, free_port
from tests.testbeds.topics import create_topics

SERVICES = REPO / "tests" / "services"
SHOP = REPO / "examples" / "shop"
_READY_S = 60.0

NEST_TOPICS = [
    "orders.get", "nest.echo", "nest.number", "nest.text", "nest.nothing", "nest.list", "nest.shaped", "nest.record",
    "nest.fail", "nest.reject", "nest.slow", "nest.silent", "nest.stream", "nest.large", "nest.late",
    "nest.verify",
]  # fmt: skip
FASTSTREAM_TOPICS = [
    "fs.echo", "fs.fail", "fs.slow", "fs.none", "fs.text", "fs.bytes", "fs.json", "fs.reply", "fs.events",
]  # fmt: skip
SPRING_TOPICS = [
    "spring.echo", "spring.object", "spring.text", "spring.typed", "spring.quoted", "spring.created", "spring.told",
    "spring.fail", "spring.void", "spring.null", "spring.fixed", "spring.fixed.replies",
]  # fmt: skip
PLAIN_TOPICS = ["plain.script"]
SHOP_TOPICS = [
    "orders.get", "orders.list", "orders.create", "orders.report", "orders.placed",
    "stock.check", "stock.prices", "stock.audit", "stock.adjusted",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Service:
    """A running service and its ledger: one JSON object for each request it handled."""

    program: Program
    ledger: Path

    def handled(self, **wanted: object) -> list[dict[str, Any]]:
        """The ledger's entries so far whose fields have the `wanted` values."""
        # Behind the last line feed stands what is still being written. Other ends of lines may stand inside of JSON.
        *lines, _ = self.ledger.read_text().split("\n")
        entries: list[dict[str, Any]] = [json.loads(line) for line in lines]
        return [entry for entry in entries if all(entry.get(key) == value for key, value in wanted.items())]

    def wait_handled(self, count: int = 1, timeout_s: float = 10.0, **wanted: object) -> list[dict[str, Any]]:
        """Wait until so many such requests have been handled."""
        found: list[dict[str, Any]] = []

        def enough() -> bool:
            found[:] = self.handled(**wanted)
            return len(found) >= count

        self.program.wait_until(enough, f"{count} handled requests with {wanted}", timeout_s)
        return found


def start_nest(bootstrap: str, folder: Path) -> Service:
    """NestJS with handlers of every kind; its topics have 4 partitions."""
    program = prepare_node_program(SERVICES / "nest")
    create_topics(bootstrap, dict.fromkeys(NEST_TOPICS, 4))
    return _start("nest", program.command, bootstrap, folder)


def start_faststream(bootstrap: str, folder: Path) -> Service:
    """FastStream with handlers of every kind; its topics have 4 partitions."""
    create_topics(bootstrap, dict.fromkeys(FASTSTREAM_TOPICS, 4))
    return _start("faststream", [sys.executable, SERVICES / "faststream" / "service.py"], bootstrap, folder)


def start_authorizer(bootstrap: str, folder: Path) -> Service:
    """A FastStream service that judges tokens, on the topic `auth.verify`."""
    create_topics(bootstrap, {"auth.verify": 4})
    return _start("authorizer", [sys.executable, SERVICES / "faststream" / "authorizer.py"], bootstrap, folder)


def start_spring(bootstrap: str, folder: Path) -> Service:
    """spring-kafka with listeners of every kind; its topics have 4 partitions."""
    program = prepare_java_program(SERVICES / "spring", "testbed.Service")
    create_topics(bootstrap, dict.fromkeys(SPRING_TOPICS, 4))
    return _start("spring", program.command, bootstrap, folder)


def start_plain(bootstrap: str, folder: Path, env: Mapping[str, str] | None = None) -> Service:
    """The scripted responder; `env` may name other topics and headers (see its first lines)."""
    topics = (env or {}).get("TOPICS", ",".join(PLAIN_TOPICS)).split(",")
    create_topics(bootstrap, dict.fromkeys(topics, 4))
    return _start("plain", [sys.executable, SERVICES / "plain.py"], bootstrap, folder, env)


def start_shop(bootstrap: str, folder: Path) -> "Shop":
    """The services of examples/shop that most tests need."""
    create_topics(bootstrap, dict.fromkeys(SHOP_TOPICS, 4))
    orders = prepare_node_program(SHOP / "orders")
    port = free_port()
    commands: dict[str, tuple[list[str | Path], dict[str, str]]] = {
        "users": ([sys.executable, SHOP / "users" / "service.py"], {"PORT": str(port)}),
        "orders": (list(orders.command), {}),
        "stock": ([sys.executable, SHOP / "stock" / "service.py"], {}),
    }
    programs: dict[str, Program] = {}
    try:
        for name, (command, env) in commands.items():
            log = folder / f"{name}.log"
            programs[name] = Program(command, name=f"shop {name}", env={"KAFKA": bootstrap, **env}, log=log)
        for program in programs.values():
            program.wait_for_line(r"\bready\b", _READY_S)
    except BaseException:
        for program in programs.values():
            program.kill()
        raise
    return Shop(f"http://127.0.0.1:{port}", programs["users"], programs["orders"], programs["stock"])


@dataclass(frozen=True, slots=True)
class Shop:
    """The running shop: where its HTTP service listens, and its programs."""

    users_url: str
    users: Program
    orders: Program
    stock: Program

    def terminate(self) -> None:
        """End all three."""
        for program in (self.users, self.orders, self.stock):
            program.terminate()


def _start(
    name: str,
    command: "list[str | Path] | tuple[str, ...]",
    bootstrap: str,
    folder: Path,
    env: Mapping[str, str] | None = None,
) -> Service:
    ledger = folder / f"{name}.ledger.jsonl"
    ledger.touch()
    settings = {"BOOTSTRAP": bootstrap, "LEDGER": str(ledger), **(env or {})}
    program = Program(command, name=f"{name} service", env=settings, log=folder / f"{name}.log")
    try:
        program.wait_for_line(r"^ready\b", _READY_S)
    except BaseException:
        program.kill()
        raise
    return Service(program, ledger)
