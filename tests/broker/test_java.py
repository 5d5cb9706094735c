"""What Apache Kafka's own Java client sees of any broker: java/ClientCheck.java does it, and tells."""

import shutil
import subprocess
import uuid
from pathlib import Path

import pytest
from tests.testbeds.kafka import Unprepared, prepare_kafka

_SOURCE = Path(__file__).with_name("java") / "ClientCheck.java"


@pytest.fixture(scope="session")
def classpath(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Kafka's own jars, which hold the client, and the check compiled against them."""
    compiler = shutil.which("javac")
    if compiler is None:
        pytest.skip("there is no Java compiler (javac): apt-get install default-jdk-headless")
    try:
        jars = f"{prepare_kafka()}/*"
    except Unprepared as missing:
        pytest.skip(str(missing))
    classes = tmp_path_factory.mktemp("classes")
    subprocess.run([compiler, "-d", classes, "-cp", jars, _SOURCE], check=True, capture_output=True)
    return f"{classes}:{jars}"


def test_the_java_client_writes_reads_commits_and_administers(bootstrap: str, classpath: str) -> None:
    name = uuid.uuid4().hex[:10]
    quiet = ["-Dorg.apache.logging.log4j.level=OFF", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]
    done = subprocess.run(
        ["java", *quiet, "-cp", classpath, "ClientCheck", bootstrap, f"java-{name}", f"group-{name}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "partitions: 2",
        "read: 100",
        "read again: 0",
        "committed: {0=50, 1=50}",
        "newest: 1700000000098",
        "members: 1",
    ]
