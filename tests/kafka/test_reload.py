"""A reload that brings services behind Kafka: their topics and inboxes are there before the routes are."""

import signal
from pathlib import Path

from tests.conftest import Broker
from tests.testbeds.gateway import Gateway
from tests.testbeds.services import Service
from tests.testbeds.wire import Client


def test_a_service_that_a_reload_brings_answers_from_the_first_request_on(
    tmp_path: Path, broker: Broker, nest_service: Service, faststream_service: Service
) -> None:
    head = f'kafka: {{bootstrap: "{broker.bootstrap}", inbox: reloaded}}\nworkers: 2\ndefaults: {{public: true, timeout: 10s}}\n'
    nest = 'services: {nest: {kafka: nest}}\nroutes: {"POST /nest": {call: nest.list}}\n'
    more = (
        "services: {nest: {kafka: nest}, fs: {kafka: faststream}}\n"
        'routes: {"POST /nest": {call: nest.list}, "POST /fs": {call: fs.echo}}\n'
    )
    gateway = Gateway(tmp_path, head + nest)
    gateway.rewrite(head + more)
    gateway.program.send_signal(signal.SIGHUP)
    gateway.program.wait_until(lambda: [each["version"] for each in gateway.workers()] == [2, 2], "the switch")
    for _ in range(10):
        with Client(gateway.port, timeout_s=15) as client:
            request = b"POST /fs HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"
            assert client.send(request).read_answer()[0] == 200
    assert gateway.stop() == 0


def test_what_a_reload_took_back_is_no_concern_of_readiness(
    tmp_path: Path, broker: Broker, nest_service: Service
) -> None:
    head = f'kafka: {{bootstrap: "{broker.bootstrap}", inbox: reloaded}}\ndefaults: {{public: true}}\n'
    nest = 'services: {nest: {kafka: nest}}\nroutes: {"POST /nest": {call: nest.list}}\n'
    more = (
        "services: {nest: {kafka: nest}, absent: {kafka: nest}}\n"
        'routes: {"POST /nest": {call: nest.list}, "POST /absent": {call: absent.not-there}}\n'
    )
    gateway = Gateway(tmp_path, head + nest)
    gateway.program.wait_until(lambda: gateway.readiness() == (200, {"status": "ready", "reason": ""}), "ready")
    gateway.rewrite(head + more)
    gateway.program.send_signal(signal.SIGHUP)
    gateway.program.wait_until(lambda: "absent.not-there" in gateway.readiness()[1]["reason"], "degraded")
    gateway.rewrite(head + nest)
    gateway.program.send_signal(signal.SIGHUP)
    gateway.program.wait_until(lambda: gateway.readiness() == (200, {"status": "ready", "reason": ""}), "ready again")
    missing = gateway.metrics()['castlegate_kafka_topic_missing{topic="absent.not-there"}']
    assert missing == 0
    assert gateway.stop() == 0
