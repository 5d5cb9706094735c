"""A real Apache Kafka of one node, for tests and benchmarks: started on free ports, stopped, killed, frozen, restarted.

Its jars come once, by Maven, into the cache. Data live in a folder that goes with the object.
"""

import base64
import re
import shutil
import subprocess
import tempfile
import uuid
import weakref
from collections.abc import Iterable, Mapping
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from tests.testbeds.cache import cache_root, prepared
from tests.testbeds.processes import Program, ProgramFailed, free_port

VERSION = "4.4.0"
_POM = Path(__file__).with_name("pom.xml")
QUICK_START = ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]
_START_S = 60.0


class Unprepared(RuntimeError):
    """Something that the test beds need is missing; the message says what and how to get it."""


class RealKafka:
    """One broker; `quick` trades its peak speed for an earlier start: not for benchmarks."""

    kind = "real"

    def __init__(
        self,
        overrides: Mapping[str, str] | None = None,
        *,
        listeners: Iterable[str] = (),
        relayed: Mapping[str, tuple[int, int]] | None = None,
        quick: bool = True,
        log: Path | None = None,
        ports: tuple[int, int] | None = None,
        heap: str = "1g",
        start: bool = True,
        cluster: str | None = None,
        lasting: bool = False,
    ) -> None:
        """Format storage, start, and wait until it answers; `overrides` are lines of server.properties.

        `listeners` are protocols such as SSL that it speaks on ports of their own, see `ports`. `relayed` ones are
        plain, and SASL's with a name and a password: by name the port it listens on and the one that clients are told.
        `ports` are those of broker and controller; a node of several is formatted for its `cluster` and started later.
        A `lasting` one that is restarted by a test goes on after it.
        """
        self._lasting = lasting
        self._java = find_java()
        self._libs = prepare_kafka()
        self._folder = Path(tempfile.mkdtemp(prefix="castlegate-kafka-"))
        self._remove_data = weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self._flags = [f"-Xmx{heap}", *(QUICK_START if quick else [])]
        self._log = log
        self._properties = self._folder / "server.properties"
        port, controller_port = ports or (free_port(), free_port())
        self.port = port
        self.bootstrap = f"127.0.0.1:{port}"
        self.ports = {protocol: free_port() for protocol in listeners}
        own = {"PLAINTEXT": port, **self.ports}
        settings = _properties(own, relayed or {}, controller_port, self._folder / "data") | dict(overrides or {})
        _write(self._properties, settings)
        if cluster is None:
            shutil.copytree(_formatted(self._java, self._libs), self._folder / "data")
        else:
            _format(self._java, self._libs, self._properties, cluster)
        if start:
            self._program = self._start()

    @property
    def pid(self) -> int:
        """The broker's process id."""
        return self._program.pid

    @property
    def program(self) -> Program:
        """The running broker and its output."""
        return self._program

    def stop(self) -> None:
        """Shut down in order, as an operator would; data stay for `restart`."""
        self._program.terminate(grace_s=20)

    def kill(self) -> None:
        """End it as a crash would; data stay for `restart`."""
        self._program.kill()

    def restart(self) -> None:
        """Start again on the same ports with the same data, and wait until it answers."""
        self._program.kill()
        self._program = self._start()

    def launch(self) -> None:
        """Start and do not wait: the first of several nodes answers only when the others are there."""
        self._program = self._launch()

    def freeze(self) -> None:
        """Stop it in its tracks: connections stay open, nothing answers."""
        self._program.freeze()

    def thaw(self) -> None:
        """Let a frozen broker run on."""
        self._program.thaw()

    def discard(self) -> None:
        """Kill it and remove its data."""
        self._program.kill()
        self._remove_data()

    def _launch(self) -> Program:
        command = [self._java, *self._flags, *_run(self._libs, "kafka.Kafka"), str(self._properties)]
        return Program(command, name=f"kafka on {self.port}", cwd=self._folder, log=self._log, lasting=self._lasting)

    def _start(self) -> Program:
        program = self._launch()
        try:
            self.wait_answering(program)
        except BaseException:
            program.kill()
            raise
        return program

    def wait_answering(self, program: Program | None = None) -> None:
        """Wait until it answers."""
        program = program or self._program
        program.wait_for_port(self.port, timeout_s=_START_S)
        program.wait_until(self._answers, "an answer to a metadata request", _START_S)

    def _answers(self) -> bool:
        admin = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})
        try:
            return bool(admin.list_topics(timeout=2).brokers)
        except KafkaException:
            return False


def _formatted(java: str, libs: Path) -> Path:
    """The data of a node 1 that has never run, to be copied: to format them anew takes a JVM and a second."""

    def fill(folder: Path) -> None:
        with tempfile.TemporaryDirectory(prefix="castlegate-kafka-") as config:
            properties = Path(config) / "server.properties"
            settings = _properties({"PLAINTEXT": free_port()}, {}, free_port(), folder)
            _write(properties, settings)
            _format(java, libs, properties, new_cluster_id())

    return prepared(cache_root() / f"kafka-{VERSION}" / "formatted", fill)


def _format(java: str, libs: Path, properties: Path, cluster: str) -> None:
    command = [java, *QUICK_START, *_run(libs, "kafka.tools.StorageTool"), "format", "-t", cluster, "-c"]
    with Program([*command, properties], name="kafka format") as tool:
        if tool.wait(_START_S) != 0:
            raise ProgramFailed(f"Kafka's storage could not be formatted; {tool.tail()}")


def _run(libs: Path, main: str) -> list[str]:
    return ["-Dorg.apache.logging.log4j.level=WARN", "-cp", f"{libs}/*", main]


def new_cluster_id() -> str:
    """As Kafka likes it; one that starts with a dash would read as an option."""
    return "k" + base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")[1:]


def prepare_kafka() -> Path:
    """Return the folder of Kafka's jars, fetched by Maven the first time."""
    return prepared(cache_root() / f"kafka-{VERSION}" / "libs", _fetch)


def _fetch(libs: Path) -> None:
    fetch_jars(_POM, libs, f"Kafka {VERSION}")


def fetch_jars(pom: Path, libs: Path, what: str) -> None:
    """Copy what `pom` depends on into the folder `libs`."""
    maven = shutil.which("mvn")
    if maven is None:
        raise Unprepared(f"Maven (mvn) is not on the PATH; the jars of {what} come by it: apt-get install maven")
    done = subprocess.run(
        [maven, "-q", "-B", "-f", str(pom), "dependency:copy-dependencies",
         f"-DoutputDirectory={libs}", "-DincludeScope=runtime"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    if done.returncode != 0 or not list(libs.glob("*.jar")):
        raise Unprepared(f"Maven did not bring {what}:\n{done.stdout}{done.stderr}")


def find_java() -> str:
    """The system's Java, if it is new enough."""
    java = shutil.which("java")
    wanted = "Kafka needs Java 17 or later: apt-get install default-jre-headless"
    if java is None:
        raise Unprepared(f"java is not on the PATH; {wanted}")
    said = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    major = re.search(r'version "(\d+)', said)
    if major is None or int(major[1]) < 17:
        raise Unprepared(f"{java} is {said.splitlines()[:1]}; {wanted}")
    return java


def _properties(
    own: Mapping[str, int], relayed: Mapping[str, tuple[int, int]], controller_port: int, data: Path
) -> dict[str, str]:
    bound = {**own, **{name: port for name, (port, _) in relayed.items()}}
    told = {**own, **{name: port for name, (_, port) in relayed.items()}}
    protocols = {name: name for name in own} | {"CONTROLLER": "PLAINTEXT"}
    protocols |= {name: "SASL_PLAINTEXT" if name == "SASL" else "PLAINTEXT" for name in relayed}
    return {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": f"1@127.0.0.1:{controller_port}",
        "listeners": _addresses({**bound, "CONTROLLER": controller_port}),
        "advertised.listeners": _addresses(told),
        "listener.security.protocol.map": ",".join(f"{name}:{protocol}" for name, protocol in protocols.items()),
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "PLAINTEXT",
        "log.dirs": str(data),
        "offsets.topic.num.partitions": "4",
        "offsets.topic.replication.factor": "1",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "share.coordinator.state.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
        "group.initial.rebalance.delay.ms": "0",
        # Tests write records with times of years ago, and a look for what is too old would take them away.
        "log.retention.ms": "-1",
        # After a crash the controller lets nobody take over the dead broker's id before this has passed.
        "broker.session.timeout.ms": "5000",
        "broker.heartbeat.interval.ms": "500",
    }


def _write(file: Path, settings: Mapping[str, str]) -> None:
    file.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))


def _addresses(ports: Mapping[str, int]) -> str:
    return ",".join(f"{name}://127.0.0.1:{port}" for name, port in ports.items())
