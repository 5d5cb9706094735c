"""API keys: made and revoked by the real command, asked for by a real gateway with two workers."""

import errno
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from tests.testbeds.gateway import Gateway
from tests.testbeds.wire import Client, Origin

from castlegate.cli.main import main

CONFIG = """
workers: 2
auth:
  keys: {{keys: {{file: partners.keys, watch: 100ms{more}}}}}
services: {{origin: {{http: ["http://127.0.0.1:{port}"]}}}}
routes:
  GET /who:
    call: origin
    auth: keys
    headers:
      request:
        x-who: "{{principal.subject}} {{principal.scheme}} {{principal.credential}}"
        x-claims: "{{claims.tier?}} {{claims.limit?}} {{claims.sub}}"
"""


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin() as origin:
        yield origin


@pytest.fixture
def gateway(tmp_path: Path, origin: Origin) -> Iterator[Gateway]:
    """One whose partners have a key called `first`, which is in `first.key`."""
    key = new(tmp_path, "--owner", "acme", "--id", "first", "--claim", "tier=gold", "--limit", "100/min")
    (tmp_path / "first.key").write_text(key)
    with Gateway(tmp_path, CONFIG.format(port=origin.port, more="")) as gateway:
        yield gateway


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`castlegate key`."""
    command = [sys.executable, "-m", "castlegate.cli.main", "key", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=30, check=False)


def new(folder: Path, *arguments: str) -> str:
    """A key that was added to the file of the partners."""
    done = run(folder, "new", "partners.keys", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def ask(gateway: Gateway, *fields: str, target: str = "/who") -> tuple[int, dict[str, str], bytes]:
    """On a connection of its own, so that any worker may get it."""
    head = "".join(f"{field}\r\n" for field in fields)
    with Client(gateway.port) as client:
        return client.send(f"GET {target} HTTP/1.1\r\nHost: h\r\n{head}\r\n".encode()).read_answer()


def statuses(gateway: Gateway, key: str) -> set[int]:
    """Of enough connections for both workers to have had one."""
    return {ask(gateway, f"X-API-Key: {key}")[0] for _ in range(12)}


def detail(answer: tuple[int, dict[str, str], bytes]) -> str:
    said: str = json.loads(answer[2])["detail"]
    return said


def test_a_key_lets_its_owner_in_and_services_may_learn_who_that_is(gateway: Gateway, origin: Origin) -> None:
    key = (gateway.path.parent / "first.key").read_text()
    assert statuses(gateway, key) == {200}
    assert b"\r\nx-who: acme keys first\r\n" in origin.seen[0]
    assert b"\r\nx-claims: gold 100/min acme\r\n" in origin.seen[0]


def test_whoever_has_no_key_that_is_good_is_told_what_is_wrong_and_no_more(gateway: Gateway, origin: Origin) -> None:
    folder = gateway.path.parent
    good = (folder / "first.key").read_text()
    expired = new(folder, "--owner", "acme", "--expires", "2999-01-01")
    file = folder / "partners.keys"
    file.write_text(file.read_text().replace("2999-01-01", "2020-01-01"))
    foreign = run(folder, "new", "-", "--owner", "mallory").stdout.strip()
    gateway.program.wait_for_line(r"2 keys of .*partners.keys are known")
    gateway.program.wait_until(lambda: detail(ask(gateway, f"X-API-Key: {expired}")) == "The key has expired.", "it")
    cases = {
        "": "There is no API key in X-API-Key.",
        "X-API-Key: ": "There is no API key in X-API-Key.",
        f"Authorization: ApiKey {good}": "There is no API key in X-API-Key.",
        f"X-API-Key: {foreign}": "The key is not known.",
        f"X-API-Key: {good[:-1]}": "The key is mistyped, or not one of ours.",
        f"X-API-Key: {good}x": "The key is mistyped, or not one of ours.",
        f"X-API-Key: {good[:20]}{'A' if good[20] != 'A' else 'B'}{good[21:]}": "The key is mistyped, or not one of ours.",
        f"X-API-Key: {good}, {good}": "The key is mistyped, or not one of ours.",
        f"X-API-Key: {good}\r\nX-API-Key: {good}": "The key is mistyped, or not one of ours.",
        f"X-API-Key: {'A' * 5000}": "The key is mistyped, or not one of ours.",
        "X-API-Key: \xff\xfe": "The key is mistyped, or not one of ours.",
    }
    for fields, said in cases.items():
        status, found, body = answer = ask(gateway, *([fields] if fields else []))
        assert (status, detail(answer)) == (401, said), fields
        assert found["www-authenticate"].startswith('ApiKey realm="keys"')
        assert good[9:] not in f"{found}{body!r}"
    assert origin.seen == []


def test_a_key_is_refused_seconds_after_it_was_revoked_and_a_new_one_works(gateway: Gateway) -> None:
    folder = gateway.path.parent
    first = (folder / "first.key").read_text()
    second = new(folder, "--owner", "globex")
    gateway.program.wait_until(lambda: statuses(gateway, second) == {200}, "the new key to work", 5)
    assert run(folder, "revoke", "partners.keys", "first").returncode == 0
    gateway.program.wait_until(lambda: statuses(gateway, first) == {401}, "the revoked key to be refused", 5)
    assert detail(ask(gateway, f"X-API-Key: {first}")) == "The key was revoked."
    assert statuses(gateway, second) == {200}


def test_a_broken_file_changes_nothing_and_the_log_says_why_and_where(gateway: Gateway) -> None:
    folder = gateway.path.parent
    first = (folder / "first.key").read_text()
    file = folder / "partners.keys"
    sound = file.read_text()
    errors = 'castlegate_auth_key_reloads_total{scheme="keys",result="error"}'
    file.write_text(sound.replace('"owner"', '"ownr"'))
    gateway.program.wait_for_line(
        rf"the keys stay as they were: {re.escape(str(file))}:3:9: unknown key 'ownr' .*'owner'"
    )
    gateway.program.wait_until(lambda: gateway.metrics()[errors] == 2, "both workers to have seen it")
    file.unlink()
    gateway.program.wait_for_line(rf"the keys stay as they were: {re.escape(str(file))}: No such file")
    gateway.program.wait_until(lambda: gateway.metrics()[errors] == 4, "both workers to have missed it")
    assert statuses(gateway, first) == {200}
    file.write_text(f"# nobody\n{sound.splitlines()[0]}\n")
    gateway.program.wait_until(lambda: statuses(gateway, first) == {401}, "the file without the key to be taken")


def test_a_worker_that_cannot_read_the_file_when_it_starts_lets_nobody_in_until_it_can(gateway: Gateway) -> None:
    folder = gateway.path.parent
    first = (folder / "first.key").read_text()
    file = folder / "partners.keys"
    sound = file.read_bytes()
    file.write_bytes(b"broken\n")
    lost = gateway.workers()[0]["pid"]
    os.kill(lost, signal.SIGKILL)
    gateway.program.wait_until(
        lambda: len(gateway.workers()) == 2 and lost not in [each["pid"] for each in gateway.workers()],
        "another worker",
    )
    gateway.program.wait_until(lambda: statuses(gateway, first) == {200, 503}, "the new worker to refuse")
    assert statuses(gateway, "cg_x") <= {401, 503}
    file.write_bytes(sound)
    gateway.program.wait_until(lambda: statuses(gateway, first) == {200}, "both workers to know the key")


CARRIERS = [
    ("header: x-key", "X-Key: KEY", ""),
    ("authorization: ApiKey", "Authorization: apikey  KEY", ""),
    ("cookie: key", "Cookie: a=b; key=KEY; c=d", ""),
    ("query: k", "", "?a=b&k=KEY"),
    ("query: kk, header: x-key", "X-Key: KEY", "?kk=other"),
    ("query: kk, header: x-key", "", "?kk=KEY"),
]


def test_a_key_is_taken_from_where_the_configuration_says_and_never_logged(tmp_path: Path, origin: Origin) -> None:
    key = new(tmp_path, "--owner", "acme")
    text = ["auth:", *(f"  s{n}: {{keys: {{file: partners.keys, {said}}}}}" for n, (said, _, _) in enumerate(CARRIERS))]
    text += [f'services: {{origin: {{http: ["http://127.0.0.1:{origin.port}"]}}}}', "routes:"]
    text += [f"  GET /{n}: {{call: origin, auth: s{n}}}" for n in range(len(CARRIERS))]
    with Gateway(tmp_path, "\n".join(text)) as gateway:
        for number, (_, fields, query) in enumerate(CARRIERS):
            said = [fields.replace("KEY", key)] if fields else []
            assert ask(gateway, *said, target=f"/{number}{query.replace('KEY', key)}")[0] == 200
            assert ask(gateway, f"X-API-Key: {key}", target=f"/{number}")[0] == 401
        gateway.wait_logged(2 * len(CARRIERS))
    assert gateway.program.log is not None
    for log in (gateway.access_log.read_text(), gateway.program.log.read_text()):
        assert key not in log


def test_commands_at_the_same_time_all_have_their_way(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "castlegate.cli.main", "key", "new", "partners.keys", "--owner"]
    running = [subprocess.Popen([*command, f"owner-{n}"], cwd=tmp_path, stdout=-1, stderr=-1) for n in range(6)]
    assert [process.communicate(timeout=30) and process.returncode for process in running] == [0] * 6
    told = json.loads(run(tmp_path, "list", "partners.keys", "--json").stdout)
    assert {each["owner"] for each in told} == {f"owner-{n}" for n in range(6)}
    assert (tmp_path / "partners.keys").stat().st_mode & 0o777 == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["partners.keys"]


def test_what_people_wrote_into_the_file_stays_there(tmp_path: Path) -> None:
    file = tmp_path / "partners.keys"
    file.write_text(
        f"# ours\n\nold: {{owner: acme, hash: {'a' * 64}}}  # since 2019\nother: {{owner: b, hash: {'b' * 64}}}"
    )
    file.chmod(0o664)
    new(tmp_path, "--owner", "globex", "--id", "fresh")
    assert run(tmp_path, "revoke", "partners.keys", "old").returncode == 0
    lines = file.read_text().splitlines()
    today = time.strftime("%Y-%m-%d", time.gmtime())
    assert lines[:2] == ["# ours", ""]
    assert re.fullmatch(rf'old: {{revoked: "{today}T\S+Z", owner: acme, hash: a+}}  # since 2019', lines[2])
    assert lines[3].startswith("other: {owner: b")
    assert lines[4].startswith('fresh: {"owner": "globex"')
    assert file.stat().st_mode & 0o777 == 0o640
    states = {each["id"]: each["state"] for each in json.loads(run(tmp_path, "list", "partners.keys", "--json").stdout)}
    assert states == {"old": "revoked", "other": "good", "fresh": "good"}


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["new", "partners.keys", "--owner", "a", "--id", "taken"], 1, "the id 'taken' is taken"),
        (["new", "partners.keys", "--owner", "a", "--id", "not an id"], 2, "letters, digits and hyphens between them"),
        (["new", "partners.keys", "--owner", "a", "--id", ""], 2, "leave it out for a random one"),
        (["new", "partners.keys", "--owner", "a", "--id", "12"], 2, "write k-12"),
        (["new", "partners.keys", "--owner", "a", "--scope", "x y"], 2, "write --scope x --scope y"),
        (["new", "partners.keys", "--owner", "a", "--scope", ""], 2, "a word such as orders:read"),
        (["new", "partners.keys", "--owner", "a", "--claim", "limit=3"], 2, "is said with --limit"),
        (
            ["new", "partners.keys", "--owner", "a", "--limit", "often"],
            2,
            "100/min, 10/s, 5000/d or 30/10min; found 'often'",
        ),
        (["new", "partners.keys", "--owner", "a", "--expires", "soon"], 2, "expected a date such as 2027-01-31"),
        (["new", "partners.keys", "--owner", ""], 2, "expected whose the key is"),
        (["new", "nowhere/partners.keys", "--owner", "a"], 1, "nowhere/partners.keys: there is no folder '"),
        (["revoke", "partners.keys", "nobody"], 1, "there is no key 'nobody'"),
        (["revoke", "none.keys", "nobody"], 1, "'castlegate key new none.keys --owner NAME' makes one"),
        (["list", "none.keys"], 1, "'castlegate key new none.keys --owner NAME' makes one"),
        (["new", "kept/partners.keys", "--owner", "a"], 1, "must be able to write to '"),
        (["list", "cut.keys"], 2, "cut.keys:1:14: not valid YAML"),
        (["list", "broken.keys"], 2, "broken.keys:2:1: expected one key a line"),
        (["new", "broken.keys", "--owner", "a"], 2, "broken.keys:2:1: expected one key a line"),
    ],
)
def test_what_cannot_be_done_is_said_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], status: int, said: str
) -> None:
    (tmp_path / "partners.keys").write_text(f"taken: {{owner: acme, hash: {'a' * 64}}}\n")
    (tmp_path / "broken.keys").write_text("# a comment\nthis is no key\n")
    (tmp_path / "cut.keys").write_text("a: {owner: x,\n")
    before = {each.name: each.read_text() for each in tmp_path.iterdir()}
    (tmp_path / "kept").mkdir()
    if "kept/partners.keys" in arguments:
        monkeypatch.setattr(tempfile, "mkstemp", refusing)  # whoever runs this may be root, who may write everywhere
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main, ["key", *arguments])
    assert (done.exit_code, done.stdout) == (status, "")
    assert said in done.stderr
    assert {each.name: each.read_text() for each in tmp_path.iterdir() if each.is_file()} == before


def refusing(*_: object, **__: object) -> None:
    raise PermissionError(errno.EACCES, "Permission denied", "kept/.partners.keys.x")


@pytest.mark.parametrize(
    ("expires", "said"),
    [
        ("2020-01-01", "2020-01-01 has passed; the key could never be used"),
        ("soon", "expected a date such as 2027-01-31, or a time such as 2027-01-31T12:00:00Z, or a span"),
    ],
)
def test_a_key_that_could_never_be_used_is_not_made(tmp_path: Path, expires: str, said: str) -> None:
    done = CliRunner().invoke(main, ["key", "new", str(tmp_path / "a.keys"), "--owner", "a", "--expires", expires])
    assert done.exit_code == 2
    assert said in done.output
    assert not (tmp_path / "a.keys").exists()
