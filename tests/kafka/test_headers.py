"""A record has each header once, whoever says it: kafkajs makes a list of one that repeats, others take the last."""

from collections import Counter

from tests.conftest import Broker
from tests.kafka.calls import Rig, running
from tests.kafka.echo import Echo
from tests.testbeds.topics import create_topics

NAMES = ["x-tenant", "x-source", "correlation-id", "X-Request-Id"]


def bind(rig: Rig) -> None:
    rig.caller("twice", "do", dialect="plain", forward_headers=NAMES)


async def test_what_client_route_and_dialect_say_is_said_once_by_the_last_of_them(broker: Broker) -> None:
    create_topics(broker.bootstrap, {"twice.do": 1})
    echo = Echo(broker.bootstrap, "twice.do")
    said = [(b"x-source", b"route"), (b"x-request-id", b"route"), (b"traceparent", b"route"), (b"x-deadline-ms", b"1")]
    client = [(name.lower().encode(), b"client") for name in NAMES]
    try:
        async with running(broker.bootstrap, bind) as rig:
            ask = rig.caller("twice", "do", dialect="plain", forward_headers=NAMES)
            assert (await ask(b'"x"', headers=said, client_headers=[*client, (b"x-tenant", b"again")])).status == 200
        headers = echo.seen[-1].headers() or []
    finally:
        echo.stop()
    assert [name for name, count in Counter(name.lower() for name, _ in headers).items() if count > 1] == []
    found = dict(headers)
    assert found["x-tenant"] == b"client, again"
    assert found["x-source"] == b"route"
    assert found["x-request-id"] == b"6f1c3d5e7a9b0c2d4e6f8a0b1c2d3e4f"
    assert found["correlation-id"] != b"client"
