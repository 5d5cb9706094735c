"""Topics of routes that a reload removes are forgotten: what becomes of them is no concern of the gateway any more."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Message
from confluent_kafka.admin import AdminClient
from tests.conftest import Broker
from tests.kafka.echo import Echo, asked
from tests.testbeds.embedded import EmbeddedBroker
from tests.testbeds.gateway import Gateway
from tests.testbeds.kafka import RealKafka
from tests.testbeds.processes import free_port
from tests.testbeds.relay import Relay
from tests.testbeds.topics import create_topics
from tests.testbeds.wire import Client

HEAD = """
kafka: {{bootstrap: "127.0.0.1:{port}", topics: {{partitions: 1, single: 1}}}}
defaults: {{public: true, timeout: 5s}}
"""
KEPT = """
services: {kept: {kafka: plain}}
routes: {POST /kept: {call: kept.do}}
"""
BOTH = """
services:
  kept: {kafka: plain}
  gone: {kafka: {dialect: plain, operations: {do: {replies: gone.answers}}}}
routes:
  POST /kept: {call: kept.do}
  POST /gone: {call: gone.do}
  POST /event: {publish: gone.events}
"""
TOPICS = {"gone.do": 1, "gone.answers": 1, "gone.events": 1}
CLIENTS = (b"-watch", b"-inbox", b"-requests", b"-requests-batched")
READY = (200, {"status": "ready", "reason": ""})


@pytest.fixture
def relay() -> Iterator[Relay]:
    with Relay(free_port()) as relay:
        yield relay


@pytest.fixture(params=["embedded", "real"])
def relayed(request: pytest.FixtureRequest, relay: Relay, tmp_path: Path) -> Iterator[Broker]:
    """Whoever comes through the relay is sent through it again."""
    if request.config.getoption("--kafka") not in ("both", request.param):
        pytest.skip("only the other broker was asked for")
    broker: Broker
    if request.param == "embedded":
        broker = EmbeddedBroker("--advertise", f"127.0.0.1:{relay.port}")
        relay.target = broker.port
    else:
        assert relay.target is not None
        broker = RealKafka(relayed={"RELAYED": (relay.target, relay.port)}, log=tmp_path / "kafka.log")
    yield broker
    broker.discard()


def ask(gateway: Gateway, path: str) -> int:
    with Client(gateway.port, timeout_s=15) as client:
        request = f"POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{{}}"
        return client.send(request.encode()).read_answer()[0]


def reload(gateway: Gateway, config: str) -> None:
    before = [each["version"] for each in gateway.workers()]
    gateway.rewrite(config)
    gateway.program.send_signal(signal.SIGHUP)
    gateway.program.wait_until(lambda: [each["version"] for each in gateway.workers()] != before, "the switch")


def test_a_topic_that_no_route_needs_is_no_concern(tmp_path: Path, relay: Relay, relayed: Broker) -> None:
    create_topics(relayed.bootstrap, {"kept.do": 1, **TOPICS})
    head = HEAD.format(port=relay.port)
    kept, gone = Echo(relayed.bootstrap, "kept.do"), Echo(relayed.bootstrap, "gone.do", answer_elsewhere)
    gateway, stopped = Gateway(tmp_path, head + BOTH), False
    try:
        gateway.program.wait_until(lambda: gateway.readiness() == READY, "ready")
        assert [ask(gateway, path) for path in ("/kept", "/gone", "/event")] == [200, 200, 202]
        reload(gateway, head + KEPT)
        gone.stop()
        stopped = True
        gateway.program.wait_until(lambda: asks_for_none(relay, gateway), "the topics to be forgotten")
        admin = AdminClient({"bootstrap.servers": relayed.bootstrap, "log_level": 0})
        for future in admin.delete_topics(list(TOPICS)).values():
            future.result(10)
        assert asks_for_none(relay, gateway)
        gateway.program.wait_until(lambda: gateway.readiness() == READY, "ready")
        missing = {name: each for name, each in gateway.metrics().items() if "topic_missing" in name}
        assert set(missing.values()) == {0}
        assert not [line for line in gateway.program.lines if "does not exist" in line]
        create_topics(relayed.bootstrap, TOPICS)
        gone, stopped = Echo(relayed.bootstrap, "gone.do", answer_elsewhere), False
        reload(gateway, head + BOTH)
        assert [ask(gateway, path) for path in ("/kept", "/gone", "/event")] == [200, 200, 202]
    finally:
        if not stopped:
            gone.stop()
        kept.stop()
        gateway.stop()


def asks_for_none(relay: Relay, gateway: Gateway) -> bool:
    """Whether all clients connect anew, and find their way, without a word of the topics that are gone."""
    relay.heard = heard = bytearray()
    relay.cut()
    gateway.program.wait_until(lambda: ask(gateway, "/kept") == 200, "an answer")
    gateway.program.wait_until(lambda: all(each in heard for each in CLIENTS), "all of them")
    return b"gone." not in heard


def answer_elsewhere(echo: Echo, message: Message) -> None:
    """As a service does that answers on a topic of its own."""
    echo.send("gone.answers", -1, [("correlation-id", asked(message)["correlation-id"])], b"{}")
