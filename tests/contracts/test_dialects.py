"""Every dialect keeps the contract; each class says how services of its family answer."""

from __future__ import annotations

from typing import Any, ClassVar

from tests.contracts.dialects import DialectContract, Echoed

from castlegate.upstreams.kafka.dialects.dialect import Dialect, ReceivedHeaders
from castlegate.upstreams.kafka.dialects.faststream import FastStream
from castlegate.upstreams.kafka.dialects.nest import Nest
from castlegate.upstreams.kafka.dialects.plain import Plain
from castlegate.upstreams.kafka.dialects.spring import Spring
from castlegate.upstreams.kafka.dialects.zilla import Zilla
from castlegate.upstreams.kafka.settings import HeaderNames, KafkaOperation, KafkaService


class TestNest(DialectContract):
    def make(self, **settings: Any) -> Dialect:
        return Nest(KafkaService(dialect="nest", **settings))

    def answer(self, request: ReceivedHeaders, value: bytes, *, text: bool) -> Echoed:
        return {"kafka_nest-is-disposed": b"\0"}, value


class TestSpring(DialectContract):
    def make(self, **settings: Any) -> Dialect:
        service = KafkaService(dialect="spring", error_header="error", **settings)
        return Spring(service, KafkaOperation(type_id="com.example.Order"))

    def answer(self, request: ReceivedHeaders, value: bytes, *, text: bool) -> Echoed:
        return {"__TypeId__": b"com.example.Order"}, value


class TestFastStream(DialectContract):
    def make(self, **settings: Any) -> Dialect:
        return FastStream(KafkaService(dialect="faststream", **settings))

    def answer(self, request: ReceivedHeaders, value: bytes, *, text: bool) -> Echoed:
        return {"content-type": b"text/plain" if text else b"application/json"}, value


class TestZilla(DialectContract):
    mapped: ClassVar[dict[str, Any]] = {}

    def make(self, **settings: Any) -> Dialect:
        assert not settings
        return Zilla()

    def answer(self, request: ReceivedHeaders, value: bytes, *, text: bool) -> Echoed:
        return {":status": b"200"}, value


class TestPlain(DialectContract):
    def make(self, **settings: Any) -> Dialect:
        return Plain(KafkaService(dialect="plain", **settings))

    def answer(self, request: ReceivedHeaders, value: bytes, *, text: bool) -> Echoed:
        return {}, value


class TestPlainWithNamesOfItsOwn(TestPlain):
    def make(self, **settings: Any) -> Dialect:
        names = HeaderNames(correlation="cid", reply_topic="answer-to", reply_partition=None, error=None)
        return Plain(KafkaService(dialect="plain", names=names, **settings))
