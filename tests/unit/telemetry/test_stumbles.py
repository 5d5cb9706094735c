"""Unforeseen errors of chores: told once for each kind, and the chore goes on."""

import asyncio
import contextlib
import logging
from pathlib import Path

import msgspec
import pytest
from tests.testbeds.embedded import EmbeddedBroker

from castlegate.telemetry.stumbles import Stumbles
from castlegate.upstreams.kafka.client import Clients
from castlegate.upstreams.kafka.settings import Kafka
from castlegate.upstreams.kafka.watch import Look, Watch
from castlegate.wire.watching import keep_current, signature

log = logging.getLogger("castlegate.test")


def fail(error: type[Exception]) -> Exception:
    try:
        raise error("so")
    except error as raised:
        return raised


def test_each_kind_is_told_once_in_a_while(caplog: pytest.LogCaptureFixture) -> None:
    stumbles = Stumbles(log, "counting sheep")
    for error in (KeyError, KeyError, TypeError, KeyError):
        stumbles.tell(fail(error))
    assert [record.getMessage() for record in caplog.records] == ["counting sheep failed and goes on"] * 2
    assert all(record.exc_info for record in caplog.records)


class Made:
    """Something made from a file, which fails to be made anew as nobody foresees."""

    name, every = "listen.tls", 0.01

    def __init__(self, file: Path) -> None:
        self.files = [file]
        self.reloads = 0

    def reload(self) -> list[str]:
        self.reloads += 1
        if self.reloads < 3:
            raise KeyError("nobody foresaw this")
        return []


async def test_certificates_go_on_being_watched(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = Made(tmp_path / "cert.pem")
    task = asyncio.create_task(keep_current(made, signature(made.files)))
    async with asyncio.timeout(10):
        for turn in range(1, 4):
            made.files[0].write_text("x" * turn)
            while made.reloads < turn:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert sum("watching the certificates of 'listen.tls' failed" in each for each in caplog.messages) == 1


def test_kafka_goes_on_being_watched(embedded_broker: EmbeddedBroker, caplog: pytest.LogCaptureFixture) -> None:
    settings = msgspec.convert({"bootstrap": embedded_broker.bootstrap}, Kafka)
    looks: list[Look] = []

    def tell(look: Look) -> None:
        looks.append(look)
        if len(looks) < 3:
            watch.look_again()
            raise KeyError("nobody foresaw this")
        watch.do(lambda: [][0])
        watch.stop()

    clients = Clients(settings, client_id="watch", longest_timeout=1.0)
    watch = Watch(settings, clients, tell=tell, placed=lambda _: None, unplaced=lambda *_: None)
    watch.start()
    watch.join()
    assert len(looks) == 3
    assert [type(each.exc_info[1]) for each in caplog.records if each.exc_info] == [KeyError, IndexError]
    caplog.clear()  # with the tracebacks, and what their frames hold
