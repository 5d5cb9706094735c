"""What the gateway may not do on the broker: refused with the truth, without a storm of tries, and well again when it may."""

import asyncio
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)
from tests.faults.rig import Rig, gateway_for
from tests.testbeds.kafka import RealKafka
from tests.testbeds.processes import free_port
from tests.testbeds.topics import create_topics

PASSWORD = "let-me-in"


@pytest.fixture
def sasl_port() -> int:
    return free_port()


@pytest.fixture
def guarded_kafka(tmp_path: Path, sasl_port: int) -> Iterator[RealKafka]:
    """Whoever comes without a name may do everything; the user `gate` what the tests allow."""
    jaas = f'org.apache.kafka.common.security.plain.PlainLoginModule required user_gate="{PASSWORD}";'
    broker = RealKafka(
        {
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS",
            "sasl.enabled.mechanisms": "PLAIN",
            "listener.name.sasl.plain.sasl.jaas.config": jaas,
        },
        relayed={"SASL": (sasl_port, sasl_port)},
        log=tmp_path / "kafka.log",
    )
    yield broker
    broker.discard()


class Rules:
    """What `gate` may do."""

    def __init__(self, bootstrap: str) -> None:
        self._admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})

    def allow(self, topic: str, *operations: AclOperation) -> None:
        rules = [self._rule(topic, operation) for operation in operations]
        for done in self._admin.create_acls(rules).values():
            done.result()

    def forbid(self, topic: str) -> None:
        """Everything that was allowed on it."""
        every = AclBindingFilter(
            ResourceType.TOPIC, topic, ResourcePatternType.LITERAL, None, None, AclOperation.ANY, AclPermissionType.ANY
        )
        for done in self._admin.delete_acls([every]).values():
            done.result()

    def _rule(self, topic: str, operation: AclOperation) -> AclBinding:
        literal, allow = ResourcePatternType.LITERAL, AclPermissionType.ALLOW
        return AclBinding(ResourceType.TOPIC, topic, literal, "User:gate", "*", operation, allow)


async def refused(rig: Rig, path: str = "/plain", within: float = 10.0) -> None:
    """Wait until requests are refused for want of a permission, before they are sent."""
    end = time.monotonic() + within
    while True:
        seen = await rig.ask(path)
        if (seen.status, seen.outcome) == (503, "not_sent"):
            break
        assert time.monotonic() < end, seen
        await asyncio.sleep(0.05)
    assert "retry-after" in seen.fields
    assert rig.name not in seen.body.decode()
    assert (await rig.ask("/http")).status == 200


def processor_seconds(rig: Rig) -> float:
    """Used by the gateway's worker so far."""
    pid = rig.gateway.program.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    ticks = sum(
        sum(map(int, Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()[11:13])) for each in children
    )
    return ticks / os.sysconf("SC_CLK_TCK")


async def quiet(rig: Rig) -> None:
    """What cannot be had is tried again, but not without a pause."""
    lines, used, began = rig.gateway.program.line_count, processor_seconds(rig), time.monotonic()
    await asyncio.sleep(3)  # what is measured
    assert (processor_seconds(rig) - used) / (time.monotonic() - began) < 0.2
    assert rig.gateway.program.line_count - lines < 10


async def test_without_permissions_requests_are_refused_until_they_are_given(
    guarded_kafka: RealKafka, sasl_port: int, tmp_path: Path, name: str
) -> None:
    script, events, inbox = f"{name}.script", f"{name}.events", f"{name}.replies"
    own = guarded_kafka.bootstrap
    await asyncio.to_thread(create_topics, own, {script: 4, events: 4, inbox: 2})
    rules = Rules(own)
    sasl = {
        "security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "PLAIN",
        "sasl.username": "gate", "sasl.password": PASSWORD,
    }  # fmt: skip
    kafka = {"librdkafka": sasl}
    read, write, describe = AclOperation.READ, AclOperation.WRITE, AclOperation.DESCRIBE
    rules.allow(script, write)
    rules.allow(events, write)
    rules.allow(inbox, read)
    bootstrap = f"127.0.0.1:{sasl_port}"
    async with (
        gateway_for(bootstrap, tmp_path, name, kafka=kafka, service_bootstrap=own, answer_within="4s") as rig,
        rig.unharmed(spare=8),
    ):
        # Not even to be seen.
        rules.forbid(script)
        await refused(rig)
        await quiet(rig)
        rules.allow(script, write)
        await rig.answered(within=15)
        # Seen, and not to be written to: the first ones are refused by the broker.
        rules.forbid(script)
        rules.allow(script, describe)
        executed = rig.executed()
        seen = await rig.ask()
        assert (seen.status, seen.took < 3) == (503, True), seen
        assert rig.executed() == executed
        await quiet(rig)
        rules.allow(script, write)
        await rig.answered(within=15)
        # The inbox is to be seen, and not to be read.
        rules.forbid(inbox)
        rules.allow(inbox, describe)
        await refused(rig)
        await quiet(rig)
        assert inbox in rig.gateway.readiness()[1]["reason"]
        rules.allow(inbox, read)
        await rig.answered(within=20)
        # Events.
        rules.forbid(events)
        await refused(rig, "/events")
        rules.allow(events, write)
        await rig.answered("/events", within=15)
