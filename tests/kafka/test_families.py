"""Services of several families behind the whole program: what a client sees of each kind of answer."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import Broker
from tests.testbeds.gateway import Gateway
from tests.testbeds.services import Service, start_plain
from tests.testbeds.wire import Client

ROUTES = """
services:
  spring:
    kafka:
      dialect: spring
      error_header: error
      status_header: status
      reply_headers: {location: location}
      operations:
        typed: {type_id: "testbed.Handlers$Order"}
        fixed: {replies: spring.fixed.replies}
  items:
    kafka: {dialect: zilla, forward_headers: [content-type, idempotency-key], operations: {put: {topic: zilla.whole}}}
  fs: {kafka: faststream}
defaults: {public: true, timeout: 10s}
routes:
  POST /sent: {call: fs.echo, send: {id: 7}}
  POST /echo/{id}: {call: spring.echo, key: "{path.id}", send: {id: "{path.id}"}}
  POST /typed: {call: spring.typed}
  POST /created: {call: spring.created}
  POST /told: {call: spring.told}
  POST /void: {call: spring.void, timeout: 1s}
  POST /fixed: {call: spring.fixed}
  PUT /items/{id}: {call: items.put, key: "{path.id}"}
"""
ZILLA = {"CORRELATION_HEADER": "zilla:correlation-id", "REPLY_TOPIC_HEADER": "zilla:reply-to", "TOPICS": "zilla.whole"}

Answer = tuple[int, dict[str, str], bytes]


@pytest.fixture(scope="module")
def gateway(
    broker: Broker, spring_service: Service, faststream_service: Service, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    folder: Path = tmp_path_factory.mktemp("families")
    zilla = start_plain(broker.bootstrap, folder, ZILLA)
    gateway = Gateway(folder, f'kafka: "{broker.bootstrap}"\n{ROUTES}')
    gateway.program.wait_until(lambda: gateway.readiness()[1] == {"status": "ready", "reason": ""}, "readiness")
    yield gateway
    zilla.program.terminate()
    assert gateway.stop() == 0


def ask(gateway: Gateway, method: str, path: str, payload: Any, fields: str = "") -> Answer:
    body = json.dumps(payload).encode()
    head = f"{method} {path} HTTP/1.1\r\nHost: shop.example\r\nContent-Length: {len(body)}\r\n{fields}\r\n"
    with Client(gateway.port, timeout_s=20) as client:
        return client.send(head.encode() + body).read_answer()


def test_a_spring_listener_answers(gateway: Gateway) -> None:
    status, _, body = ask(gateway, "POST", "/echo/7", {})
    seen = json.loads(body)
    assert (status, json.loads(seen["payload"]), seen["key"]) == (200, {"id": "7"}, "7")
    status, _, body = ask(gateway, "POST", "/typed", {"id": "7", "quantity": 1})
    assert (status, json.loads(body)) == (200, {"id": "7", "quantity": 2})
    status, fields, body = ask(gateway, "POST", "/created", {"id": 7})
    assert (status, fields["location"], json.loads(body)) == (201, "/orders/7", {"id": 7})
    assert "__typeid__" not in fields
    assert ask(gateway, "POST", "/fixed", {"id": 7})[2] == b'{"got":{"id":7}}'


def test_what_a_spring_error_handler_tells_is_a_problem_document(gateway: Gateway) -> None:
    status, fields, body = ask(gateway, "POST", "/told", {"error": '{"status":404,"message":"no order 9"}'})
    assert (status, fields["content-type"]) == (404, "application/problem+json")
    problem = json.loads(body)
    assert (problem["detail"], problem["outcome"]) == ("no order 9", "answered")
    assert ask(gateway, "POST", "/told", {"error": "plainly"})[0] == 500


def test_a_spring_listener_that_is_void_is_a_timeout(gateway: Gateway) -> None:
    status, _, body = ask(gateway, "POST", "/void", {})
    assert (status, json.loads(body)["outcome"]) == (504, "unknown")


def test_what_a_client_says_of_its_body_is_not_said_of_one_that_the_gateway_made(gateway: Gateway) -> None:
    status, _, body = ask(gateway, "POST", "/sent", {}, "Content-Type: text/plain\r\n")
    assert (status, json.loads(body)["payload"]) == (200, {"id": 7})


def test_a_zilla_service_sees_the_clients_request(gateway: Gateway) -> None:
    fields = "Content-Type: application/json\r\nIdempotency-Key: k1\r\nCookie: c=1\r\nPrefer: wait=1\r\n"
    status, _, body = ask(gateway, "PUT", "/items/7?dry=1", {"name": "lamp"}, fields)
    seen = json.loads(body)
    sent = seen["headers"]
    assert (status, seen["payload"], seen["key"]) == (200, {"name": "lamp"}, "7")
    line = [sent[name] for name in (":method", ":scheme", ":authority", ":path")]
    assert line == ["PUT", "http", "shop.example", "/items/7?dry=1"]
    assert (sent["content-type"], sent["idempotency-key"]) == ("application/json", "k1")
    assert not {"cookie", "prefer", "content-length"} & sent.keys()


def test_a_zilla_answer_is_the_response_whatever_its_status(gateway: Gateway) -> None:
    headers = {":status": "409", "content-type": "application/vnd.error+json", "etag": '"v2"', "connection": "close",
               "content-length": "9999", "x-request-id": "forged", "transfer-encoding": "chunked"}  # fmt: skip
    status, fields, body = ask(
        gateway, "PUT", "/items/7", {"replies": [{"value": {"taken": True}, "headers": headers}]}
    )
    assert (status, body) == (409, b'{"taken": true}')
    assert (fields["content-type"], fields["etag"]) == ("application/vnd.error+json", '"v2"')
    assert fields["content-length"] == "15"
    assert fields["x-request-id"] != "forged"
    assert not {"connection", "transfer-encoding"} & fields.keys()
    status, fields, body = ask(gateway, "PUT", "/items/7", {"replies": [{"headers": {":status": "204"}}]})
    assert (status, body) == (204, b"")


@pytest.mark.parametrize(
    "headers", [{":status": "abc"}, {"x": "a\r\nset-cookie: b=c"}, {"x y": "1"}, {"content-type": "application/json"}]
)
def test_a_zilla_answer_that_is_none_is_a_bad_gateway(gateway: Gateway, headers: dict[str, str]) -> None:
    reply = {"text": "not json", "headers": headers}
    status, fields, body = ask(gateway, "PUT", "/items/7", {"replies": [reply]})
    assert (status, json.loads(body)["outcome"]) == (502, "answered")
    assert "set-cookie" not in fields
