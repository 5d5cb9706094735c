"""Request-reply with real services of each dialect, through the engine."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import murmur2
from tests.conftest import Broker
from tests.kafka.calls import REQUEST_ID, TRACE, Rig, failure, running
from tests.testbeds.services import Service, start_plain
from tests.testbeds.topics import create_topics

from castlegate.errors import Kinds, Outcome
from castlegate.message import Reply

NEST_STREAM = b'{"count":3,"delay_ms":5}'


@pytest.fixture
async def rig(broker: Broker) -> AsyncIterator[Rig]:
    await asyncio.to_thread(create_topics, broker.bootstrap, {"spring.fixed.replies": 4})

    def bind(rig: Rig) -> None:
        rig.caller("nest", "echo", dialect="nest")
        rig.caller("spring", "echo", dialect="spring")
        rig.caller("spring", "fixed", dialect="spring", operations={"fixed": {"replies": "spring.fixed.replies"}})
        rig.caller("fs", "echo", dialect="faststream")
        rig.caller("plain", "script", dialect="plain")

    async with running(broker.bootstrap, bind) as rig:
        assert rig.engine.state.ready, rig.engine.state.reason
        yield rig


def told(reply: Reply) -> tuple[int, bytes | None, Any]:
    kind = reply.headers.get(b"content-type")
    assert isinstance(reply.body, bytes)
    return reply.status, kind, json.loads(reply.body) if kind == b"application/json" else reply.body


def check_context(headers: dict[str, str], correlation: str) -> None:
    assert re.fullmatch(r"[0-9a-f]{32}", headers[correlation])
    assert headers["traceparent"] == TRACE.traceparent.decode()
    assert headers["tracestate"] == "vendor=1"
    assert headers["x-request-id"] == REQUEST_ID.decode()
    assert re.fullmatch(r"[0-9]{13}", headers["x-deadline-ms"])


# --- nest


@pytest.mark.parametrize(
    ("operation", "body", "expected"),
    [
        ("list", b"{}", (200, b"application/json", [{"id": 1}, {"id": 2}])),
        ("number", b"{}", (200, b"text/plain; charset=utf-8", b"42")),
        ("text", '{"text":"žluť"}'.encode(), (200, b"text/plain; charset=utf-8", "žluť".encode())),
        ("nothing", b"{}", (204, None, b"")),
        ("stream", NEST_STREAM, (200, b"application/json", {"n": 3})),
        ("shaped", b"{}", (200, b"application/json", {"status": 201, "headers": {"location": "/orders/7"},
                                                      "body": {"id": 7}})),
        ("record", b"{}", (200, b"application/json", {"id": 7})),
    ],
)  # fmt: skip
async def test_nest_answers(
    rig: Rig, nest_service: Service, operation: str, body: bytes, expected: tuple[int, bytes | None, Any]
) -> None:
    assert told(await rig.caller("nest", operation, dialect="nest")(body)) == expected


async def test_nest_sees_body_key_and_context(rig: Rig, nest_service: Service) -> None:
    echo = rig.caller("nest", "echo", dialect="nest", forward_headers=["X-Tenant"])
    fields = [(b"x-tenant", b"blue"), (b"cookie", b"secret"), (b"x-deadline-ms", b"1"), (b"traceparent", b"forged")]
    _, _, seen = told(await echo(b'{"id":7}', key=b"customer-7", client_headers=fields))
    assert (seen["payload"], seen["messageKey"]) == ({"id": 7}, "customer-7")
    assert seen["partition"] == murmur2(b"customer-7", 4), "where Java and kafkajs clients put that key"
    assert seen["headers"]["x-tenant"] == "blue"
    assert "cookie" not in seen["headers"]
    check_context(seen["headers"], "kafka_correlationId")


@pytest.mark.parametrize(
    ("thrown", "status", "detail"),
    [
        ({"error": {"status": 404, "message": "no order 9"}}, 404, "no order 9"),
        ({"error": {"statusCode": 409, "message": "taken"}}, 409, "taken"),
        ({"error": "nope"}, 500, "nope"),
        ({"plain": "something broke"}, 500, "Internal server error"),
    ],
)
async def test_nest_errors(rig: Rig, nest_service: Service, thrown: object, status: int, detail: str) -> None:
    failed = await failure(rig.caller("nest", "fail", dialect="nest")(json.dumps(thrown).encode()))
    assert (failed.kind, failed.outcome) == (Kinds.SERVICE_ERROR, Outcome.ANSWERED)
    assert (failed.status, failed.detail) == (status, detail)


async def test_an_error_in_a_stream_is_the_answer(rig: Rig, nest_service: Service) -> None:
    failed = await failure(rig.caller("nest", "stream", dialect="nest")(b'{"count":3,"fail_after":1}'))
    assert (failed.status, failed.detail) == (409, "no value 2")


async def test_no_reply_is_a_timeout_whose_outcome_is_unknown(rig: Rig, nest_service: Service) -> None:
    failed = await failure(rig.caller("nest", "silent", dialect="nest")(within=0.3))
    assert (failed.kind, failed.outcome) == (Kinds.TIMEOUT, Outcome.UNKNOWN)
    assert len(rig.engine.pending) == 0


async def test_a_reply_after_the_deadline_is_counted_late_and_dropped(rig: Rig, nest_service: Service) -> None:
    failed = await failure(rig.caller("nest", "late", dialect="nest")(b'{"delay_ms":400}', within=0.2))
    assert failed.kind is Kinds.TIMEOUT
    await rig.until(lambda: rig.replies().get("late"))
    echo = rig.caller("nest", "echo", dialect="nest")
    assert (await echo()).status == 200
    assert rig.replies() == {"late": 1, "ok": 1}


# --- faststream


@pytest.mark.parametrize(
    ("operation", "body", "expected"),
    [
        ("text", b'{"text":"words"}', (200, b"text/plain; charset=utf-8", b"words")),
        ("bytes", b'{"hex":"00ff10"}', (200, b"application/octet-stream", b"\x00\xff\x10")),
        ("none", b"{}", (204, None, b"")),
    ],
)
async def test_faststream_answers(
    rig: Rig, faststream_service: Service, operation: str, body: bytes, expected: tuple[int, bytes | None, Any]
) -> None:
    assert told(await rig.caller("fs", operation, dialect="faststream")(body)) == expected


async def test_faststream_sees_body_key_and_context(rig: Rig, faststream_service: Service) -> None:
    echo = rig.caller("fs", "echo", dialect="faststream", forward_headers=["x-name"])
    fields = [(b"x-name", b"Ren\xe9e"), (b"content-type", b"application/json")]
    _, _, seen = told(await echo(b'{"id":7}', key=b"k", client_headers=fields))
    assert (seen["payload"], seen["key"]) == ({"id": 7}, "k")
    assert seen["headers"]["x-name"] == "Renée", "a header that is not UTF-8 would break FastStream's parser"
    check_context(seen["headers"], "correlation_id")


async def test_a_faststream_handler_that_fails_is_a_timeout(rig: Rig, faststream_service: Service) -> None:
    failed = await failure(rig.caller("fs", "fail", dialect="faststream")(within=0.3))
    assert (failed.kind, failed.outcome) == (Kinds.TIMEOUT, Outcome.UNKNOWN)


# --- plain


async def test_plain_sees_body_key_and_context(rig: Rig, plain_service: Service) -> None:
    script = rig.caller("plain", "script", dialect="plain")
    _, _, seen = told(await script(b'{"id":7}', key=b"k"))
    assert (seen["payload"], seen["key"]) == ({"id": 7}, "k")
    check_context(seen["headers"], "correlation-id")


async def test_plain_status_and_fields(rig: Rig, plain_service: Service) -> None:
    script = rig.caller("plain", "script", dialect="plain", status_header="status", reply_headers={"location": "at"})
    replies = [{"value": {"id": 7}, "headers": {"status": "201", "at": "/orders/7"}}]
    got = await script(json.dumps({"replies": replies}).encode())
    assert told(got) == (201, b"application/json", {"id": 7})
    assert got.headers.get(b"location") == b"/orders/7"


async def test_of_a_header_that_repeats_the_last_counts(rig: Rig, plain_service: Service) -> None:
    script = rig.caller("plain", "script", dialect="plain", status_header="status")
    replies = [{"value": 1, "headers": [["status", "500"], ["status", "202"]]}]
    assert (await script(json.dumps({"replies": replies}).encode())).status == 202


async def test_plain_without_a_reply_partition_is_answered_in_an_inbox_of_one(rig: Rig, plain_service: Service) -> None:
    script = rig.caller("plain", "script", dialect="plain", names={"reply_partition": None})
    _, _, seen = told(await script(b'{"id":7}'))
    assert re.fullmatch(r"castlegate\.replies\.[0-3]", seen["headers"]["reply-topic"])
    assert "reply-partition" not in seen["headers"]


# --- spring


SPRING = {"dialect": "spring", "error_header": "error"}


def spring(rig: Rig, operation: str, **settings: Any) -> Any:
    return rig.caller("spring", operation, **{**SPRING, **settings})


@pytest.mark.parametrize(
    ("operation", "body", "expected"),
    [
        ("object", b'{"id":9}', (200, b"application/json", {"id": 9, "name": "žluť"})),
        ("text", "žluť 42".encode(), (200, b"text/plain; charset=utf-8", "read: žluť 42".encode())),
        ("text", b"", (200, b"text/plain; charset=utf-8", b"read: {}")),
    ],
)
async def test_spring_answers(
    rig: Rig, spring_service: Service, operation: str, body: bytes, expected: tuple[int, bytes | None, Any]
) -> None:
    assert told(await spring(rig, operation)(body)) == expected


async def test_spring_sees_body_key_and_context(rig: Rig, spring_service: Service) -> None:
    echo = spring(rig, "echo", forward_headers=["X-Tenant"])
    fields = [(b"x-tenant", b"blue"), (b"cookie", b"secret"), (b"traceparent", b"forged")]
    _, _, seen = told(await echo(b'{"id":7}', key=b"customer-7", client_headers=fields))
    assert (json.loads(seen["payload"]), seen["key"]) == ({"id": 7}, "customer-7")
    assert seen["partition"] == murmur2(b"customer-7", 4)
    assert seen["headers"]["x-tenant"] == "blue"
    assert "cookie" not in seen["headers"]
    assert seen["headers"]["kafka_replyTopic"] == "castlegate.replies"
    assert re.fullmatch("0000000[0-7]", seen["hex"]["kafka_replyPartition"]), "a big-endian int of 4 bytes"
    check_context(seen["headers"], "kafka_correlationId")


async def test_a_spring_json_deserializer_is_told_the_type(rig: Rig, spring_service: Service) -> None:
    typed = {"type_id": "testbed.Handlers$Order"}
    settings = {"operations": {"typed": typed, "quoted": typed}}
    order = b'{"id":"7","quantity":2}'
    got = await spring(rig, "typed", **settings)(order)
    assert told(got) == (200, b"application/json", {"id": "7", "quantity": 3})
    assert got.headers.pairs() == [(b"content-type", b"application/json")], "its type header stays behind"
    assert told(await spring(rig, "quoted", **settings)(order)) == (200, b"application/json", "order 7")


async def test_a_spring_reply_names_status_and_fields(rig: Rig, spring_service: Service) -> None:
    created = spring(rig, "created", status_header="status", reply_headers={"location": "location"})
    got = await created(b'{"id":7}')
    assert told(got) == (201, b"application/json", {"id": 7})
    assert got.headers.get(b"location") == b"/orders/7"


@pytest.mark.parametrize(
    ("reason", "status", "detail"),
    [("no order 9", 500, "no order 9"), ('{"status":404,"message":"no order 9"}', 404, "no order 9")],
)
async def test_a_spring_error_handler_tells_in_a_header(
    rig: Rig, spring_service: Service, reason: str, status: int, detail: str
) -> None:
    failed = await failure(spring(rig, "told")(json.dumps({"error": reason}).encode()))
    assert (failed.kind, failed.outcome) == (Kinds.SERVICE_ERROR, Outcome.ANSWERED)
    assert (failed.status, failed.detail) == (status, detail)


@pytest.mark.parametrize("operation", ["fail", "void", "null"])
async def test_a_spring_listener_without_an_answer_is_a_timeout(
    rig: Rig, spring_service: Service, operation: str
) -> None:
    before = len(spring_service.handled(topic=f"spring.{operation}"))
    failed = await failure(spring(rig, operation)(within=1.0))
    assert (failed.kind, failed.outcome) == (Kinds.TIMEOUT, Outcome.UNKNOWN)
    assert len(spring_service.handled(topic=f"spring.{operation}")) == before + 1, "it was handled, once"


async def test_spring_may_answer_on_a_fixed_topic(rig: Rig, spring_service: Service) -> None:
    fixed = spring(rig, "fixed", operations={"fixed": {"replies": "spring.fixed.replies"}})
    assert told(await fixed(b'{"id":7}')) == (200, b"application/json", {"got": {"id": 7}})


# --- zilla, of which there is no service here: the scripted one plays it

ZILLA = {"CORRELATION_HEADER": "zilla:correlation-id", "REPLY_TOPIC_HEADER": "zilla:reply-to", "TOPICS": "zilla.script"}


@pytest.fixture
async def zilla_service(broker: Broker, tmp_path: Path) -> AsyncIterator[Service]:
    service = await asyncio.to_thread(start_plain, broker.bootstrap, tmp_path, ZILLA)
    yield service
    await asyncio.to_thread(service.program.terminate)


async def test_zilla_sees_the_request_line_and_its_answer_is_the_response(rig: Rig, zilla_service: Service) -> None:
    script = rig.caller("zilla", "script", dialect="zilla", forward_headers=["Content-Type"])
    fields = [(b"content-type", b"application/json"), (b"cookie", b"secret"), (b"idempotency-key", b"1")]
    _, _, seen = told(await script(b'{"id":7}', key=b"k", client_headers=fields))
    assert (seen["payload"], seen["key"]) == ({"id": 7}, "k")
    sent = seen["headers"]
    assert [sent[name] for name in (":method", ":scheme", ":authority", ":path")] == ["POST", "http", "gateway", "/"]
    assert sent["content-type"] == "application/json"
    assert not {"cookie", "idempotency-key", "prefer", "content-length"} & sent.keys()
    assert re.fullmatch(r"castlegate\.replies\.[0-3]", sent["zilla:reply-to"])
    check_context(sent, "zilla:correlation-id")

    headers = {":status": "409", "content-type": "application/problem+json", "etag": "v2", "connection": "etag, x"}
    got = await script(json.dumps({"replies": [{"value": {"title": "taken"}, "headers": headers}]}).encode())
    assert (got.status, got.body) == (409, b'{"title": "taken"}')
    assert got.headers.pairs() == [(b"content-type", b"application/problem+json")]
