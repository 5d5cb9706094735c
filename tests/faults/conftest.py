"""Brokers for faults: one for the whole folder that tests kill, freeze and restart, and leave running."""

from collections.abc import Iterator
from uuid import uuid4

import pytest
from tests.testbeds.kafka import RealKafka


@pytest.fixture(scope="package")
def faulty_kafka() -> Iterator[RealKafka]:
    """A real Kafka that may be treated badly: whoever does so restarts or thaws it."""
    broker = RealKafka(lasting=True)
    yield broker
    broker.discard()


@pytest.fixture
def name() -> str:
    """Of a service and topics that nobody else uses."""
    return f"s{uuid4().hex[:8]}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--kafka") == "embedded":
        unwanted = [item for item in items if "faults" in item.path.parts]
        config.hook.pytest_deselected(items=unwanted)
        items[:] = [item for item in items if item not in unwanted]
