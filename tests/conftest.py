"""Real brokers and services for all tests, and the check that no test leaves anything behind.

`--kafka` says which brokers: both (the default), embedded, or real. Tests for the other one are deselected, visibly.
"""

import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Literal

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, settings
from tests.testbeds.embedded import EmbeddedBroker
from tests.testbeds.kafka import RealKafka
from tests.testbeds.leftovers import Holdings, left_in_loop_since, left_since
from tests.testbeds.services import (
    Service,
    Shop,
    start_faststream,
    start_nest,
    start_plain,
    start_shop,
    start_spring,
)

Broker = EmbeddedBroker | RealKafka
_BROKER_FIXTURES: dict[str, Literal["session", "function"]] = {"broker": "session", "own_broker": "function"}
_FIXTURES_OF = {"embedded": {"embedded_broker"}, "real": {"real_kafka", "start_real_kafka", "secured_kafka"}}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--kafka",
        choices=("both", *_FIXTURES_OF),
        default="both",
        help="which brokers the Kafka tests run against (default: both)",
    )


def pytest_configure() -> None:
    # Gateways are started hundreds of times: what they import is compiled once, whatever the machine prefers.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False
    # What lands must not hang on which examples are drawn; everywhere else every run draws others. How long one takes
    # says nothing here: a busy machine stalls any.
    timeless = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize="CI" in os.environ)
    settings.register_profile("castlegate", timeless)
    settings.load_profile("castlegate")
    # A shell that starts the run in the background has it ignored, and every program would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # So that fixtures end their programs when the run is stopped from outside; SystemExit would fail one test.
    signal.signal(signal.SIGTERM, lambda *_: pytest.exit("stopped by SIGTERM", 128 + signal.SIGTERM))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    for name, scope in _BROKER_FIXTURES.items():
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, _kinds(metafunc.config), indirect=True, scope=scope)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        item.add_marker(pytest.mark.xdist_group(_group(item)))
    unwanted = set[str]().union(*(_FIXTURES_OF[kind] for kind in _FIXTURES_OF.keys() - set(_kinds(config))))
    deselected = [item for item in items if unwanted.intersection(getattr(item, "fixturenames", ()))]
    if deselected:
        config.hook.pytest_deselected(items=deselected)
        items[:] = [item for item in items if item not in set(deselected)]


def _group(item: pytest.Item) -> str:
    """The tests that run in one process of a parallel run, one after the other: what they share is started once.

    Those of a file; over all files those on the shared broker of a kind, and those on the Kafka that may be hurt.
    """
    names = getattr(item, "fixturenames", ())
    if "faulty_kafka" in names:
        return "faulty_kafka"
    callspec = getattr(item, "callspec", None)
    for name in ("broker", "bootstrap"):
        if callspec is not None and name in callspec.params:
            return f"{name}-{callspec.params[name]}"
    return str(item.path.relative_to(item.config.rootpath))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """Ends a shared broker and its services behind the last test of their group: idle they take a tenth of a core."""
    group = _group(item)
    if nextitem is None or group == _group(nextitem) or not group.startswith("broker-"):
        return None
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return None  # in one process they may be needed again
    item.ihook.pytest_runtest_protocol(item=item, nextitem=None)
    return True


def _kinds(config: pytest.Config) -> list[str]:
    chosen: str = config.getoption("--kafka")
    return list(_FIXTURES_OF) if chosen == "both" else [chosen]


# --- brokers


@pytest.fixture(scope="session")
def embedded_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedBroker]:
    """One embedded broker for the whole run: leave it running."""
    broker = EmbeddedBroker(log=tmp_path_factory.mktemp("embedded") / "broker.log")
    yield broker
    broker.discard()


@pytest.fixture(scope="session")
def real_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealKafka]:
    """One real Kafka for the whole run: leave it running."""
    broker = RealKafka(log=tmp_path_factory.mktemp("kafka") / "broker.log")
    yield broker
    broker.discard()


@pytest.fixture(scope="session")
def broker(request: pytest.FixtureRequest) -> Broker:
    """The run's shared broker, each chosen kind in turn."""
    found: Broker = request.getfixturevalue("embedded_broker" if request.param == "embedded" else "real_kafka")
    return found


@pytest.fixture
def own_broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Broker]:
    """A broker for this test alone, each chosen kind in turn: to be killed, frozen, restarted."""
    log = tmp_path / "broker.log"
    broker: Broker = EmbeddedBroker(log=log) if request.param == "embedded" else RealKafka(log=log)
    yield broker
    broker.discard()


@pytest.fixture
def start_real_kafka(tmp_path: Path) -> Iterator[Callable[[Mapping[str, str]], RealKafka]]:
    """Starts a real Kafka for this test with lines of server.properties of its own."""
    started: list[RealKafka] = []

    def start(overrides: Mapping[str, str]) -> RealKafka:
        started.append(RealKafka(overrides, log=tmp_path / f"kafka-{len(started)}.log"))
        return started[-1]

    yield start
    for broker in started:
        broker.discard()


# --- services, shared by the tests of one broker


@pytest.fixture(scope="session")
def nest_service(broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """tests/services/nest on the shared broker."""
    service = start_nest(broker.bootstrap, tmp_path_factory.mktemp("nest"))
    yield service
    service.program.terminate()


@pytest.fixture(scope="session")
def faststream_service(broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """tests/services/faststream on the shared broker."""
    service = start_faststream(broker.bootstrap, tmp_path_factory.mktemp("faststream"))
    yield service
    service.program.terminate()


@pytest.fixture(scope="session")
def spring_service(broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """tests/services/spring on the shared broker."""
    service = start_spring(broker.bootstrap, tmp_path_factory.mktemp("spring"))
    yield service
    service.program.terminate()


@pytest.fixture(scope="session")
def plain_service(broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """tests/services/plain.py on the shared broker."""
    service = start_plain(broker.bootstrap, tmp_path_factory.mktemp("plain"))
    yield service
    service.program.terminate()


@pytest.fixture(scope="session")
def shop(broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """The three services of examples/shop on the shared broker."""
    running = start_shop(broker.bootstrap, tmp_path_factory.mktemp("shop"))
    yield running
    running.terminate()


# --- a suite that refuses


@pytest.fixture(autouse=True)
def _nothing_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails a test that leaves a task, an open descriptor or a child process behind.

    A Kafka client that lives longer than a test connects when it likes: keep them inside a test, or in a program.
    """
    if pytest_asyncio.is_async_test(request.node):
        # Looks from within the test's loop: the loop itself holds descriptors that go only after all fixtures.
        request.getfixturevalue("_nothing_left_in_loop")
        yield
        return
    before = Holdings.now()
    yield
    _refuse(left_since(before))


@pytest.fixture
async def _nothing_left_in_loop() -> AsyncIterator[None]:
    before = Holdings.now()
    yield
    _refuse(await left_in_loop_since(before))


def _refuse(left: list[str]) -> None:
    if left:
        pytest.fail("left behind by this test:\n  " + "\n  ".join(left), pytrace=False)
