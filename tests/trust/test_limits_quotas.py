"""Quotas: of the calendar's days and months, kept over restarts and crashes."""

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from tests.testbeds.gateway import Gateway
from tests.testbeds.wire import Client, Origin


def config(origin: Origin, quota: str = "{daily: 10, per: address}", more: str = "state: state") -> str:
    return f"""
{more}
services: {{origin: {{http: ["http://127.0.0.1:{origin.port}"]}}}}
defaults: {{public: true}}
routes: {{GET /x: {{call: origin, quota: {quota}}}}}
"""


def statuses(gateway: Gateway, times: int) -> list[int]:
    with Client(gateway.port) as client:
        return [client.send(b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n").read_answer()[0] for _ in range(times)]


def test_a_quota_outlives_a_restart(tmp_path: Path, origin: Origin) -> None:
    gateway = Gateway(tmp_path, config(origin, more="state: state\nworkers: 2"))
    assert statuses(gateway, 8) == [200] * 8
    assert gateway.stop() == 0
    # With another number of places, and a larger quota.
    more = "state: state\nlimit_store: {entries: 50}"
    gateway = Gateway(tmp_path, config(origin, "{daily: 11, per: address}", more))
    assert statuses(gateway, 4) == [200, 200, 200, 429]
    assert gateway.stop() == 0
    assert (tmp_path / "state").stat().st_mode & 0o077 == 0


def test_what_is_kept_is_the_gateways_alone(tmp_path: Path, origin: Origin) -> None:
    """Also while it runs, and what another has left behind."""
    state = tmp_path / "state"
    for _ in range(2):
        gateway = Gateway(tmp_path, config(origin))
        assert statuses(gateway, 1) == [200]
        before = writes(gateway)
        gateway.program.wait_until(lambda: writes(gateway) > before, "a write")  # noqa: B023
        modes = {each.name: each.stat().st_mode & 0o777 for each in state.iterdir()}
        assert modes == {"quotas.sqlite": 0o600, "quotas.sqlite-wal": 0o600}
        gateway.program.kill()
        for each in state.iterdir():
            each.chmod(0o644)


def writes(gateway: Gateway) -> float:
    return gateway.metrics()['castlegate_quota_writes_total{result="ok"}']


def test_a_kill_forgets_no_more_than_was_not_yet_written(tmp_path: Path, origin: Origin) -> None:
    gateway = Gateway(tmp_path, config(origin))
    assert statuses(gateway, 8) == [200] * 8
    before = writes(gateway)
    gateway.program.wait_until(lambda: writes(gateway) >= before + 2, "a write that was begun after the requests")
    gateway.program.kill()
    gateway = Gateway(tmp_path, config(origin))
    assert statuses(gateway, 3) == [200, 200, 429]
    gateway.stop()


def test_a_worker_that_is_killed_forgets_nothing(tmp_path: Path, origin: Origin) -> None:
    gateway = Gateway(tmp_path, config(origin))
    assert statuses(gateway, 8) == [200] * 8
    pid = gateway.workers()[0]["pid"]
    os.kill(pid, signal.SIGKILL)
    gateway.program.wait_until(lambda: gateway.workers()[0]["pid"] not in (pid, None), "another worker")
    gateway.program.wait_until(lambda: gateway.workers()[0]["ready"], "it to serve")
    assert statuses(gateway, 3) == [200, 200, 429]
    gateway.stop()


def test_clients_are_told_of_days_and_months(tmp_path: Path, origin: Origin) -> None:
    gateway = Gateway(tmp_path, config(origin, "{daily: 2, monthly: 9, per: address, name: free}"))
    with Client(gateway.port) as client:
        request = b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n"
        status, fields, _ = client.send(request).read_answer()
        assert fields["ratelimit-policy"] == '"free-daily";q=2;w=86400, "free-monthly";q=9'
        daily, monthly = fields["ratelimit"].split(", ")
        assert (status, daily[:17], monthly[:19]) == (200, '"free-daily";r=1;', '"free-monthly";r=8;')
        client.send(request).read_answer()
        status, fields, body = client.send(request).read_answer()
        assert status == 429
        assert b"quota of 2 requests a day" in body
        assert 0 < int(fields["retry-after"]) <= 86400
    gateway.stop()


def test_what_is_written_does_not_tell_who(tmp_path: Path, origin: Origin) -> None:
    gateway = Gateway(tmp_path, config(origin))
    statuses(gateway, 3)
    gateway.stop()
    assert b"127.0.0.1" not in (tmp_path / "state" / "quotas.sqlite").read_bytes()
    rows = sqlite3.connect(tmp_path / "state" / "quotas.sqlite").execute("SELECT used FROM quotas").fetchall()
    assert rows == [(3,)]


def start(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "castlegate.cli.main", "run", folder / "gateway.yaml"]
    return subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)


def test_two_gateways_cannot_keep_their_quotas_in_one_place(tmp_path: Path, origin: Origin) -> None:
    gateway = Gateway(tmp_path, config(origin))
    other = start(tmp_path)
    assert other.returncode == 1
    assert "another gateway has it open" in other.stderr
    assert statuses(gateway, 1) == [200]
    gateway.stop()


def test_a_file_that_is_no_ledger_is_not_written_over(tmp_path: Path, origin: Origin) -> None:
    gateway = Gateway(tmp_path, config(origin))
    gateway.stop()
    (tmp_path / "state" / "quotas.sqlite").write_bytes(b"not a database, but something of somebody's" * 100)
    refused = start(tmp_path)
    assert refused.returncode == 1
    assert "quotas.sqlite cannot be used: file is not a database" in refused.stderr


@pytest.mark.parametrize("change", ["UPDATE secret SET value = 'text'", "UPDATE quotas SET used = 'many'"])
def test_a_ledger_of_somebody_else_is_refused(tmp_path: Path, origin: Origin, change: str) -> None:
    gateway = Gateway(tmp_path, config(origin))
    assert statuses(gateway, 1) == [200]
    gateway.stop()
    with contextlib.closing(sqlite3.connect(tmp_path / "state" / "quotas.sqlite")) as ledger:
        ledger.execute(change)
        ledger.commit()
    refused = start(tmp_path)
    assert refused.returncode == 1
    assert refused.stderr.endswith("quotas.sqlite cannot be used: it holds something else than quotas\n")
