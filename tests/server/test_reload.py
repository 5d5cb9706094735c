"""A reload: prepared by all, switched to by all, or not at all; what has begun ends as it began."""

import os
import signal
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.testbeds.gateway import Gateway
from tests.testbeds.wire import OK, Client, Origin, answer


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin() as origin:
        yield origin


@pytest.fixture
def gateway(tmp_path: Path, origin: Origin) -> Iterator[Gateway]:
    gateway = Gateway(tmp_path, config(origin))
    yield gateway
    gateway.stop()


def config(origin: Origin, route: str = "/x", more: str = "") -> str:
    return f"""
workers: 2
{more}
services: {{origin: {{http: ["http://127.0.0.1:{origin.port}"]}}}}
defaults: {{public: true}}
routes: {{"GET {route}": {{call: origin}}}}
"""


def status(gateway: Gateway, path: str) -> int:
    with Client(gateway.port) as client:
        return client.send(b"GET %b HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n" % path.encode()).read_answer()[0]


def reload(gateway: Gateway, text: str) -> None:
    gateway.rewrite(text)
    gateway.program.send_signal(signal.SIGHUP)


def version(gateway: Gateway) -> list[int]:
    return [worker["version"] for worker in gateway.workers()]


def test_sighup_switches_all_workers_to_the_new_routes(gateway: Gateway, origin: Origin) -> None:
    reload(gateway, config(origin, "/y"))
    gateway.program.wait_until(lambda: version(gateway) == [2, 2], "both workers to switch")
    assert {status(gateway, "/y") for _ in range(10)} == {200}
    assert {status(gateway, "/x") for _ in range(10)} == {404}
    assert gateway.metrics()['castlegate_config_reloads_total{result="ok"}'] == 1


def test_an_open_connection_stays_and_sees_the_new_routes(gateway: Gateway, origin: Origin) -> None:
    with Client(gateway.port) as client:
        assert client.send(b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n").read_answer()[0] == 200
        reload(gateway, config(origin, "/y"))
        gateway.program.wait_until(lambda: version(gateway) == [2, 2], "both workers to switch")
        assert client.send(b"GET /y HTTP/1.1\r\nHost: h\r\n\r\n").read_answer()[0] == 200
    assert origin.connections <= 2, "the pool was carried over"


def test_a_request_in_flight_ends_as_it_began(gateway: Gateway, origin: Origin) -> None:
    go_on = threading.Event()

    def late(connection: socket.socket, _request: bytes) -> bool:
        go_on.wait(10)
        connection.sendall(OK)
        return True

    origin.script = late
    with Client(gateway.port) as client:
        client.send(b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n")
        gateway.program.wait_until(lambda: bool(origin.seen), "the request to arrive")
        with Origin() as other:
            reload(gateway, config(other, "/y"))
            gateway.program.wait_until(lambda: version(gateway) == [2, 2], "both workers to switch")
            go_on.set()
            assert client.read_answer()[0] == 200
            assert status(gateway, "/y") == 200
            assert len(other.seen) == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("routes: {", "gateway.yaml:"),
        ("services: {o: {htp: []}}\nroutes: {}\n", "did you mean 'http'?"),
        ("listen: 127.0.0.1:1\n", "'listen.address' cannot be changed by a reload"),
    ],
)
def test_p3_a_bad_file_changes_nothing_and_says_where(gateway: Gateway, origin: Origin, text: str, words: str) -> None:
    if "listen" in text:
        gateway.path.write_text(text + "admin: 127.0.0.1:0\n" + config(origin))
    else:
        gateway.path.write_text(text)
    gateway.program.send_signal(signal.SIGHUP)
    gateway.program.wait_for_line(words.replace("?", r"\?"))
    assert gateway.metrics()['castlegate_config_reloads_total{result="error"}'] == 1
    assert version(gateway) == [1, 1]
    assert status(gateway, "/x") == 200


def test_p3_a_missing_file_changes_nothing(gateway: Gateway) -> None:
    gateway.path.unlink()
    gateway.program.send_signal(signal.SIGHUP)
    gateway.program.wait_for_line("cannot be read")
    assert status(gateway, "/x") == 200


def test_a_file_that_is_watched_is_loaded_when_it_changes(tmp_path: Path, origin: Origin) -> None:
    gateway = Gateway(tmp_path, config(origin, more="watch: true"))
    gateway.rewrite(config(origin, "/y", more="watch: true"))
    gateway.program.wait_until(lambda: version(gateway) == [2, 2], "the new file to be served")
    assert status(gateway, "/y") == 200
    gateway.stop()


def test_reload_over_the_admin_port_says_how_it_went(gateway: Gateway, origin: Origin) -> None:
    url = f"http://127.0.0.1:{gateway.admin}/reload"
    with urllib.request.urlopen(urllib.request.Request(url, method="POST"), timeout=10) as done:
        assert b"reloaded" in done.read()
    gateway.path.write_text("nonsense: 1\n")
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(urllib.request.Request(url, method="POST"), timeout=10)
    with refused.value as error:
        assert error.code == 422
        assert b"unknown key 'nonsense'" in error.read()


def test_a_worker_that_is_replaced_serves_what_was_reloaded(gateway: Gateway, origin: Origin) -> None:
    reload(gateway, config(origin, "/y"))
    gateway.program.wait_until(lambda: version(gateway) == [2, 2], "both workers to switch")
    gateway.path.write_text("broken: [")
    for worker in gateway.workers():
        os.kill(worker["pid"], signal.SIGKILL)
    gateway.program.wait_until(lambda: version(gateway) == [2, 2], "both to be replaced")
    assert status(gateway, "/y") == 200


def test_the_log_is_opened_anew_so_that_it_can_be_rotated(gateway: Gateway, origin: Origin) -> None:
    assert status(gateway, "/x") == 200
    gateway.wait_logged(1)
    gateway.access_log.rename(gateway.access_log.with_suffix(".1"))
    reload(gateway, config(origin))
    gateway.program.wait_until(lambda: version(gateway) == [2, 2], "both workers to switch")
    assert status(gateway, "/x") == 200
    assert len(gateway.wait_logged(1)) == 1


def test_thirty_reloads_under_load_fail_no_request(gateway: Gateway, origin: Origin) -> None:
    origin.script = answer(OK)
    stop, statuses = threading.Event(), []

    def load() -> None:
        while not stop.is_set():
            with Client(gateway.port) as client:
                request = b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n"
                statuses.extend(client.send(request).read_answer()[0] for _ in range(20))

    threads = [threading.Thread(target=load) for _ in range(3)]
    for thread in threads:
        thread.start()
    for turn in range(30):
        reload(gateway, config(origin, more=f"drain: {turn + 1}s"))
        gateway.program.wait_until(lambda: version(gateway) == [turn + 2] * 2, "both workers to switch")  # noqa: B023
    stop.set()
    for thread in threads:
        thread.join(10)
    assert set(statuses) == {200}
    assert len(statuses) > 100


def test_two_reloads_close_together_cut_nothing_of_the_first(gateway: Gateway, origin: Origin) -> None:
    """A request of the first generation is still in flight when the third comes; those of the second must not pay."""
    go_on = threading.Event()

    def late(connection: socket.socket, _request: bytes) -> bool:
        go_on.wait(10)
        connection.sendall(OK)
        return True

    origin.script = late
    with Client(gateway.port) as first, Client(gateway.port) as second:
        first.send(b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n")
        gateway.program.wait_until(lambda: len(origin.seen) == 1, "the first request")
        reload(gateway, config(origin, more="drain: 9s"))
        gateway.program.wait_until(lambda: version(gateway) == [2, 2], "the second generation")
        second.send(b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n")
        gateway.program.wait_until(lambda: len(origin.seen) == 2, "the second request")
        other = config(origin).replace(
            f'["http://127.0.0.1:{origin.port}"]',
            f'{{instances: ["http://127.0.0.1:{origin.port}"], pool: {{connections: 9}}}}',
        )
        reload(gateway, other)
        gateway.program.wait_until(lambda: version(gateway) == [3, 3], "the third generation")
        go_on.set()
        assert first.read_answer()[0] == 200
        assert second.read_answer()[0] == 200


def test_a_limit_of_connections_is_raised_by_a_reload(tmp_path: Path, origin: Origin) -> None:
    def limited(most: int) -> str:
        return config(origin).replace(
            "workers: 2", f'listen: {{address: "127.0.0.1:0", limits: {{connections: {most}}}}}'
        )

    gateway = Gateway(tmp_path, limited(1))
    with Client(gateway.port) as one:
        assert one.send(b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n").read_answer()[0] == 200
        assert status(gateway, "/x") == 503
        reload(gateway, limited(5))
        gateway.program.wait_until(lambda: version(gateway) == [2], "the reload")
        assert status(gateway, "/x") == 200
    gateway.stop()


def test_what_proxies_say_is_judged_anew_on_an_open_connection(tmp_path: Path, origin: Origin) -> None:
    def trusting(networks: str) -> str:
        return config(origin).replace(
            "workers: 2", f'listen: {{address: "127.0.0.1:0", trusted_proxies: [{networks}]}}'
        )

    gateway = Gateway(tmp_path, trusting("127.0.0.1"))
    request = b"GET /x HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 192.0.2.7\r\n\r\n"
    with Client(gateway.port) as client:
        client.send(request).read_answer()
        assert b"192.0.2.7" in origin.seen[-1]
        reload(gateway, trusting(""))
        gateway.program.wait_until(lambda: version(gateway) == [2], "the reload")
        client.send(request).read_answer()
        assert b"192.0.2.7" not in origin.seen[-1]
    gateway.stop()


def test_a_log_that_nobody_reads_is_a_mistake_and_holds_up_nothing(gateway: Gateway, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    text = gateway.path.read_text().replace(f"access_log: {gateway.access_log}", f"access_log: {pipe}")
    gateway.path.write_text(text)
    gateway.program.send_signal(signal.SIGHUP)
    gateway.program.wait_for_line("cannot be written")
    assert status(gateway, "/x") == 200
    assert gateway.readiness()[0] == 200


def test_a_log_that_no_file_can_be_is_a_mistake_and_the_next_reload_is_heard(gateway: Gateway, origin: Origin) -> None:
    gateway.path.write_text(
        gateway.path.read_text().replace(f"access_log: {gateway.access_log}", 'access_log: "a\\0b"')
    )
    gateway.program.send_signal(signal.SIGHUP)
    gateway.program.wait_for_line("a name that no file can have")
    reload(gateway, config(origin, "/y"))
    gateway.program.wait_until(lambda: status(gateway, "/y") == 200, "the good one")
    assert gateway.metrics()['castlegate_config_reloads_total{result="error"}'] == 1
