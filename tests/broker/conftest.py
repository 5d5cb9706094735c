"""The brokers that client behaviour is tested against: always the embedded one, and a real Kafka unless left out.

A test that takes `bootstrap` says what any Kafka does, and runs against both; one that takes `embedded` says what
is ours alone.
"""

from collections.abc import Iterator

import pytest
from tests.testbeds.embedded import EmbeddedBroker


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "bootstrap" in metafunc.fixturenames:
        kinds = ["embedded"] if metafunc.config.getoption("--kafka") == "embedded" else ["embedded", "real"]
        metafunc.parametrize("bootstrap", kinds, indirect=True, scope="session")


@pytest.fixture(scope="session")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedBroker]:
    """One embedded broker for all tests here."""
    broker = EmbeddedBroker(log=tmp_path_factory.mktemp("embedded") / "broker.log")
    yield broker
    broker.discard()


@pytest.fixture(scope="session")
def bootstrap(request: pytest.FixtureRequest) -> str:
    """HOST:PORT of each broker in turn."""
    broker = request.getfixturevalue("embedded" if request.param == "embedded" else "real_kafka")
    address: str = broker.bootstrap
    return address
