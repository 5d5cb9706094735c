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
        quick: bool = True,
        log: Path | None = None,
    ) -> None:
        """Format storage, start, and wait until it answers; `overrides` are lines of server.properties, `listeners`
        protocols such as SSL that it speaks on ports of their own, see `ports`.
        """
        self._java = find_java()
        self._libs = prepare_kafka()
        self._folder = Path(tempfile.mkdtemp(prefix="castlegate-kafka-"))
        self._remove_data = weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self._flags = ["-Xmx1g", *(QUICK_START if quick else [])]
        self._log = log
        self._properties = self._folder / "server.properties"
        port, controller_port = free_port(), free_port()
        self.port = port
        self.bootstrap = f"127.0.0.1:{port}"
        self.ports = {protocol: free_port() for protocol in listeners}
        clients = {"PLAINTEXT": port, **self.ports}
        self._properties.write_text(_properties(clients, controller_port, self._folder / "data", overrides or {}))
        self._format()
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

    def _command(self, main: str, *arguments: str) -> list[str]:
        log_level = "-Dorg.apache.logging.log4j.level=WARN"
        return [self._java, *self._flags, log_level, "-cp", f"{self._libs}/*", main, *arguments]

    def _format(self) -> None:
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        # An id that starts with a dash would read as an option.
        cluster = "k" + cluster[1:]
        config = str(self._properties)
        with Program(
            self._command("kafka.tools.StorageTool", "format", "-t", cluster, "-c", config), name="kafka format"
        ) as tool:
            if tool.wait(_START_S) != 0:
                raise ProgramFailed(f"Kafka's storage could not be formatted; {tool.tail()}")

    def _start(self) -> Program:
        command = self._command("kafka.Kafka", str(self._properties))
        program = Program(command, name=f"kafka on {self.port}", cwd=self._folder, log=self._log)
        try:
            program.wait_for_port(self.port, timeout_s=_START_S)
            program.wait_until(self._answers, "an answer to a metadata request", _START_S)
        except BaseException:
            program.kill()
            raise
        return program

    def _answers(self) -> bool:
        admin = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})
        try:
            return bool(admin.list_topics(timeout=2).brokers)
        except KafkaException:
            return False


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
    wanted = "Kafka needs Java 17 or later: apt-get install openjdk-17-jre-headless"
    if java is None:
        raise Unprepared(f"java is not on the PATH; {wanted}")
    said = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    major = re.search(r'version "(\d+)', said)
    if major is None or int(major[1]) < 17:
        raise Unprepared(f"{java} is {said.splitlines()[:1]}; {wanted}")
    return java


def _properties(clients: Mapping[str, int], controller_port: int, data: Path, overrides: Mapping[str, str]) -> str:
    listeners = ",".join(f"{protocol}://127.0.0.1:{port}" for protocol, port in clients.items())
    settings = {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": f"1@127.0.0.1:{controller_port}",
        "listeners": f"{listeners},CONTROLLER://127.0.0.1:{controller_port}",
        "advertised.listeners": listeners,
        "listener.security.protocol.map": ",".join([f"{name}:{name}" for name in clients] + ["CONTROLLER:PLAINTEXT"]),
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
        # After a crash the controller lets nobody take over the dead broker's id before this has passed.
        "broker.session.timeout.ms": "5000",
        "broker.heartbeat.interval.ms": "500",
        **overrides,
    }
    return "".join(f"{key}={value}\n" for key, value in settings.items())
