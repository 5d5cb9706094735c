"""`castlegate doctor` in front of brokers and services that are well, and of faults that it must call by their names."""

import json
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from confluent_kafka.admin import AclOperation, AdminClient, ResourceType  # type: ignore[attr-defined]
from confluent_kafka.cimpl import NewTopic
from tests.conftest import Broker
from tests.kafka.test_refusals import GUARDED, allow
from tests.testbeds.embedded import EmbeddedBroker
from tests.testbeds.gateway import Gateway
from tests.testbeds.kafka import RealKafka
from tests.testbeds.processes import Program, free_port
from tests.testbeds.topics import create_topics
from tests.testbeds.wire import Origin

INBOXES = {"doc.in": 3, "doc.in.0": 1, "doc.in.1": 1}
KAFKA = """
listen: {listen}
admin: 127.0.0.1:0
access_log: off
kafka: {{bootstrap: "{bootstrap}", inbox: doc.in, topics: {{single: 2, partitions: 3}}}}
services:
  orders: {{kafka: nest}}
  stock: {{kafka: faststream}}
defaults: {{public: true}}
routes:
  GET /orders/{{id}}: {{call: orders.doc, send: {{}}}}
  GET /stock: {{call: stock.doc}}
  POST /events: {{publish: doc.events}}
"""
HTTP = """
listen: {listen}
admin: {admin}
access_log: {log}
services: {{users: {{http: [{instances}]}}}}
defaults: {{public: true}}
routes: {{GET /users: {{call: users}}}}
"""


class Diagnosis(NamedTuple):
    status: int
    findings: list[dict[str, Any]]
    seconds: float

    def of(self, check: str) -> dict[str, Any]:
        """The one finding of a check."""
        [found] = [each for each in self.findings if each["check"] == check]
        return found

    @property
    def wrong(self) -> dict[str, str]:
        """What is wrong: check → what is said and advised."""
        return {
            each["check"]: f"{each['says']} -> {each['advice']}" for each in self.findings if each["verdict"] == "wrong"
        }


def diagnose(folder: Path, config: str, *arguments: str, before: str = "") -> Diagnosis:
    """Run the program. `before` is a shell command in front of it."""
    path = folder / "doctor.yaml"
    path.write_text(config)
    command = [sys.executable, "-m", "castlegate.cli.main", "doctor", str(path), "--json", *arguments]
    began = time.monotonic()
    with Program(["sh", "-c", f'{before or ":"}; exec "$@"', "sh", *command], name="castlegate doctor") as program:
        status = program.wait(60)
        output = "\n".join(program.lines)
    document = json.loads(output)
    assert document["well"] is (status == 0), output
    return Diagnosis(status, document["findings"], time.monotonic() - began)


def kafka(bootstrap: str, listen: str = "127.0.0.1:0") -> str:
    return KAFKA.format(bootstrap=bootstrap, listen=listen)


def http(*urls: str, listen: str = "127.0.0.1:0", admin: str = "127.0.0.1:0", log: str = "off") -> str:
    return HTTP.format(instances=", ".join(f'"{url}"' for url in urls), listen=listen, admin=admin, log=log)


@pytest.fixture
def prepared(broker: Broker) -> Broker:
    """The shared broker with all topics that are needed."""
    create_topics(broker.bootstrap, {"orders.doc": 2, "stock.doc": 1, "doc.events": 1, **INBOXES})
    return broker


def test_all_is_well(prepared: Broker, tmp_path: Path) -> None:
    found = diagnose(tmp_path, kafka(prepared.bootstrap))
    assert (found.status, found.wrong) == (0, {})
    assert found.of("topic orders.doc")["says"] == "2 partitions, may be written to"
    for inbox in INBOXES:
        assert "came back within" in found.of(f"round trip through {inbox}")["says"]
    assert found.of("clock")["verdict"] == "skipped", "these topics bear the producers' time"
    assert "librdkafka" in found.of("versions")["says"]


def test_a_gateway_that_runs_drops_the_probes_as_foreign(prepared: Broker, tmp_path: Path) -> None:
    config = kafka(prepared.bootstrap).replace("admin: 127.0.0.1:0\naccess_log: off\n", "")
    gateway = Gateway(tmp_path, config)
    try:
        gateway.program.wait_until(lambda: gateway.readiness()[0] == 200, "readiness")
        # Of three partitions and two inbox topics it reads one of each.
        before = gateway.metrics()
        running = kafka(prepared.bootstrap, f"127.0.0.1:{gateway.port}").replace(
            "admin: 127.0.0.1:0", f"admin: 127.0.0.1:{gateway.admin}"
        )
        found = diagnose(tmp_path, running)
        assert (found.status, found.wrong) == (0, {})
        for name in ("listen", "admin"):
            assert "in use by a gateway that runs already, ready" in found.of(name)["says"]
        kinds = [f'castlegate_kafka_replies_total{{kind="{kind}"}}' for kind in ("foreign", "unknown", "malformed")]
        foreign, *others = kinds
        gateway.program.wait_until(
            lambda: gateway.metrics().get(foreign, 0) >= before.get(foreign, 0) + 4, "the probes"
        )
        after = gateway.metrics()
        assert [after.get(kind, 0) - before.get(kind, 0) for kind in others] == [0, 0]
        assert gateway.readiness()[0] == 200
    finally:
        assert gateway.stop() == 0


def test_the_brokers_clock_is_measured_where_it_stamps_the_inbox(real_kafka: RealKafka, tmp_path: Path) -> None:
    admin = AdminClient({"bootstrap.servers": real_kafka.bootstrap, "log_level": 0})
    stamped = NewTopic("stamped", 1, 1, config={"message.timestamp.type": "LogAppendTime"})
    admin.create_topics([stamped])["stamped"].result()
    create_topics(real_kafka.bootstrap, {"stamped": 1, "orders.doc": 1, "stock.doc": 1, "doc.events": 1})
    config = kafka(real_kafka.bootstrap).replace("inbox: doc.in", "inbox: stamped")
    found = diagnose(tmp_path, config)
    assert found.of("clock") == {
        "check": "clock", "verdict": "well", "says": "within 1 s of the broker's", "advice": "",
    }  # fmt: skip


def test_topics_that_are_missing_or_have_too_many_partitions(own_broker: Broker, tmp_path: Path) -> None:
    create_topics(own_broker.bootstrap, {"stock.doc": 1, "doc.events": 1, "doc.in.0": 2})
    found = diagnose(tmp_path, kafka(own_broker.bootstrap))
    assert found.status == 1
    assert set(found.wrong) == {"topic orders.doc", "topic doc.in.0"}
    assert "GET /orders/{id} will be answered 503" in found.wrong["topic orders.doc"]
    assert f"--bootstrap-server {own_broker.bootstrap} --create --topic orders.doc" in found.wrong["topic orders.doc"]
    assert "it has 2 partitions: services answer to any of them, and one is read" in found.wrong["topic doc.in.0"]
    assert found.of("topic doc.in")["verdict"] == "note", "the gateway will create it"
    admin = AdminClient({"bootstrap.servers": own_broker.bootstrap, "log_level": 0})
    assert "doc.in" not in admin.list_topics(timeout=5).topics, "the doctor creates nothing"
    refusing = kafka(own_broker.bootstrap).replace("single: 2", "single: 2, create: false")
    assert "--create --topic doc.in --partitions 3" in diagnose(tmp_path, refusing).wrong["topic doc.in"]


def test_an_authorizer_whose_topic_is_missing(embedded_broker: EmbeddedBroker, tmp_path: Path) -> None:
    text = kafka(embedded_broker.bootstrap).replace("{public: true}", "{auth: team}")
    found = diagnose(tmp_path, f"auth: {{team: {{authorizer: {{call: stock.verify}}}}}}\n{text}")
    says = found.of("topic stock.verify")["says"]
    assert says == "it does not exist: GET /orders/{id}, GET /stock, POST /events will be answered 503"


def test_a_topic_that_a_function_writes_to(embedded_broker: EmbeddedBroker, tmp_path: Path) -> None:
    hint = 'Annotated[Service, "stock.asked-by-it"]'
    code = f"from typing import Annotated\nfrom castlegate.python import Service\nasync def f(s: {hint}) -> None: ...\n"
    (tmp_path / "asking.py").write_text(code)
    route = '  GET /function: {call: "python:asking:f"}\n'
    found = diagnose(tmp_path, kafka(embedded_broker.bootstrap) + route)
    says = found.of("topic stock.asked-by-it")["says"]
    assert says == "it does not exist: GET /function will be answered 503"


def test_a_topic_that_takes_less_than_would_be_sent(own_broker: Broker, tmp_path: Path) -> None:
    create_topics(own_broker.bootstrap, {"stock.doc": 1, "doc.events": 1})
    admin = AdminClient({"bootstrap.servers": own_broker.bootstrap, "log_level": 0})
    small = NewTopic("orders.doc", 1, 1, config={"max.message.bytes": "2000"})
    admin.create_topics([small])["orders.doc"].result()
    create_topics(own_broker.bootstrap, {"orders.doc": 1})
    found = diagnose(tmp_path, kafka(own_broker.bootstrap))
    assert (found.status, found.wrong) == (0, {})
    [said] = [each["says"] for each in found.findings if "max.message.bytes" in each["says"]]
    assert said == "it takes 2000 bytes (max.message.bytes), fewer than 'max_record' of 'kafka': 1000000"


def test_brokers_that_are_down(tmp_path: Path) -> None:
    port = free_port()
    found = diagnose(tmp_path, kafka(f"127.0.0.1:{port}, nowhere.invalid:9092"))
    assert found.status == 1
    assert (
        "127.0.0.1: connection refused -> nothing listens on port" in found.wrong[f"kafka bootstrap 127.0.0.1:{port}"]
    )
    assert "the name 'nowhere.invalid' is not known" in found.wrong["kafka bootstrap nowhere.invalid:9092"]
    assert found.of("kafka brokers and topics")["verdict"] == "skipped"


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nowhere.invalid:9092"])
def test_a_broker_that_advertises_an_address_nobody_reaches(address: str, tmp_path: Path) -> None:
    broker = EmbeddedBroker("--advertise", address)
    try:
        found = diagnose(tmp_path, kafka(broker.bootstrap))
    finally:
        broker.discard()
    assert found.status == 1
    assert set(found.wrong) == {"kafka broker 1"}
    assert f"it is known as {address} to its clients (advertised.listeners)" in found.wrong["kafka broker 1"]
    assert "set 'advertised.listeners' of broker 1" in found.wrong["kafka broker 1"]
    assert found.of(f"kafka bootstrap {broker.bootstrap}")["verdict"] == "well"
    assert found.of("kafka topics and the round trip")["verdict"] == "skipped"


def test_a_broker_that_hangs_takes_no_longer_than_allowed(own_broker: Broker, tmp_path: Path) -> None:
    own_broker.freeze()
    try:
        found = diagnose(tmp_path, kafka(own_broker.bootstrap), "--timeout", "1")
    finally:
        own_broker.thaw()
    assert found.status == 1
    assert set(found.wrong) == {"kafka brokers"}
    assert found.seconds < 10


def test_what_listens_at_bootstrap_is_not_kafka(tmp_path: Path) -> None:
    with Origin() as origin:
        found = diagnose(tmp_path, kafka(f"127.0.0.1:{origin.port}"), "--timeout", "1")
    assert set(found.wrong) == {"kafka brokers"}
    assert found.seconds < 10


def test_a_port_that_does_not_speak_what_it_should(embedded_broker: EmbeddedBroker, tmp_path: Path) -> None:
    config = kafka(embedded_broker.bootstrap).replace("inbox:", "librdkafka: {security.protocol: ssl}, inbox:")
    found = diagnose(tmp_path, config, "--timeout", "1")
    assert set(found.wrong) == {"kafka brokers"}
    assert "SSL" in found.wrong["kafka brokers"]
    assert "'security.protocol' in 'kafka.librdkafka'" in found.wrong["kafka brokers"]


def test_rights_that_are_missing(start_real_kafka: Callable[..., RealKafka], tmp_path: Path) -> None:
    guarded = start_real_kafka(GUARDED)
    create_topics(guarded.bootstrap, {"orders.doc": 2, "stock.doc": 1, "doc.events": 1, "doc.in": 3, "doc.in.0": 1})
    allow(guarded, "another", ResourceType.TOPIC, "orders.doc", AclOperation.ALL)
    allow(guarded, "another", ResourceType.TOPIC, "stock.doc", AclOperation.WRITE)
    allow(guarded, "*", ResourceType.TOPIC, "stock.doc", AclOperation.DESCRIBE)
    allow(guarded, "*", ResourceType.TOPIC, "doc.in", AclOperation.READ)
    allow(guarded, "another", ResourceType.TOPIC, "doc.in.0", AclOperation.READ)
    allow(guarded, "*", ResourceType.TOPIC, "doc.in.0", AclOperation.DESCRIBE)
    operations = (AclOperation.CLUSTER_ACTION, AclOperation.ALTER, AclOperation.DESCRIBE, AclOperation.IDEMPOTENT_WRITE)
    allow(guarded, "*", ResourceType.BROKER, "kafka-cluster", *operations)
    found = diagnose(tmp_path, kafka(guarded.bootstrap))
    assert set(found.wrong) == {
        "topic orders.doc", "topic stock.doc", "topic doc.in.0", "permission to create topics",
    }  # fmt: skip
    assert "--operation Describe --topic orders.doc" in found.wrong["topic orders.doc"]
    assert "the gateway may not write it" in found.wrong["topic stock.doc"]
    assert "the gateway may not read it" in found.wrong["topic doc.in.0"]
    assert "doc.in.1" in found.wrong["permission to create topics"]
    trip = found.of("round trip through doc.in")
    assert (trip["verdict"], "need not" in trip["says"]) == ("note", True), "services write to it, the gateway need not"


def test_services(tmp_path: Path) -> None:
    refused = f"http://127.0.0.1:{free_port()}"
    with Origin() as origin:
        well = f"http://127.0.0.1:{origin.port}"
        found = diagnose(tmp_path, http(well, refused, "http://nowhere.invalid:80"))
        assert not origin.seen, "it is not asked anything"
    assert found.status == 1
    assert found.of(f"service users: {well}")["verdict"] == "well"
    assert set(found.wrong) == {f"service users: {refused}", "service users: http://nowhere.invalid:80"}
    assert "connection refused -> nothing listens on port" in found.wrong[f"service users: {refused}"]
    assert "the name 'nowhere.invalid' is not known" in found.wrong["service users: http://nowhere.invalid:80"]


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that something else than a gateway listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


def test_this_machine(taken: int, tmp_path: Path) -> None:
    log = tmp_path / "missing" / "access.log"
    with Origin() as origin:
        config = http(
            f"http://127.0.0.1:{origin.port}", listen=f"127.0.0.1:{taken}", admin="192.0.2.1:80", log=str(log)
        )
        found = diagnose(tmp_path, config, "--timeout", "1", before="ulimit -n 500")
    assert set(found.wrong) == {"open files", "access log", "listen", "admin"}
    assert "500 are allowed, fewer than 'connections: 10000'" in found.wrong["open files"]
    assert f"create the folder {log.parent}" in found.wrong["access log"]
    assert f"ss -ltnp sport = :{taken}" in found.wrong["listen"]
    assert "take an address of this machine" in found.wrong["admin"]
    assert not log.parent.exists()


def test_a_log_that_is_a_folder(tmp_path: Path) -> None:
    with Origin() as origin:
        found = diagnose(tmp_path, http(f"http://127.0.0.1:{origin.port}", log=str(tmp_path)))
    assert set(found.wrong) == {"access log"}


def test_people_read_lines_and_a_mistake_is_2(tmp_path: Path) -> None:
    path = tmp_path / "doctor.yaml"
    command = [sys.executable, "-m", "castlegate.cli.main", "doctor", path]
    with Origin() as origin:
        path.write_text(http(f"http://127.0.0.1:{origin.port}"))
        with Program(command, name="doctor") as program:
            assert program.wait() == 0
            assert (
                f"well     service users: http://127.0.0.1:{origin.port}: 127.0.0.1 accepts connections"
                in program.lines
            )
            assert program.lines[-1].startswith("all is well, ")
    with Program(command, name="doctor") as program:
        assert program.wait() == 1
        assert program.lines[-1] == "1 thing is wrong, 6 checks"
    path.write_text("rutes: {}\n")
    with Program(command, name="doctor") as program:
        assert program.wait() == 2
        assert "did you mean 'routes'?" in "\n".join(program.lines)
