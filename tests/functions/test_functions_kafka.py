"""Functions that call services behind Kafka, by their parameters and by names that are first said by the function."""

import json
from pathlib import Path
from uuid import uuid4

from tests.conftest import Broker
from tests.kafka.echo import Echo, asked
from tests.testbeds.gateway import Gateway
from tests.testbeds.topics import create_topics
from tests.testbeds.wire import Client

SHOP = """
import asyncio
from typing import Annotated, Any
from castlegate.python import Context, Service

async def both(number: int, get: Annotated[Service, "NAME.get"], ctx: Context) -> list[Any]:
    return list(await asyncio.gather(get({"id": number}, key=str(number)), ctx.call("NAME.late", {"late": number})))

async def short(get: Annotated[Service, "NAME.get"]) -> Any:
    return await get({"id": 1}, timeout=0.2)
"""
CONFIG = """
kafka: "{bootstrap}"
services: {{{name}: {{kafka: {{dialect: plain}}}}}}
defaults: {{public: true, timeout: 10s}}
routes:
  GET /both/{{number}}: {{call: "python:shop:both"}}
  GET /short: {{call: "python:shop:short"}}
"""


def test_a_function_asks_services_behind_kafka(broker: Broker, tmp_path: Path) -> None:
    name = f"f{uuid4().hex[:8]}"
    create_topics(broker.bootstrap, {f"{name}.get": 1, f"{name}.late": 1})
    (tmp_path / "shop.py").write_text(SHOP.replace("NAME", name))
    get, late = Echo(broker.bootstrap, f"{name}.get"), Echo(broker.bootstrap, f"{name}.late")
    try:
        with Gateway(tmp_path, CONFIG.format(bootstrap=broker.bootstrap, name=name)) as gateway:
            gateway.program.wait_until(lambda: gateway.readiness()[1] == {"status": "ready", "reason": ""}, "readiness")
            with Client(gateway.port, timeout_s=20) as client:
                client.send(b"GET /both/7 HTTP/1.1\r\nHost: h\r\n\r\n")
                status, fields, body = client.read_answer()
                assert (status, json.loads(body)) == (200, [{"id": 7}, {"late": 7}])
                assert get.seen[0].key() == b"7"
                ids = {asked(message)["x-request-id"].decode() for message in (get.seen[0], late.seen[0])}
                assert ids == {fields["x-request-id"]}
                get.held.set()
                client.send(b"GET /short HTTP/1.1\r\nHost: h\r\n\r\n")
                status, _, body = client.read_answer()
                assert (status, json.loads(body)["outcome"]) == (504, "unknown")
            assert gateway.metrics()["castlegate_kafka_pending"] == 0
    finally:
        get.stop()
        late.stop()
