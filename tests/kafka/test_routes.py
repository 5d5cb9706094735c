"""Routes in front of real Kafka services, from the client's socket to the service's ledger and back."""

import http.client
import json
from collections.abc import Iterator
from typing import Any

import pytest
from tests.conftest import Broker
from tests.testbeds.gateway import Gateway
from tests.testbeds.processes import free_port
from tests.testbeds.services import Service
from tests.testbeds.topics import create_topics
from tests.testbeds.wire import Client

ROUTES = """
services:
  orders: {kafka: nest}
  nest: {kafka: {dialect: nest, forward_headers: [x-tenant]}}
  fs: {kafka: faststream}
defaults: {public: true, timeout: 10s}
routes:
  GET /orders/{id}: {call: orders.get, send: {id: "{path.id}"}, key: "{path.id}"}
  POST /nest/echo: {call: nest.echo}
  GET /nest/text: {call: nest.text, send: {}}
  GET /nest/nothing: {call: nest.nothing, send: {}}
  POST /nest/fail: {call: nest.fail}
  GET /nest/late: {call: nest.late, send: {delay_ms: 400}, timeout: 200ms}
  GET /nest/left: {call: nest.late, send: {delay_ms: 700}}
  GET /nest/missing: {call: nest.not-there, send: {}}
  POST /nest/created: {call: nest.list, status: 201}
  POST /fs/echo: {call: fs.echo}
  GET /fs/none: {call: fs.none, send: {}}
  POST /events: {publish: events.seen, key: "{body.id}"}
"""


def ask(port: int, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> tuple[int, Any]:
    """Status and document of one request."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request(method, path, None if body is None else json.dumps(body), headers or {})
        answer = connection.getresponse()
        text = answer.read()
        kind = answer.headers.get("content-type", "")
        return answer.status, json.loads(text) if "json" in kind else text.decode()
    finally:
        connection.close()


@pytest.fixture(scope="module")
def gateway(
    broker: Broker, nest_service: Service, faststream_service: Service, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    del nest_service, faststream_service
    create_topics(broker.bootstrap, {"events.seen": 4})
    gateway = Gateway(tmp_path_factory.mktemp("gateway"), f'kafka: "{broker.bootstrap}"\n{ROUTES}')
    gateway.program.wait_until(lambda: gateway.readiness()[0] == 200, "readiness")
    assert gateway.readiness()[1] == {"status": "degraded", "reason": "topic nest.not-there does not exist"}
    yield gateway
    assert gateway.stop() == 0


def test_a_request_becomes_a_record_and_its_reply_the_response(gateway: Gateway) -> None:
    assert ask(gateway.port, "GET", "/orders/7") == (200, {"id": "7", "item": "lamp", "quantity": 2})


def test_a_service_error_with_a_status_has_that_status(gateway: Gateway) -> None:
    status, problem = ask(gateway.port, "GET", "/orders/999")
    assert (status, problem["status"], problem["outcome"]) == (404, 404, "answered")
    assert "no order 999" in problem["detail"]


def test_a_service_error_without_a_status_is_500(gateway: Gateway) -> None:
    status, problem = ask(gateway.port, "POST", "/nest/fail", {"error": "plainly"})
    assert (status, problem["outcome"]) == (500, "answered")


def test_text_is_text_and_nothing_is_204(gateway: Gateway) -> None:
    assert ask(gateway.port, "GET", "/nest/text") == (200, "just text")
    assert ask(gateway.port, "GET", "/nest/nothing") == (204, "")
    assert ask(gateway.port, "GET", "/fs/none") == (204, "")


def test_a_success_takes_the_status_of_the_route(gateway: Gateway) -> None:
    assert ask(gateway.port, "POST", "/nest/created", {})[0] == 201


def test_only_listed_fields_reach_the_service_with_trace_and_request_id(gateway: Gateway) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    sent = {
        "x-tenant": "t1",
        "x-secret": "s",
        "x-request-id": "req-1",
        "traceparent": f"00-{trace}-00f067aa0ba902b7-01",
    }
    status, document = ask(gateway.port, "POST", "/nest/echo", {"a": [1, "2"]}, sent)
    headers = document["headers"]
    assert (status, document["payload"]) == (200, {"a": [1, "2"]})
    assert (headers["x-tenant"], headers["x-request-id"]) == ("t1", "req-1")
    assert headers["traceparent"].startswith(f"00-{trace}-")
    assert "x-secret" not in headers


def test_faststream_answers_too(gateway: Gateway) -> None:
    status, document = ask(gateway.port, "POST", "/fs/echo", {"a": 1})
    assert (status, document["payload"]) == (200, {"a": 1})


def test_a_reply_after_its_deadline_is_counted_late_and_dropped(gateway: Gateway) -> None:
    """K5."""
    status, problem = ask(gateway.port, "GET", "/nest/late")
    assert (status, problem["outcome"]) == (504, "unknown")

    def late() -> bool:
        found = gateway.metrics()
        return any("replies" in name and "late" in name and value >= 1 for name, value in found.items())

    gateway.program.wait_until(late, "the late reply to be counted")
    assert ask(gateway.port, "GET", "/orders/7")[0] == 200


def test_a_client_that_leaves_frees_its_entry_and_its_reply_is_late(gateway: Gateway) -> None:
    """C11."""

    def late() -> float:
        return gateway.metrics()['castlegate_kafka_replies_total{kind="late"}']

    def pending() -> float:
        return gateway.metrics()["castlegate_kafka_pending"]

    before = late()
    with Client(gateway.port) as client:
        client.send(b"GET /nest/left HTTP/1.1\r\nHost: h\r\n\r\n")
        gateway.program.wait_until(lambda: pending() == 1, "the request to wait for its reply")
    gateway.program.wait_until(lambda: pending() == 0, "the entry to be freed")
    gateway.program.wait_until(lambda: late() == before + 1, "the late reply")
    (line,) = [line for line in gateway.wait_logged(1) if line["route"] == "GET /nest/left"]
    assert line["status"] == 499


def test_a_missing_topic_is_503_and_not_sent(gateway: Gateway) -> None:
    """K11."""
    status, problem = ask(gateway.port, "GET", "/nest/missing")
    assert (status, problem["outcome"]) == (503, "not_sent")


def test_a_record_over_the_limit_is_413_and_not_sent(gateway: Gateway) -> None:
    """K9."""
    status, problem = ask(gateway.port, "POST", "/nest/echo", {"blob": "x" * 1_100_000})
    assert (status, problem["outcome"]) == (413, "not_sent")


def test_an_event_is_accepted_once_it_is_stored(gateway: Gateway) -> None:
    """K15."""
    status, ack = ask(gateway.port, "POST", "/events", {"id": "e1"})
    assert (status, ack["topic"]) == (202, "events.seen")
    again = ask(gateway.port, "POST", "/events", {"id": "e1"})[1]
    assert (again["partition"], again["offset"]) == (ack["partition"], ack["offset"] + 1)


def test_without_a_broker_http_is_served_and_kafka_refused_at_once(tmp_path_factory: pytest.TempPathFactory) -> None:
    """K1, without the recovery."""
    config = f'kafka: "127.0.0.1:{free_port()}"\n{ROUTES}'
    gateway = Gateway(tmp_path_factory.mktemp("brokerless"), config)
    try:
        status, problem = ask(gateway.port, "GET", "/orders/7")
        assert (status, problem["outcome"]) == (503, "not_sent")
        assert ask(gateway.port, "POST", "/events", {"id": 1})[0] == 503
        assert gateway.readiness()[0] == 503
    finally:
        assert gateway.stop() == 0
