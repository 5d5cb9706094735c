"""What a reload makes of functions whose code has changed, or has not."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.testbeds.gateway import Gateway
from tests.testbeds.wire import Client

CONFIG = """
workers: 2
defaults: {{public: true}}
routes:
  GET /count: {{call: "python:counting.page:count"}}
  GET /{version}: {{call: "python:counting.page:version"}}
"""
PAGE = """
from counting.numbers import NUMBER, seen

async def count() -> int:
    seen.append(1)
    return len(seen)

async def version() -> int:
    return NUMBER
"""


def write(folder: Path, number: str) -> None:
    package = folder / "counting"
    package.mkdir(exist_ok=True)
    (package / "__init__.py").touch()
    (package / "page.py").write_text(PAGE)
    (package / "numbers.py").write_text(f"NUMBER = {number}\nseen: list[int] = []\n")


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    write(tmp_path, "1")
    with Gateway(tmp_path, CONFIG.format(version="v1")) as gateway:
        yield gateway


def ask(client: Client, path: str) -> tuple[int, bytes]:
    status, _, body = client.send(b"GET %b HTTP/1.1\r\nHost: h\r\n\r\n" % path.encode()).read_answer()
    return status, body


def reloaded(gateway: Gateway, route: str, number: int) -> None:
    gateway.rewrite(CONFIG.format(version=route))
    gateway.program.send_signal(signal.SIGHUP)
    gateway.program.wait_until(
        lambda: [worker["version"] for worker in gateway.workers()] == [number, number], "both workers to switch"
    )


def test_a_reload_takes_code_that_has_changed_and_keeps_what_has_not(gateway: Gateway, tmp_path: Path) -> None:
    with Client(gateway.port) as client:
        assert ask(client, "/v1") == (200, b"1")
        assert ask(client, "/count") == (200, b"1")
        reloaded(gateway, "v2", 2)
        assert ask(client, "/v2") == (200, b"1")
        assert ask(client, "/count") == (200, b"2"), "the module was not imported anew"
        write(tmp_path, "3")  # of the very size, in a module that another one imports
        assert ask(client, "/v2") == (200, b"1"), "nothing changes without a reload"
        reloaded(gateway, "v3", 3)
        assert ask(client, "/v3") == (200, b"3")
        assert ask(client, "/count") == (200, b"1"), "all of them were imported anew"


def test_code_that_cannot_be_used_changes_nothing(gateway: Gateway, tmp_path: Path) -> None:
    write(tmp_path, "unknown_name")
    gateway.program.send_signal(signal.SIGHUP)
    gateway.program.wait_for_line(
        r"'call' of route 'GET /count': the module 'counting.page' cannot be imported: NameError"
    )
    with Client(gateway.port) as client:
        assert ask(client, "/v1") == (200, b"1")
