"""Reloads in bad moments: while starting, while nobody lives, with errors that nobody foresaw, answers that come late."""

import contextlib
import json
import os
import signal
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from tests.testbeds.gateway import Gateway
from tests.testbeds.processes import Program, free_port
from tests.testbeds.wire import Client, Origin

from castlegate.document import load
from castlegate.server.control import Drain, Prepare, Prepared, Refused, Switch, Switched
from castlegate.server.process import Place, WorkerProcess
from castlegate.stores.counts import Counts, Layout

# Makes the program fail where nobody foresees it, when a file says so: Python imports it before anything else.
_UNFORESEEN = """
import castlegate.document as document
compose = document.compose
def failing(content, *rest):
    if "/fails-by-surprise" in str(content):
        raise RuntimeError("nobody foresaw this")
    return compose(content, *rest)
document.compose = failing
"""
# And its workers end with a status of their own at the start, while a file is there.
_CRASHING = """
import os, sys
if "castlegate.server.worker" in sys.orig_argv and os.path.exists({flag!r}):
    os._exit(7)
"""

# And its workers where they prepare what has been checked.
_UNPREPARED = """
import castlegate.build as build
route = build.Generation._route
def failing(self, name):
    if "fails-by-surprise" in name:
        raise RuntimeError("nobody foresaw this")
    return route(self, name)
build.Generation._route = failing
"""

# And the supervisor where workers have prepared it.
_UNSERVED = """
import castlegate.server.supervisor as supervisor
tell = supervisor._tell_warnings
def failing(report):
    if "/fails-by-surprise" in (report.folder / "gateway.yaml").read_text():
        raise RuntimeError("nobody foresaw this")
    return tell(report)
supervisor._tell_warnings = failing
"""


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin() as origin:
        yield origin


def config(origin: Origin, route: str = "/x", more: str = "") -> str:
    return f"""
{more}
services: {{origin: {{http: ["http://127.0.0.1:{origin.port}"]}}}}
defaults: {{public: true}}
routes: {{"GET {route}": {{call: origin}}}}
"""


def status(gateway: Gateway, path: str) -> int:
    with Client(gateway.port) as client:
        return client.send(b"GET %b HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n" % path.encode()).read_answer()[0]


def reload(admin: int) -> tuple[int, str]:
    """Status and reason."""
    url = f"http://127.0.0.1:{admin}/reload"
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="POST"), timeout=20) as done:
            return done.status, done.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())["reason"]


def faulty(folder: Path, code: str) -> dict[str, str]:
    """The environment of a program that runs this first."""
    (folder / "faulty").mkdir()
    (folder / "faulty" / "sitecustomize.py").write_text(code)
    return {"PYTHONPATH": str(folder / "faulty")}


def test_an_unforeseen_error_is_told_and_the_next_reload_is_heard(tmp_path: Path, origin: Origin) -> None:
    gateway = Gateway(tmp_path, config(origin), env=faulty(tmp_path, _UNFORESEEN))
    gateway.rewrite(config(origin, "/fails-by-surprise"))
    assert reload(gateway.admin) == (422, "an error of the gateway's own, which its log tells")
    gateway.program.wait_for_line("nobody foresaw this")
    seen = gateway.program.line_count
    gateway.program.send_signal(signal.SIGHUP)
    gateway.program.wait_for_line("nobody foresaw this", after=seen)
    assert status(gateway, "/x") == 200
    assert gateway.metrics()['castlegate_config_reloads_total{result="error"}'] == 2
    gateway.rewrite(config(origin, "/y"))
    assert reload(gateway.admin)[0] == 200
    assert status(gateway, "/y") == 200
    assert gateway.stop() == 0


def test_an_unforeseen_error_in_preparing_ends_no_worker(tmp_path: Path, origin: Origin) -> None:
    gateway = Gateway(tmp_path, config(origin), env=faulty(tmp_path, _UNPREPARED))
    gateway.rewrite(config(origin, "/fails-by-surprise"))
    refused, reason = reload(gateway.admin)
    assert refused == 422
    assert "its log has it" in reason
    gateway.program.wait_for_line("nobody foresaw this")
    assert status(gateway, "/x") == 200
    assert gateway.metrics()["castlegate_worker_restarts_total"] == 0
    assert gateway.stop() == 0


def test_a_reload_that_workers_refuse_changes_nothing_about_who_is_called(tmp_path: Path) -> None:
    """Its checks are other ones, so by them nobody is well yet."""

    def ill(connection: socket.socket, _request: bytes) -> bool:
        connection.sendall(b"HTTP/1.1 500 X\r\ncontent-length: 0\r\n\r\n")
        return True

    def config(interval: str, route: str) -> str:
        return f"""
services:
  origin:
    http: {{instances: ["http://127.0.0.1:{first.port}", "http://127.0.0.1:{second.port}"], balance: round_robin}}
    health: {{path: /healthz, interval: {interval}}}
defaults: {{public: true}}
routes: {{"GET {route}": {{call: origin}}}}
"""

    with (
        Origin() as first,
        Origin(ill) as second,
        Gateway(tmp_path, config("1h", "/x"), env=faulty(tmp_path, _UNPREPARED)) as gateway,
    ):
        gateway.program.wait_until(
            lambda: [each["state"] for each in gateway.instances("origin").values()] == ["in", "out"],
            "the checks of both",
        )
        gateway.rewrite(config("2h", "/fails-by-surprise"))
        assert reload(gateway.admin)[0] == 422
        assert [status(gateway, "/x") for _ in range(6)] == [200] * 6
        assert gateway.metrics()['castlegate_upstream_panic{service="origin"}'] == 0
        assert [each["state"] for each in gateway.instances("origin").values()] == ["in", "out"]


def test_after_an_unforeseen_error_nothing_looks_for_what_is_not_served(tmp_path: Path, origin: Origin) -> None:
    def config(service: str, every: str, route: str) -> str:
        return f"""
services: {{{service}: {{http: {{file: {{path: instances.json, every: {every}}}}}}}}}
defaults: {{public: true}}
routes: {{"GET {route}": {{call: {service}}}}}
"""

    (tmp_path / "instances.json").write_text(json.dumps([f"http://127.0.0.1:{origin.port}"]))
    with Gateway(tmp_path, config("before", "50ms", "/x"), env=faulty(tmp_path, _UNSERVED)) as gateway:

        def looks(service: str) -> float:
            return gateway.metrics()[f'castlegate_discovery_total{{service="{service}",result="found"}}']

        gateway.rewrite(config("after", "10ms", "/fails-by-surprise"))
        assert reload(gateway.admin) == (422, "an error of the gateway's own, which its log tells")
        seen, wanted = looks("after"), looks("before") + 4
        gateway.program.wait_until(lambda: looks("before") >= wanted, "more looks for what is served")
        assert looks("after") == seen


def test_a_reload_while_it_starts_is_refused_and_harms_nothing(tmp_path: Path, origin: Origin) -> None:
    admin = free_port()
    path = tmp_path / "gateway.yaml"
    # A broker that takes connections and says nothing: the worker waits a moment for it.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        more = f'listen: 127.0.0.1:0\nadmin: 127.0.0.1:{admin}\nkafka: "127.0.0.1:{silent.getsockname()[1]}"\n'
        path.write_text(config(origin, more=more + f"access_log: {tmp_path / 'log'}"))
        answers: list[tuple[int, str]] = []

        def asked() -> bool:
            with contextlib.suppress(OSError):
                answers.append(reload(admin))
            return bool(answers)

        with Program(Gateway.command(path), name="castlegate") as program:
            program.wait_until(asked, "the admin port")
            assert answers == [(422, "the gateway is still starting")]
            program.wait_for_line("listens on")
            assert reload(admin)[0] == 200
            assert program.terminate() == 0


@pytest.fixture
def crashing(tmp_path: Path, origin: Origin) -> Iterator[tuple[Gateway, Path]]:
    """One whose workers end as soon as they start, while the file is there; all of them are waited for to be gone."""
    flag = tmp_path / "crash"
    gateway = Gateway(
        tmp_path, config(origin, more="workers: 2"), env=faulty(tmp_path, _CRASHING.format(flag=str(flag)))
    )
    flag.touch()
    for worker in gateway.workers():
        os.kill(worker["pid"], signal.SIGKILL)
    # In backoff: two seconds and more from the fourth failure on.
    gateway.program.wait_until(lambda: gateway.metrics()["castlegate_worker_restarts_total"] >= 8, "crashes")
    gateway.program.wait_until(lambda: all(each["pid"] is None for each in gateway.workers()), "nobody to live")
    yield gateway, flag
    flag.unlink(missing_ok=True)
    assert gateway.stop() == 0


def test_a_reload_while_nobody_lives_is_proven_by_the_next_worker(
    crashing: tuple[Gateway, Path], origin: Origin
) -> None:
    gateway, flag = crashing
    flag.unlink()
    gateway.rewrite(config(origin, "/y", "workers: 2"))
    assert reload(gateway.admin)[0] == 200
    serving = [each["version"] for each in gateway.workers() if each["pid"] is not None]
    assert 2 in serving
    gateway.program.wait_until(lambda: [each["version"] for each in gateway.workers()] == [2, 2], "both workers")
    assert {status(gateway, "/y") for _ in range(10)} == {200}


def test_a_reload_that_no_worker_can_prove_is_refused_and_what_was_served_stays(
    crashing: tuple[Gateway, Path], origin: Origin
) -> None:
    gateway, flag = crashing
    gateway.rewrite(config(origin, "/y", "workers: 2"))
    refused, reason = reload(gateway.admin)
    assert (refused, "a worker ended with status 7" in reason or "being ended" in reason) == (422, True), reason
    gateway.path.write_text("nonsense: 1\n")
    refused, reason = reload(gateway.admin)
    assert (refused, "unknown key 'nonsense'" in reason) == (422, True)
    assert gateway.metrics()["castlegate_config_version"] == 1
    flag.unlink()
    gateway.program.wait_until(lambda: [each["version"] for each in gateway.workers()] == [1, 1], "both workers")
    assert {status(gateway, "/x") for _ in range(10)} == {200}


async def test_a_late_answer_is_not_taken_for_that_to_the_next_order(tmp_path: Path) -> None:
    path = tmp_path / "gateway.yaml"
    text = 'listen: 127.0.0.1:0\naccess_log: {log}\nservices: {{o: {{http: ["http://127.0.0.1:1"]}}}}\ndefaults: {{public: true}}\nroutes: {{GET /x: {{call: o}}}}\n'
    documents = []
    for log in ("off", str(tmp_path / "missing" / "log")):
        path.write_text(text.format(log=log))
        documents.append(msgspec.msgpack.encode(load(path).document))
    good, bad = documents
    counts = Counts.create(Layout(10, 1), b"secret")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        worker = await WorkerProcess.start(Place(path, 0, 1, "test", listening, counts, 10), lambda _: None)
        os.close(counts)
        assert isinstance(await worker.ask(Prepare(1, good, {}), 20), Prepared)
        assert isinstance(await worker.ask(Switch(1), 10), Switched)
        os.kill(worker.process.pid, signal.SIGSTOP)
        with pytest.raises(TimeoutError):
            await worker.ask(Prepare(2, bad, {}), 0.05)
        os.kill(worker.process.pid, signal.SIGCONT)
        answer = await worker.ask(Prepare(3, good, {}), 20)
        assert (type(answer), answer.version) == (Prepared, 3), "not the refusal of the second"
        refusal = await worker.ask(Prepare(4, bad, {}), 20)
        assert isinstance(refusal, Refused)
        worker.tell(Drain(stop=True))
        assert await worker.ended == 0


def test_a_worker_that_is_being_replaced_when_it_is_told_to_stop_ends_too(tmp_path: Path, origin: Origin) -> None:
    gateway = Gateway(tmp_path, config(origin, more="workers: 2\ndrain: {notice: 1s, limit: 5s}"))
    before = [each["pid"] for each in gateway.workers()]
    os.kill(before[0], signal.SIGKILL)
    gateway.program.wait_until(lambda: gateway.workers()[0]["pid"] not in (None, before[0]), "another to start")
    started = gateway.workers()[0]["pid"]
    gateway.program.send_signal(signal.SIGTERM)
    assert gateway.program.wait(10) == 0
    assert not Path(f"/proc/{started}").exists()
    assert not [line for line in gateway.program.lines if "did not end in time" in line]


def test_an_embedded_broker_that_hangs_holds_up_no_stop(tmp_path: Path) -> None:
    text = "listen: 127.0.0.1:0\nadmin: 127.0.0.1:0\naccess_log: off\nkafka: embedded\nservices: {s: {kafka: plain}}\ndefaults: {public: true}\nroutes: {POST /s: {call: s.do}}\n"
    path = tmp_path / "gateway.yaml"
    path.write_text(text)
    with Program([sys.executable, "-m", "castlegate.cli.main", "run", path], name="castlegate") as program:
        program.wait_for_line("listens on")
        children = Path(f"/proc/{program.pid}/task/{program.pid}/children").read_text().split()
        (broker,) = [each for each in children if b"castlegate_broker" in Path(f"/proc/{each}/cmdline").read_bytes()]
        os.kill(int(broker), signal.SIGSTOP)
        program.send_signal(signal.SIGTERM)
        assert program.wait(25) == 0
        assert not Path(f"/proc/{broker}").exists()
