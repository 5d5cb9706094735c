"""What a configuration may not say of Kafka."""

from typing import Any

import msgspec
import pytest

from castlegate.config.report import Report
from castlegate.upstreams.kafka.settings import Kafka, KafkaService


def mistakes(settings: Kafka | KafkaService) -> list[str]:
    report = Report()
    settings.check(report.place())
    if isinstance(settings, KafkaService):
        settings.names.check(report.place("names"))
    return [str(mistake) for mistake in report.mistakes]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"reply_headers": {"Location": "at", "content-type": "kind"}}, []),
        ({"reply_headers": {"Transfer-Encoding": "x"}},
         ["reply_headers.Transfer-Encoding: this field is the gateway's own to write"]),
        ({"reply_headers": {"content-length": "x"}},
         ["reply_headers.content-length: this field is the gateway's own to write"]),
        ({"reply_headers": {"a\r\nb": "x"}}, ["reply_headers['a\r\nb']: not a name of a header field"]),
        ({"names": {"correlation": "x-request-id"}},
         ["names.correlation: the gateway writes a header of this name itself"]),
        ({"names": {"correlation": "a", "reply_topic": "a"}}, ["names.reply_topic: 'correlation' has this name too"]),
        ({"names": {"correlation": ""}}, ["names.correlation: expected the name of a record header, found ''"]),
        ({"names": {"error": None, "reply_partition": None}}, []),
    ],
)  # fmt: skip
def test_services(settings: dict[str, Any], expected: list[str]) -> None:
    assert mistakes(msgspec.convert({"dialect": "plain", **settings}, KafkaService)) == expected


def test_settings_that_are_the_gateways() -> None:
    kafka = Kafka(bootstrap="a:1", librdkafka={"acks": "0", "sasl.password": "s3cret", "group.id": "g"})
    assert mistakes(kafka) == [
        "librdkafka.acks: the gateway's producers are idempotent and wait for all in-sync replicas",
        "librdkafka['group.id']: the inbox reads one partition without a consumer group",
    ]
