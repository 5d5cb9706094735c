"""`castlegate demo`: the shop of examples/shop with its broker and a gateway, and requests that show what happens.

Everything runs as a program of its own, as it would elsewhere; their output is in files of one folder.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import click
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

SHOP = Path(__file__).parents[3] / "examples" / "shop"

_TOPICS = (
    "stock.check",
    "stock.prices",
    "stock.audit",
    "stock.list",
    "stock.reserve",
    "stock.adjusted",
    "orders.placed",
    "orders.get",
    "orders.list",
    "orders.create",
    "orders.report",
)
_START_S = 60.0
_NODE = 20  # NestJS 12 asks for it


class Trial(NamedTuple):
    """A request of the demo and what must come of it."""

    shows: str
    method: str
    path: str
    body: object
    status: int
    outcome: str | None = None  # what the problem document says
    nest: bool = False  # needs the NestJS service
    of: str | None = None  # who sends it, after a login
    times: int = 1  # how often it is sent; the last answer is shown
    ended: str | None = None  # the service that is ended before


TRIALS = (
    Trial("Kafka request-reply with a FastStream service", "GET", "/stock/lamp", None, 200),
    Trial("Kafka request-reply with a NestJS service", "GET", "/orders/1", None, 200, nest=True),
    Trial("a request proxied to a plain HTTP service", "GET", "/users/1", None, 200),
    Trial("one answer made of four services", "GET", "/home/1", None, 200),
    Trial("an event, acknowledged by the broker", "POST", "/adjustments", {"sku": "lamp", "by": 3}, 202),
    Trial("the NestJS service's own error", "GET", "/orders/999", None, 404, "answered", nest=True),
    Trial("the HTTP service's own error", "GET", "/users/999", None, 404),
    Trial("a service that takes too long", "GET", "/audit", None, 504, "unknown"),
    Trial("without a token", "POST", "/reservations", {"sku": "lamp"}, 401),
    Trial("with one; the Kafka service is told who it is", "POST", "/reservations", {"sku": "lamp"}, 201, of="ada"),
    Trial("a customer without the scope", "POST", "/reservations", {"sku": "lamp"}, 403, of="linus"),
    Trial("what a policy leaves to staff", "GET", "/stock", None, 403, of="linus"),
    Trial("the same as staff", "GET", "/stock", None, 200, of="ada"),
    Trial("a guessed password", "POST", "/auth/login", {"name": "ada", "password": "guess"}, 401),
    Trial("the twelfth guess in a row", "POST", "/auth/login", {"name": "ada", "password": "guess"}, 429, times=12),
    Trial("the home page after its recommendations service has died", "GET", "/home/1", None, 200, ended="recs"),
)

_PASSWORDS = {"ada": "lovelace", "linus": "penguin"}


class DemoFailed(Exception):
    """It cannot go on; says why and what to do."""


class Programs:
    """The programs of the demo, ended in the opposite order when the demo ends."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, command: Sequence[str | Path], env: Mapping[str, str], ready: str) -> re.Match[str]:
        """Start a program and wait until it prints what `ready` matches."""
        click.echo(f"  {name} ... ", nl=False)
        path = self.folder / f"{name}.log"
        with path.open("wb") as output:
            program = subprocess.Popen(  # noqa: S603 - our own programs
                [str(word) for word in command],
                env={**os.environ, "PYTHONUNBUFFERED": "1", **env},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the demo, which ends them in order
            )
        self._running[name] = program
        end = time.monotonic() + _START_S
        while (found := re.search(ready, path.read_text(errors="replace"), re.MULTILINE)) is None:
            if program.poll() is not None or time.monotonic() > end:
                said = "\n".join(path.read_text(errors="replace").splitlines()[-15:])
                raise DemoFailed(f"{name} did not start; its output is in {path}:\n{said}")
            time.sleep(0.02)
        click.echo("ready")
        return found

    def kill(self, name: str) -> None:
        """End one as a crash would."""
        self._running[name].kill()
        self._running[name].wait()

    def stop(self) -> None:
        """End them all."""
        for program in reversed(self._running.values()):
            program.terminate()
            try:
                program.wait(timeout=10)
            except subprocess.TimeoutExpired:
                program.kill()
                program.wait()


class Shop(NamedTuple):
    """The running services, as the gateway is told of them."""

    kafka: str
    users: str
    recs: str
    nest: bool


def run(port: int, *, once: bool) -> bool:
    """Start the shop, show the requests, wait for Ctrl-C unless `once`; whether all went as they should."""
    if not (SHOP / "gateway.yaml").exists():
        raise DemoFailed("the demo's services are in the repository: run scripts/demo in a clone of it")
    if find_spec("faststream") is None:
        raise DemoFailed("the sample services need more packages: pip install -r requirements/shop.txt")
    with tempfile.TemporaryDirectory(prefix="castlegate-demo-") as folder, _programs(Path(folder)) as programs:
        _check_port(port)
        click.secho("Starting", bold=True)
        shop = _start_shop(programs)
        gateway, admin = _start_gateway(programs, shop, port)
        good = _show(gateway, programs, nest=shop.nest)
        if not once:
            _tell_what_next(gateway, admin, Path(folder))
            while True:
                time.sleep(3600)
        return good


def _check_port(port: int) -> None:
    """Before anything is started."""
    with socket.socket() as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind(("127.0.0.1", port))
        except OSError as error:
            hint = f"{error.strerror}; take another: scripts/demo --port 0"
            raise DemoFailed(f"cannot listen on 127.0.0.1:{port}: {hint}") from error


@contextlib.contextmanager
def _programs(folder: Path) -> Iterator[Programs]:
    programs = Programs(folder)
    try:
        yield programs
    finally:
        click.echo("\nstopping")
        programs.stop()


def _start_shop(programs: Programs) -> Shop:
    orders = _build_orders()
    broker = [sys.executable, "-m", "castlegate_broker", "--listen", "127.0.0.1:0", "--exit-with-parent"]
    kafka = programs.start("broker", broker, {}, r"^listening on (\S+)$")[1]
    _create_topics(kafka)
    users, recs = [
        programs.start(name, [sys.executable, SHOP / name / "service.py"], {"PORT": "0"}, r"ready on (\S+)")[1]
        for name in ("users", "recs")
    ]
    programs.start("stock", [sys.executable, SHOP / "stock" / "service.py"], {"KAFKA": kafka}, r"\bready\b")
    if orders is not None:
        programs.start("orders", orders, {"KAFKA": kafka}, r"\bready\b")
    return Shop(kafka, users, recs, orders is not None)


def _create_topics(kafka: str) -> None:
    admin = AdminClient({"bootstrap.servers": kafka, "log_level": 3})
    made = admin.create_topics([NewTopic(topic, num_partitions=4, replication_factor=1) for topic in _TOPICS])
    try:
        for each in made.values():
            each.result(10)
    except KafkaException as error:
        raise DemoFailed(f"the broker did not make the topics: {error}") from error


def _build_orders() -> list[str | Path] | None:
    """The NestJS service's command, built if need be; None without a Node that can run it."""
    # Beside this Python there is one where scripts/setup found the system's too old.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    node, npm = shutil.which("node", path=path), shutil.which("npm", path=path)
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=False).stdout if node else ""  # noqa: S603
    major = re.match(r"v(\d+)\.", version)
    if node is None or npm is None or major is None or int(major[1]) < _NODE:
        click.echo(f"  without the NestJS service: it needs Node.js {_NODE} or later; scripts/setup brings one")
        return None
    package = SHOP / "orders"
    built, sources = package / "dist" / "main.js", [package / "package.json", *(package / "src").iterdir()]
    if not built.exists() or built.stat().st_mtime < max(source.stat().st_mtime for source in sources):
        click.echo("  building the NestJS service, once, with npm (half a minute) ... ", nl=False)
        for words in (["install", "--no-audit", "--no-fund"], ["run", "build"]):
            env = {**os.environ, "PATH": path}  # npm's scripts look `node` up there: it must be the same one
            done = subprocess.run([npm, *words], cwd=package, env=env, capture_output=True, text=True, check=False)  # noqa: S603
            if done.returncode:
                raise DemoFailed(f"`npm {' '.join(words)}` in {package} failed:\n{done.stdout}{done.stderr}")
        click.echo("built")
    return [node, built]


def _start_gateway(programs: Programs, shop: Shop, port: int) -> tuple[int, int]:
    """Its ports, for clients and for operators, when every route can be served."""
    key = programs.folder / "tokens.pem"
    key.touch(0o600)
    key.write_bytes(Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    env = {
        "TOKEN_KEY": str(key),
        "KAFKA": shop.kafka,
        "USERS": shop.users,
        "RECS": shop.recs,
        "LISTEN": f"127.0.0.1:{port}",
        "ADMIN": "127.0.0.1:0",
        "ACCESS_LOG": str(programs.folder / "access.log"),
    }
    command: list[str | Path] = [sys.executable, "-m", "castlegate.cli.main", "run", SHOP / "gateway.yaml"]
    found = programs.start("gateway", command, env, r"listens on http://127\.0\.0\.1:(\d+) .*:(\d+)$")
    gateway, admin = int(found[1]), int(found[2])
    end = time.monotonic() + _START_S
    while _ask(admin, "GET", "/ready", None) != (200, {"status": "ready", "reason": ""}):
        if time.monotonic() > end:
            raise DemoFailed(f"the gateway did not become ready: {_ask(admin, 'GET', '/ready', None)}")
        time.sleep(0.05)
    return gateway, admin


def _ask(port: int, method: str, path: str, body: object, token: str | None = None) -> tuple[int, Any]:
    """Status and document of a request; status 0 if there was no answer."""
    fields = {} if token is None else {"Authorization": f"Bearer {token}"}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=15)
    try:
        connection.request(method, path, None if body is None else json.dumps(body), fields)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read() or b"null")
    except (OSError, http.client.HTTPException, ValueError) as error:
        return 0, str(error)
    finally:
        connection.close()


def _login(port: int, name: str) -> str:
    """A token."""
    status, document = _ask(port, "POST", "/auth/login", {"name": name, "password": _PASSWORDS[name]})
    if status != 200:
        raise DemoFailed(f"{name} could not log in: {status} {document}")
    return str(document["access_token"])


def _show(port: int, programs: Programs, *, nest: bool) -> bool:
    """Make the requests; whether each got what it must."""
    good = True
    logins = {name: _login(port, name) for name in _PASSWORDS}
    click.secho("\nRequests", bold=True)
    for trial in TRIALS:
        if trial.nest and not nest:
            continue
        if trial.ended is not None:
            programs.kill(trial.ended)
        token = None if trial.of is None else logins[trial.of]
        for _ in range(trial.times):
            status, document = _ask(port, trial.method, trial.path, trial.body, token)
        outcome = document.get("outcome") if isinstance(document, dict) else None
        right = (status, outcome) == (trial.status, trial.outcome)
        good = good and right
        click.secho(f"  {trial.method} {trial.path}", bold=True, nl=False)
        click.echo(f"  {trial.shows}" + (f", as {trial.of}" if trial.of else ""))
        click.secho(f"    {status} {json.dumps(document)}", fg="green" if right else "red")
        if not right:
            click.echo(f"    expected {trial.status}, outcome {trial.outcome}", err=True)
    return good


def _tell_what_next(gateway: int, admin: int, folder: Path) -> None:
    click.secho("\nTry", bold=True)
    for line in (
        f"curl -i http://127.0.0.1:{gateway}/stock/chair",
        f'curl -i -d \'{{"sku": "chair", "by": 5}}\' http://127.0.0.1:{gateway}/adjustments    and ask for it again',
        f'TOKEN=$(curl -s -d \'{{"name": "ada", "password": "lovelace"}}\' http://127.0.0.1:{gateway}/auth/login |'
        " python3 -c 'import json, sys; print(json.load(sys.stdin)[\"access_token\"])')",
        f'curl -i -H "Authorization: Bearer $TOKEN" http://127.0.0.1:{gateway}/stock    what only staff may see',
        f"curl -s http://127.0.0.1:{admin}/metrics",
        f"tail -f {folder}/access.log",
        f"less {SHOP / 'gateway.yaml'}    all that the gateway was told",
    ):
        click.echo(f"  {line}")
    click.echo("\nCtrl-C stops everything.")
