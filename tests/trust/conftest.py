"""The gateway between a raw client and scripted origins, as in tests/wire; and one for all tests of a module."""

from collections.abc import Iterator

import pytest
from tests.testbeds.gateway import Gateway
from tests.testbeds.wire import Origin, answer
from tests.wire.conftest import Start, origin, start

__all__ = ["origin", "start"]

CLOSING = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok"


@pytest.fixture(scope="module")
def shared_origin() -> Iterator[Origin]:
    with Origin() as origin:
        yield origin


@pytest.fixture(scope="module")
def start_shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Starts gateways that live as long as the module's tests."""
    running: list[Gateway] = []

    def start(config: str) -> Gateway:
        running.append(Gateway(tmp_path_factory.mktemp("gateway"), config))
        return running[-1]

    yield start
    for gateway in running:
        gateway.stop()


@pytest.fixture
def behind(shared_origin: Origin) -> Origin:
    """The module's origin as if it were new; it closes each connection, so that none outlives its test."""
    shared_origin.seen.clear()
    shared_origin.script = answer(CLOSING)
    return shared_origin
