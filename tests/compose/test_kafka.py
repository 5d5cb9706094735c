"""Parts behind Kafka beside those over HTTP."""

import json
import threading

import pytest
from tests.compose.conftest import Services, Start, ask, assert_quiet
from tests.conftest import Broker
from tests.testbeds.gateway import Gateway
from tests.testbeds.services import Service

ROUTES = """
  GET /home/{id}:
    compose:
      user: {call: s, get: "/users/{path.id}"}
      orders: {call: plain.script, send: {replies: [{value: [{sku: lamp}, {sku: chair}], delay_ms: 20}], of: "{user.id}"}}
      prices:
        call: plain.script
        each: {of: "{orders[]}", join: price}
        batch: sku
        send: {replies: [{value: [{sku: chair, price: 7}, {sku: lamp, price: 5}]}], skus: "{each[].sku}"}
  GET /silent:
    compose:
      orders: {call: plain.script, send: {replies: []}, optional: true, timeout: 200ms}
      user: {call: s, get: /users/7}
  GET /failing:
    compose:
      orders: {call: plain.script, send: {replies: []}}
      user: {call: s, get: /bad}
  GET /garbage:
    compose:
      hex: {call: plain.script, send: {replies: [{hex: "ff00"}]}, optional: true}
      text: {call: plain.script, send: {replies: [{text: "no JSON"}]}}
      nothing: {call: plain.script, send: {replies: [{}]}}
      cut: {call: plain.script, send: {replies: [{text: "{{"}]}, optional: true}
"""


@pytest.fixture
def gateway(broker: Broker, plain_service: Service, start: Start, services: Services) -> Gateway:
    del plain_service
    services.says("/users/7", {"id": 7})
    more = f'kafka: {{bootstrap: "{broker.bootstrap}"}}\n'
    gateway = start(ROUTES, more=more, kafka="plain")
    gateway.program.wait_until(lambda: gateway.readiness()[1]["status"] == "ready", "readiness")
    return gateway


def test_kafka_and_http_parts_make_one_answer(gateway: Gateway, plain_service: Service) -> None:
    answer = ask(gateway, "/home/7")
    assert answer.status == 200, answer.body
    assert answer.json == {
        "user": {"id": 7},
        "orders": [{"sku": "lamp"}, {"sku": "chair"}],
        "prices": [
            {"sku": "lamp", "price": {"sku": "lamp", "price": 5}},
            {"sku": "chair", "price": {"sku": "chair", "price": 7}},
        ],
    }
    ledger = plain_service.ledger.read_text()
    assert '\\"of\\": 7' in ledger or '"of": 7' in ledger or '"of":7' in ledger.replace("\\", "")


def test_a_service_that_is_silent_is_late_and_leaves_no_pending_entry(gateway: Gateway) -> None:
    answer = ask(gateway, "/silent")
    assert (answer.json, answer.parts["orders"]) == ({"orders": None, "user": {"id": 7}}, "timeout")
    assert_quiet(gateway)


def test_a_part_over_http_that_fails_ends_the_wait_for_kafka(gateway: Gateway, services: Services) -> None:
    services.says("/bad", {}, status=500)
    services.hold("/bad")
    answers = []
    client = threading.Thread(target=lambda: answers.append(ask(gateway, "/failing")))
    client.start()
    gateway.program.wait_until(lambda: _pending(gateway) == 1, "a request that waits for its reply")
    services.release("/bad")
    client.join(5)
    [answer] = answers
    assert (answer.status, answer.parts) == (502, {"orders": "cancelled", "user": "error"})
    assert json.loads(answer.body)["outcome"] == "unknown"
    assert_quiet(gateway)


def test_whatever_is_answered_the_whole_is_json(gateway: Gateway) -> None:
    answer = ask(gateway, "/garbage")
    assert answer.status == 200, answer.body
    assert answer.json["text"] == "no JSON"
    assert answer.json["nothing"] is None
    assert answer.json["hex"] is None


def _pending(gateway: Gateway) -> float:
    return sum(value for name, value in gateway.metrics().items() if name.startswith("castlegate_kafka_pending"))
