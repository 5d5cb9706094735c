"""What each dialect writes, and what it makes of every kind of reply, as tables."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.kafka.calls import make_call

from castlegate.errors import CallFailed, Kinds, Outcome
from castlegate.message import Reply
from castlegate.upstreams.kafka.dialects.dialect import Dialect, End, ReceivedHeaders, ReplyAddress, SentHeaders, Value
from castlegate.upstreams.kafka.dialects.faststream import FastStream
from castlegate.upstreams.kafka.dialects.nest import Nest
from castlegate.upstreams.kafka.dialects.plain import Plain
from castlegate.upstreams.kafka.dialects.spring import Spring
from castlegate.upstreams.kafka.dialects.zilla import Zilla
from castlegate.upstreams.kafka.settings import HeaderNames, KafkaOperation, KafkaService

ID = b"0123456789abcdef0000000000000001"
JSON, TEXT, BYTES = b"application/json", b"text/plain; charset=utf-8", b"application/octet-stream"
LAST: ReceivedHeaders = {"kafka_nest-is-disposed": b"\0"}
# Newer Pythons take what the stack has room for: 3.11 a thousand levels, 3.14 some hundred thousand.
DEEP = b"[" * 1_000_000 + b"]" * 1_000_000


def nest(**settings: Any) -> Nest:
    return Nest(KafkaService(dialect="nest", **settings))


def faststream(**settings: Any) -> FastStream:
    return FastStream(KafkaService(dialect="faststream", **settings))


def plain(names: HeaderNames | None = None, **settings: Any) -> Plain:
    return Plain(KafkaService(dialect="plain", names=names or HeaderNames(), **settings))


def spring(type_id: str | None = None, **settings: Any) -> Spring:
    return Spring(KafkaService(dialect="spring", **settings), KafkaOperation(type_id=type_id))


def encoded(
    dialect: Dialect, body: bytes = b'{"a":1}', partition: int | None = 3, **call: Any
) -> tuple[SentHeaders, bytes]:
    headers, value = dialect.encode(make_call(body, deadline=0.0, **call), ReplyAddress("inbox", partition), ID)
    return sorted(headers), value


def reply(dialect: Dialect, headers: ReceivedHeaders, value: bytes | None) -> Reply:
    answer = dialect.decode(headers, value)
    assert isinstance(answer, Value)
    assert answer.last
    return answer.reply


def failed(dialect: Dialect, headers: ReceivedHeaders, value: bytes | None) -> CallFailed:
    with pytest.raises(CallFailed) as raised:
        dialect.decode(headers, value)
    assert raised.value.outcome is Outcome.ANSWERED
    return raised.value


def told(got: Reply) -> tuple[int, bytes | None, bytes]:
    assert isinstance(got.body, bytes)
    return got.status, got.headers.get(b"content-type"), got.body


# --- nest


def test_nest_says_where_to_answer_in_text() -> None:
    assert encoded(nest()) == (
        [("kafka_correlationId", ID), ("kafka_replyPartition", b"3"), ("kafka_replyTopic", b"inbox")],
        b'{"a":1}',
    )


def test_nest_follows_the_reply_address_when_it_changes() -> None:
    dialect = nest()
    assert encoded(dialect, partition=3)[0][1] == ("kafka_replyPartition", b"3")
    assert encoded(dialect, partition=11)[0][1] == ("kafka_replyPartition", b"11")
    assert [name for name, _ in encoded(dialect, partition=None)[0]] == ["kafka_correlationId", "kafka_replyTopic"]


def test_nest_is_never_sent_an_empty_value() -> None:
    assert encoded(nest(), b"")[1] == b"{}"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b'{"id":7}', (200, JSON, b'{"id":7}')),
        (b'[{"id":7}, 8]', (200, JSON, b'[{"id":7}, 8]')),
        ('{"name":"Žofie"}'.encode(), (200, JSON, '{"name":"Žofie"}'.encode())),
        (b"42", (200, TEXT, b"42")),
        (b"just text", (200, TEXT, b"just text")),
        ("Žofie".encode(), (200, TEXT, "Žofie".encode())),
        (b"", (200, TEXT, b"")),
        (b' {"not":"json to nest"', (200, TEXT, b' {"not":"json to nest"')),
        (b"\xff\xfe", (200, BYTES, b"\xff\xfe")),
        (b"\0\0\0\0\x01schema registry", (200, BYTES, b"\0\0\0\0\x01schema registry")),
    ],
)
def test_nest_values(value: bytes, expected: tuple[int, bytes, bytes]) -> None:
    assert told(reply(nest(), dict(LAST), value)) == expected


@pytest.mark.parametrize("value", [b'{"a":', b"{", b"[1,]", b'{"a":1} {"b":2}', b'{"a":"\xff"}', b"{\xff}", DEEP])
def test_nest_json_that_is_none_is_a_bad_answer(value: bytes) -> None:
    assert failed(nest(), dict(LAST), value).kind is Kinds.BAD_ANSWER


def test_nest_null_is_the_end_or_nothing_at_all() -> None:
    answer = nest().decode(dict(LAST), None)
    assert isinstance(answer, End)
    assert told(answer.empty) == (204, None, b"")


def test_nest_values_without_the_last_mark_are_followed_by_more() -> None:
    answer = nest().decode({}, b"1")
    assert isinstance(answer, Value)
    assert not answer.last


@pytest.mark.parametrize(
    ("error", "status", "detail"),
    [
        (b'{"status":404,"message":"no order 999"}', 404, "no order 999"),
        (b'{"statusCode":409,"message":"taken","error":"Conflict"}', 409, "taken"),
        (b'{"statusCode":400,"message":["id must be a number","name is empty"]}', 400,
         "id must be a number; name is empty"),
        (b'{"status":"error","message":"Internal server error"}', 500, "Internal server error"),
        (b'{"status":"error","statusCode":422,"message":"no"}', 422, "no"),
        (b'{"status":200,"message":"odd"}', 500, "odd"),
        (b'{"status":600,"message":"odd"}', 500, "odd"),
        (b'{"status":true,"message":"odd"}', 500, "odd"),
        (b'{"status":404.5,"message":"odd"}', 500, "odd"),
        (b'{"status":503,"message":{"deep":1}}', 503, ""),
        (b'{"error":"Teapot","status":418}', 418, "Teapot"),
        (b"plain words", 500, "plain words"),
        (b"There is no matching message handler defined in the remote service.", 500,
         "There is no matching message handler defined in the remote service."),
        (b'{"broken', 500, '{"broken'),
        (b"[1, 2]", 500, "[1, 2]"),
        (b"\xff\xfe", 500, "\ufffd\ufffd"),
        (b"two\r\nlines\0", 500, "two \nlines "),
        (b"", 500, ""),
        (b"x" * 5000, 500, "x" * 1000),
    ],
)  # fmt: skip
def test_nest_errors(error: bytes, status: int, detail: str) -> None:
    raised = failed(nest(), {"kafka_nest-err": error, **LAST}, None)
    assert (raised.kind, raised.status, raised.detail) == (Kinds.SERVICE_ERROR, status, detail)


# --- faststream


def test_faststream_is_told_a_topic_and_no_partition() -> None:
    assert encoded(faststream()) == ([("correlation_id", ID), ("reply_to", b"inbox")], b'{"a":1}')


@pytest.mark.parametrize(
    ("said", "sent"),
    [
        (b"application/json", b"application/json"),
        (b"Application/JSON; charset=utf-8", b"application/json"),
        (b"application/problem+json", b"application/json"),
        (b"text/plain", b"text/plain"),
        (b"text/csv", b"text/plain"),
        (b"application/octet-stream", None),
    ],
)
def test_faststream_learns_the_content_type(said: bytes, sent: bytes | None) -> None:
    by_endpoint, _ = encoded(faststream(), headers=[(b"content-type", said)])
    by_client, _ = encoded(faststream(), client_headers=[(b"content-type", said)])
    assert dict(by_endpoint).get("content-type") == dict(by_client).get("content-type") == sent


def test_faststream_believes_the_endpoint_before_the_client() -> None:
    headers, _ = encoded(
        faststream(), headers=[(b"content-type", b"application/json")], client_headers=[(b"content-type", b"text/csv")]
    )
    assert dict(headers)["content-type"] == b"application/json"


def test_faststream_is_told_json_of_a_body_that_the_gateway_made() -> None:
    headers, _ = encoded(faststream(), sent=True, client_headers=[(b"content-type", b"text/csv")])
    assert dict(headers)["content-type"] == b"application/json"


def test_faststream_is_sent_an_empty_object_for_no_body() -> None:
    headers, value = encoded(faststream(), b"")
    assert (dict(headers)["content-type"], value) == (b"application/json", b"{}")


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        (b"application/json", b'{"id":7}', (200, JSON, b'{"id":7}')),
        (b"application/json", b"42", (200, JSON, b"42")),
        (b"application/json; charset=utf-8", b"null", (200, JSON, b"null")),
        (b"text/plain", "žluť".encode(), (200, TEXT, "žluť".encode())),
        (b"text/plain", b"", (200, TEXT, b"")),
        (b"", b"", (204, None, b"")),
        (None, b"", (204, None, b"")),
        (b"", b"\x01\x02", (200, BYTES, b"\x01\x02")),
        (b"application/x-protobuf", b"\x01", (200, BYTES, b"\x01")),
    ],
)
def test_faststream_values(kind: bytes | None, value: bytes, expected: tuple[int, bytes | None, bytes]) -> None:
    assert told(reply(faststream(), {"content-type": kind}, value)) == expected


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (b"application/json", b'{"a":'),
        (b"application/json", b""),
        (b"application/json", b"\xff"),
        (b"text/plain", b"\xff"),
        (b"", None),
        (b"application/json", None),
    ],
)
def test_faststream_poison(kind: bytes, value: bytes | None) -> None:
    assert failed(faststream(), {"content-type": kind}, value).kind is Kinds.BAD_ANSWER


# --- plain


def test_plain_uses_the_names_it_is_given() -> None:
    names = HeaderNames(correlation="cid", reply_topic="answer-to", reply_partition=None)
    assert encoded(plain(names)) == ([("answer-to", b"inbox"), ("cid", ID)], b'{"a":1}')
    assert not plain(names).partitioned
    assert encoded(plain()) == (
        [("correlation-id", ID), ("reply-partition", b"3"), ("reply-topic", b"inbox")],
        b'{"a":1}',
    )


@pytest.mark.parametrize(
    ("headers", "value", "expected"),
    [
        ({}, b'{"id":7}', (200, JSON, b'{"id":7}')),
        ({}, b"words", (200, TEXT, b"words")),
        ({}, b"\xff", (200, BYTES, b"\xff")),
        ({}, None, (204, None, b"")),
        ({}, b"", (204, None, b"")),
        ({"content-type": b"text/csv"}, None, (204, None, b"")),
        ({"content-type": b"text/csv"}, b"", (200, b"text/csv", b"")),
        ({"content-type": b"text/csv"}, b"{a,b", (200, b"text/csv", b"{a,b")),
        ({"content-type": b"application/hal+json"}, b"{}", (200, b"application/hal+json", b"{}")),
        ({"content-type": None}, b"{}", (200, JSON, b"{}")),
    ],
)
def test_plain_values(headers: ReceivedHeaders, value: bytes | None, expected: tuple[int, bytes | None, bytes]) -> None:
    assert told(reply(plain(), headers, value)) == expected


@pytest.mark.parametrize(
    ("headers", "value"),
    [
        ({}, b'{"a":'),
        ({"content-type": b"application/json"}, b"words"),
        ({"content-type": b"application/json"}, b""),
        ({"content-type": b"application/hal+json"}, b"{"),
        ({"content-type": b"text/plain\r\nset-cookie: a=b"}, b"x"),
        ({"content-type": b"text/\0plain"}, b"x"),
    ],
)
def test_plain_poison(headers: ReceivedHeaders, value: bytes) -> None:
    assert failed(plain(), headers, value).kind is Kinds.BAD_ANSWER


def test_plain_error_header_is_a_failure_whatever_the_value() -> None:
    raised = failed(plain(), {"error": b"no such thing"}, b'{"id":7}')
    assert (raised.kind, raised.status, raised.detail) == (Kinds.SERVICE_ERROR, 500, "no such thing")
    assert failed(plain(), {"error": b'{"status":404,"message":"gone"}'}, None).status == 404
    assert failed(plain(), {"error": None}, None).status == 500
    quiet = plain(HeaderNames(error=None))
    assert reply(quiet, {"error": b"x"}, b"fine").status == 200


# --- spring


def test_spring_says_where_to_answer_in_its_own_encodings() -> None:
    assert encoded(spring()) == (
        [("kafka_correlationId", ID), ("kafka_replyPartition", b"\0\0\0\x03"), ("kafka_replyTopic", b"inbox")],
        b'{"a":1}',
    )
    assert encoded(spring(), partition=70_000)[0][1] == ("kafka_replyPartition", b"\0\x01\x11\x70")


def test_spring_is_told_no_partition_of_a_fixed_topic() -> None:
    """It would write to that partition of its own topic."""
    assert [name for name, _ in encoded(spring(), partition=None)[0]] == ["kafka_correlationId", "kafka_replyTopic"]


def test_spring_is_told_the_type_where_it_is_to_be() -> None:
    assert ("__TypeId__", b"com.example.Order") in encoded(spring("com.example.Order"))[0]
    assert encoded(spring(), b"")[1] == b"{}"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b'{"id":7}', (200, JSON, b'{"id":7}')),
        (b"[1]", (200, JSON, b"[1]")),
        (b'"words"', (200, JSON, b'"words"')),
        (b'"', (200, TEXT, b'"')),
        (b'"a" or "b"', (200, TEXT, b'"a" or "b"')),
        (b"42", (200, TEXT, b"42")),
        (b"\xff", (200, BYTES, b"\xff")),
        (b"", (204, None, b"")),
        (None, (204, None, b"")),
    ],
)
def test_spring_values(value: bytes | None, expected: tuple[int, bytes | None, bytes]) -> None:
    assert told(reply(spring(), {"__TypeId__": b"java.lang.String"}, value)) == expected


def test_spring_json_that_is_none_is_a_bad_answer() -> None:
    assert failed(spring(), {}, b'{"a":').kind is Kinds.BAD_ANSWER


def test_a_spring_error_header_is_a_failure_if_it_is_named() -> None:
    assert failed(spring(error_header="oops"), {"oops": b"no such thing"}, b"{}").detail == "no such thing"
    named = spring(error_header="oops", status_header="status")
    assert failed(named, {"oops": None, "status": b"410"}, None).status == 410
    assert reply(spring(), {"oops": b"x", "error": b"x", "kafka_nest-err": b"x"}, b"{}").status == 200


# --- zilla


def test_zilla_is_sent_the_request_line() -> None:
    headers, value = encoded(Zilla(), b"")
    assert headers == [
        (":authority", b"gateway"), (":method", b"POST"), (":path", b"/"), (":scheme", b"http"),
        ("zilla:correlation-id", ID), ("zilla:reply-to", b"inbox"),
    ]  # fmt: skip
    assert value == b"", "as it came: no body is no body"
    assert not Zilla.partitioned


def test_zilla_is_told_json_of_a_body_that_the_gateway_made_unless_the_route_says_more() -> None:
    assert dict(encoded(Zilla(), sent=True)[0])["content-type"] == b"application/json"
    said = [(b"content-type", b"application/vnd.item+json")]
    assert "content-type" not in dict(encoded(Zilla(), sent=True, headers=said)[0])


@pytest.mark.parametrize(
    ("headers", "value", "expected"),
    [
        ({":status": b"201"}, b'{"id":7}', (201, JSON, b'{"id":7}')),
        ({":status": b"404"}, b"no such item", (404, TEXT, b"no such item")),
        ({":status": b"500", "content-type": b"application/problem+json"}, b"{}",
         (500, b"application/problem+json", b"{}")),
        ({":status": b"204", "content-type": b"text/plain"}, b"x", (204, None, b"")),
        ({":status": b"304"}, None, (304, None, b"")),
        ({":status": b"200"}, None, (200, None, b"")),
        ({}, None, (204, None, b"")),
        ({}, b"words", (200, TEXT, b"words")),
        ({"content-type": b"application/json", "content-encoding": b"gzip"}, b"\x1f\x8b",
         (200, b"application/json", b"\x1f\x8b")),
    ],
)  # fmt: skip
def test_zilla_values(headers: ReceivedHeaders, value: bytes | None, expected: tuple[int, bytes | None, bytes]) -> None:
    assert told(reply(Zilla(), headers, value)) == expected


def test_zilla_headers_become_fields_but_for_those_that_are_not_the_services_to_say() -> None:
    got = reply(
        Zilla(),
        {
            ":status": b"200", ":path": b"/x", "zilla:correlation-id": ID, "zilla:identity": b"ada", "ETag": b" v2 ",
            "location": b"/items/7", "set-cookie": b"a=b", "Connection": b"keep-alive, X-Hop", "x-hop": b"1",
            "Transfer-Encoding": b"chunked", "content-length": b"999", "keep-alive": b"5", "upgrade": b"h2c",
            "trailer": b"x", "te": b"trailers", "proxy-connection": b"x", "traceparent": b"00-ab", "x-request-id": b"1",
            "x-deadline-ms": b"1", "x-null": None,
        },
        b"words",
    )  # fmt: skip
    assert got.headers.pairs() == [
        (b"etag", b"v2"), (b"location", b"/items/7"), (b"set-cookie", b"a=b"),
        (b"content-type", b"text/plain; charset=utf-8"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("headers", "value"),
    [
        ({":status": b"100"}, b"{}"),
        ({":status": b"20"}, b"{}"),
        ({":status": b"200 OK"}, b"{}"),
        ({":status": b""}, b"{}"),
        ({"x y": b"1"}, b"{}"),
        ({"": b"1"}, b"{}"),
        ({"x\r\nset-cookie": b"1"}, b"{}"),
        ({"žluť": b"1"}, b"{}"),
        ({"x": b"a\r\nset-cookie: b=c"}, b"{}"),
        ({"x": b"a\0"}, b"{}"),
        ({"content-type": b"application/json"}, b"{"),
        ({}, b"{"),
    ],
)
def test_zilla_poison(headers: ReceivedHeaders, value: bytes) -> None:
    assert failed(Zilla(), headers, value).kind is Kinds.BAD_ANSWER


# --- status and fields from headers of the reply: any dialect


def test_a_named_header_gives_the_status() -> None:
    dialect = plain(status_header="status")
    assert told(reply(dialect, {"status": b"201"}, b"{}")) == (201, JSON, b"{}")
    assert told(reply(dialect, {"status": b"404"}, b"{}")) == (404, JSON, b"{}")
    assert told(reply(dialect, {}, b"{}")) == (200, JSON, b"{}")
    assert told(reply(dialect, {"status": b"202"}, None)) == (202, None, b"")
    assert told(reply(dialect, {"status": b"204"}, b"{}")) == (204, None, b"")
    assert failed(dialect, {"status": b"409", "error": b"taken"}, None).status == 409
    assert failed(dialect, {"status": b"200", "error": b"odd"}, None).status == 500
    assert told(reply(nest(status_header="status"), {"status": b"201", **LAST}, b"{}")) == (201, JSON, b"{}")


@pytest.mark.parametrize(
    "status", [b"999", b"abc", b"", b"99", b"2000", b" 200", b"100", b"600", b"\xff", b"\xb2\xb2\xb2"]
)
def test_a_bad_status_is_a_bad_answer(status: bytes) -> None:
    assert failed(plain(status_header="status"), {"status": status}, b"{}").kind is Kinds.BAD_ANSWER


def test_named_headers_become_fields() -> None:
    dialect = plain(reply_headers={"Location": "at", "ETag": "version", "Content-Type": "kind"})
    got = reply(dialect, {"at": b" /orders/7 ", "kind": b"text/html", "other": b"x"}, b"{}")
    assert got.headers.pairs() == [(b"location", b"/orders/7"), (b"content-type", b"text/html")]


@pytest.mark.parametrize("value", [b"a\r\nset-cookie: b=c", b"a\nb", b"a\rb", b"a\0b", b"\x01", b"\x7f"])
def test_a_header_that_would_break_out_is_a_bad_answer(value: bytes) -> None:
    assert failed(plain(reply_headers={"location": "at"}), {"at": value}, b"{}").kind is Kinds.BAD_ANSWER


# --- whatever comes


HEADERS = st.dictionaries(
    st.sampled_from(["kafka_nest-err", "kafka_nest-is-disposed", "content-type", "error", "status", "at"]),
    st.none() | st.binary(max_size=40) | st.sampled_from([b"200", b"404", b"application/json", b"text/plain"]),
)
VALUES = st.none() | st.binary(max_size=60) | st.sampled_from([b"{}", b"[", b"42", b""])


@pytest.mark.parametrize("make", [nest, faststream, plain])
@given(headers=HEADERS, value=VALUES)
def test_any_reply_is_an_answer_or_a_failed_call(make: Any, headers: ReceivedHeaders, value: bytes | None) -> None:
    dialect = make(status_header="status", reply_headers={"location": "at"})
    try:
        answer = dialect.decode(headers, value)
    except CallFailed as error:
        assert error.outcome is Outcome.ANSWERED  # noqa: PT017
        assert 400 <= error.status <= 599  # noqa: PT017
        return
    got: Reply = answer.reply if isinstance(answer, Value) else answer.empty
    assert isinstance(got.body, bytes)
    assert 200 <= got.status <= 599
    for name, field in got.headers.pairs():
        assert not set(field) & {0, 10, 13}, name
    if (b"content-type", b"application/json") in got.headers.pairs() and make is not plain:
        msgspec.json.decode(got.body)
