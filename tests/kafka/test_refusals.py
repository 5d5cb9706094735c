"""What a broker refuses: rights that are missing, records that are too large, queues that are full (CASES K9)."""

import asyncio
from collections.abc import Callable, Iterator

import pytest
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # exported, not declared
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)  # fmt: skip
from confluent_kafka.cimpl import NewTopic
from tests.conftest import Broker
from tests.kafka.calls import Rig, failure, running
from tests.kafka.echo import Echo
from tests.testbeds.kafka import RealKafka
from tests.testbeds.topics import create_topics

from castlegate.errors import Kinds, Outcome

GUARDED = {
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "allow.everyone.if.no.acl.found": "true",
}


def allow(kafka: RealKafka, who: str, kind: ResourceType, name: str, *operations: AclOperation) -> None:
    """A rule that lets somebody in, and so on that resource nobody else."""
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap, "log_level": 0})
    rules = [
        AclBinding(kind, name, ResourcePatternType.LITERAL, f"User:{who}", "*", operation, AclPermissionType.ALLOW)
        for operation in operations
    ]
    for done in admin.create_acls(rules).values():
        done.result()


@pytest.fixture
def guarded(start_real_kafka: Callable[..., RealKafka]) -> Iterator[RealKafka]:
    kafka = start_real_kafka(GUARDED)
    create_topics(kafka.bootstrap, {"s.do": 1, "s.hidden": 1, "s.readonly": 1})
    return kafka  # type: ignore[return-value]  # discarded by the fixture it comes from


async def test_topics_that_may_not_be_used_are_refused_and_the_others_are_not(guarded: RealKafka) -> None:
    allow(guarded, "another", ResourceType.TOPIC, "s.hidden", AclOperation.ALL)
    allow(guarded, "another", ResourceType.TOPIC, "s.readonly", AclOperation.WRITE)
    allow(guarded, "*", ResourceType.TOPIC, "s.readonly", AclOperation.DESCRIBE)
    echo = Echo(guarded.bootstrap, "s.do")
    try:
        async with running(guarded.bootstrap, lambda rig: rig.caller("s", "do", dialect="plain")) as rig:
            hidden, readonly, ask = (rig.caller("s", name, dialect="plain") for name in ("hidden", "readonly", "do"))
            refused = await failure(hidden())
            assert (refused.kind, refused.outcome) == (Kinds.NOT_PERMITTED, Outcome.NOT_SENT)
            assert (await failure(readonly())).kind is Kinds.NOT_PERMITTED
            refused = await failure(readonly())
            assert (refused.kind, refused.outcome) == (Kinds.NOT_PERMITTED, Outcome.NOT_SENT), "known by now"
            assert (await ask(b"[1]")).body == b"[1]"
            publisher = rig.engine.publisher("s.readonly")
            await rig.until(lambda: rig.engine.gates.settled)
            event = await failure(publisher.publish(None, b"1", [], rig.timer.now() + 5))
            assert event.kind is Kinds.NOT_PERMITTED
            assert (await ask(b"[2]")).body == b"[2]"
    finally:
        echo.stop()


async def test_an_inbox_that_may_not_be_created_is_an_error_that_says_what_to_do(guarded: RealKafka) -> None:
    operations = (AclOperation.CLUSTER_ACTION, AclOperation.ALTER, AclOperation.DESCRIBE, AclOperation.IDEMPOTENT_WRITE)
    allow(guarded, "*", ResourceType.BROKER, "kafka-cluster", *operations)
    allow(guarded, "another", ResourceType.TOPIC, "castlegate.replies", AclOperation.CREATE)
    allow(guarded, "*", ResourceType.TOPIC, "castlegate.replies", AclOperation.DESCRIBE)
    async with running(guarded.bootstrap, lambda rig: rig.caller("s", "do", dialect="plain")) as rig:
        await rig.until(lambda: "kafka-topics.sh" in rig.engine.state.reason)
        assert not rig.engine.state.ready
        assert "could not be created" in rig.engine.state.reason
        refused = await failure(rig.caller("s", "do", dialect="plain")())
        assert (refused.kind, refused.outcome) == (Kinds.TOPIC_MISSING, Outcome.NOT_SENT)


async def test_a_record_over_the_topics_own_limit_is_too_large_and_was_not_sent(real_kafka: RealKafka) -> None:
    admin = AdminClient({"bootstrap.servers": real_kafka.bootstrap, "log_level": 0})
    admin.create_topics([NewTopic("small.do", 1, 1, config={"max.message.bytes": "2000"})])["small.do"].result()
    create_topics(real_kafka.bootstrap, {"small.do": 1})
    echo = Echo(real_kafka.bootstrap, "small.do")
    try:
        async with running(real_kafka.bootstrap, lambda rig: rig.caller("small", "do", dialect="plain")) as rig:
            ask = rig.caller("small", "do", dialect="plain")
            failed = await failure(ask(b"x" * 5000))
            assert (failed.kind, failed.outcome, failed.status) == (Kinds.RECORD_TOO_LARGE, Outcome.NOT_SENT, 413)
            assert rig.count("castlegate_kafka_produce_failures_total", error="msg_size_too_large") == 1
            assert (await ask(b"x" * 500)).status == 200
            event = rig.engine.publisher("small.do")
            await rig.until(lambda: rig.engine.gates.settled)
            failed = await failure(event.publish(None, b"x" * 5000, [], rig.timer.now() + 5))
            assert (failed.kind, failed.outcome) == (Kinds.RECORD_TOO_LARGE, Outcome.NOT_SENT)
            assert len(echo.seen) == 1
    finally:
        echo.stop()


async def test_a_full_queue_refuses_and_drains(own_broker: Broker) -> None:
    create_topics(own_broker.bootstrap, {"s.do": 1})
    echo = Echo(own_broker.bootstrap, "s.do")
    try:
        async with running(own_broker.bootstrap, _bind, max_queued=10, linger_above=1000) as rig:
            ask = rig.caller("s", "do", dialect="plain")
            assert (await ask()).status == 200
            own_broker.freeze()
            try:
                waiting = [asyncio.ensure_future(ask(b"[%d]" % number)) for number in range(30)]
                await rig.until(lambda: sum(each.done() for each in waiting) >= 20)
            finally:
                own_broker.thaw()
            got = await asyncio.gather(*waiting, return_exceptions=True)
            refused = [each for each in got if isinstance(each, BaseException)]
            assert len(refused) == 20
            for each in refused:
                assert (getattr(each, "kind", None), getattr(each, "outcome", None)) == (
                    Kinds.QUEUE_FULL, Outcome.NOT_SENT,
                )  # fmt: skip
            assert (await ask(b"[1]")).status == 200
    finally:
        echo.stop()


def _bind(rig: Rig) -> None:
    rig.caller("s", "do", dialect="plain")
