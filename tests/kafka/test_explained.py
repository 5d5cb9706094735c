"""What `castlegate explain` says is what really goes out: told first, then sent through a gateway and seen at the end."""

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.conftest import Broker
from tests.kafka.echo import Echo
from tests.kafka.test_routes import ask
from tests.testbeds.gateway import Gateway
from tests.testbeds.topics import create_topics
from tests.testbeds.wire import Origin

from castlegate.explain import explain

CONFIG = """
kafka: {{bootstrap: "{bootstrap}", inbox: told.in}}
services:
  users: {{http: ["http://127.0.0.1:{port}"]}}
  told: {{kafka: {{dialect: plain, forward_headers: [X-Tenant]}}}}
defaults: {{public: true, timeout: 5s}}
routes:
  GET /users/{{id}}:
    call: users
    get: "/v1/{{path.id}}?q={{query.q?}}&t={{header.x-tenant}}"
    headers: {{request: {{cookie: null, x-from: "of {{header.x-tenant}}"}}}}
  PUT /users/{{rest...}}: {{call: users, strip_prefix: /users}}
  POST /told/{{id}}:
    call: told.asked
    send: {{id: "{{path.id}}", n: "{{query.n?:int}}", all: "{{body}}", who: "{{header.x-tenant}}"}}
    key: "{{path.id}}/{{body.k}}"
    headers: {{request: {{x-from: "of {{header.x-tenant}}"}}}}
"""
# What stands for the same in every request of these tests.
KNOWN = {"{header.x-tenant}": "acme", "{body.k}": "7", "(the client's own fields)": ""}


def told(gateway: Gateway, method: str, target: str) -> tuple[dict[str, Any], Any]:
    """What the last link of the chain says, and the whole."""
    path = gateway.access_log.with_name("gateway.yaml")
    explanation = explain(path, method, target, f"127.0.0.1:{gateway.port}")
    assert explanation.goes_through
    return explanation.chain[-1].says, explanation


def filled(text: str) -> str:
    """With the values that the requests have; what differs from request to request is a pattern."""
    parts = re.split(r"(\{[^{}]*\}|\(the client's own fields\).*)", text)
    return "".join(re.escape(KNOWN.get(part, part)) if part in KNOWN or "{" not in part else ".+" for part in parts)


@pytest.mark.parametrize("target", ["/users/7?q=a%26b", "/users/a%2Fb", "/users//x/../9"])
def test_http(embedded_broker: Broker, target: str, tmp_path: Path) -> None:
    with Origin() as origin:
        gateway = Gateway(tmp_path, CONFIG.format(bootstrap=embedded_broker.bootstrap, port=origin.port))
        try:
            for method in ("GET", "PUT"):
                says, _ = told(gateway, method, target)
                sent = {"X-Tenant": "acme", "Cookie": "a=1"}
                assert ask(gateway.port, method, target, {"k": 1} if method == "PUT" else None, sent)[0] == 200
                head = origin.seen[-1].partition(b"\r\n\r\n")[0].decode().split("\r\n")
                [line] = says["sends"]
                expected = line.replace(f"http://127.0.0.1:{origin.port}", "") + " HTTP/1.1"
                assert re.fullmatch(filled(expected), head[0])
                fields = [field for field in says["fields"] if not field.startswith("(")]
                for field in fields:
                    assert any(re.fullmatch(filled(field), each) for each in head[1:]), (field, head)
                names = {field.partition(":")[0] for field in fields}
                others = {each.partition(":")[0] for each in head[1:]} - names
                own = {"x-tenant", "accept-encoding", "content-length"} | ({"cookie"} if method == "PUT" else set())
                assert others <= own, "nothing goes out that was not told"
        finally:
            gateway.stop()


def test_kafka(broker: Broker, tmp_path: Path) -> None:
    create_topics(broker.bootstrap, {"told.asked": 2})
    echo = Echo(broker.bootstrap, "told.asked")
    gateway = Gateway(tmp_path, CONFIG.format(bootstrap=broker.bootstrap, port=1))
    try:
        gateway.program.wait_until(lambda: gateway.readiness()[1].get("reason") == "", "readiness")
        says, explanation = told(gateway, "POST", "/told/a%20b?n=5")
        assert explanation.placeholders == {"id": "a b"}
        status, answer = ask(gateway.port, "POST", "/told/a%20b?n=5", {"k": 7}, {"X-Tenant": "acme"})
        assert status == 200
        [message] = echo.seen
        assert message.topic() == says["topic"]
        assert re.fullmatch(filled(says["key"]), (message.key() or b"").decode())
        assert answer == {"id": "a b", "n": 5, "all": {"k": 7}, "who": "acme"}
        value = msgspec.json.decode(says["value"])
        assert value == {"id": "a b", "n": 5, "all": "{body}", "who": "{header.x-tenant}"}
        seen = [f"{name}: {bytes(text or b'').decode()}" for name, text in message.headers() or []]
        assert len(seen) == len(says["headers"])
        for line, header in zip(says["headers"], seen, strict=True):
            assert re.fullmatch(filled(line), header), (line, header)
        assert says["answer"] == "on told.in, found by the header correlation-id"
    finally:
        gateway.stop()
        echo.stop()
