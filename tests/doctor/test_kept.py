"""`castlegate doctor` on what the gateway keeps and proves itself with: folders, keys, Redis, topics of its own."""

import os
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from tests.conftest import Broker
from tests.doctor.test_doctor import diagnose
from tests.testbeds.certificates import Authority
from tests.testbeds.gateway import Gateway
from tests.testbeds.processes import free_port
from tests.testbeds.redis import RedisServer

TOP = "listen: 127.0.0.1:0\nadmin: 127.0.0.1:0\naccess_log: off\n"
USERS = 'services: {users: {http: ["http://127.0.0.1:9"]}}\n'
LIMITED = "routes: {GET /users: {call: users, public: true, limit: 5/min}}\n"


def state(where: Path) -> str:
    return f"{TOP}state: {where}\n{USERS}{LIMITED}"


def test_state_is_well(tmp_path: Path) -> None:
    found = diagnose(tmp_path, state(tmp_path / "state")).of("state")
    assert (found["verdict"], found["says"]) == ("well", f"{tmp_path}/state is made when the gateway starts")
    assert not (tmp_path / "state").exists()
    (tmp_path / "state").mkdir()
    found = diagnose(tmp_path, state(tmp_path / "state")).of("state")
    assert found["verdict"] == "well"
    assert "MiB are free" in found["says"]


def test_state_of_a_gateway_that_runs_is_well(tmp_path: Path) -> None:
    config = f"state: state\n{USERS}{LIMITED}"
    with Gateway(tmp_path, config):
        assert diagnose(tmp_path, TOP + config).of("state")["verdict"] == "well"


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a folder to somebody else")
def test_state_that_cannot_be_written(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    for folder in (tmp_path, *list(tmp_path.parents)[:3]):
        folder.chmod(0o755)
    kept.chmod(0o500)
    (tmp_path / "doctor.yaml").write_text(state(kept))
    command = [sys.executable, "-m", "castlegate.cli.main", "doctor", "doctor.yaml"]
    run = subprocess.run(command, cwd=tmp_path, user=65534, capture_output=True, text=True, check=False)
    assert run.returncode == 1, run.stderr
    assert f"{kept} cannot be written by user 65534" in run.stdout + run.stderr
    assert "chown it to user 65534" in run.stdout + run.stderr


def test_state_that_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    assert f"{tmp_path}/state is no folder" in diagnose(tmp_path, state(tmp_path / "state")).wrong["state"]


def test_state_that_is_somebody_elses_file(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "quotas.sqlite").write_bytes(b"a file of somebody's" * 100)
    wrong = diagnose(tmp_path, state(tmp_path / "state")).wrong
    assert "file is not a database -> it is another's file, or broken" in wrong["state"]


def test_keys_that_have_expired_or_will_soon(tmp_path: Path) -> None:
    config = f"{TOP}auth: {{apps: {{keys: apps.keys}}}}\n{USERS}routes: {{GET /users: {{call: users, auth: apps}}}}\n"
    digest = "{:064x}"
    lines = [
        f"old: {{owner: a, hash: {digest.format(1)}, expires: 2020-01-31}}",
        f"gone: {{owner: b, hash: {digest.format(2)}, revoked: yesterday}}",
        f"good: {{owner: c, hash: {digest.format(3)}}}",
    ]
    (tmp_path / "apps.keys").write_text("\n".join(lines) + "\n")
    found = diagnose(tmp_path, config).of("keys of apps")
    assert found["verdict"] == "note"
    assert "1 of 3 keys are accepted; expired: old" in found["says"]
    assert "castlegate key new" in found["advice"]
    (tmp_path / "apps.keys").write_text(lines[2] + "\n")
    assert diagnose(tmp_path, config).of("keys of apps")["verdict"] == "well"


def issuer(folder: Path, kept: str, top: str = "") -> str:
    key = folder / "tokens.pem"
    if not key.exists():
        subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", key], check=True)
        key.chmod(0o600)
    own = f"issuer: {{url: 'https://shop.example', keys: [tokens.pem], login: {{call: users, post: /login}}, {kept}}}\n"
    return (
        f"{TOP}{top}{own}auth: {{ours: {{issuer: true}}}}\n{USERS}routes: {{GET /users: {{call: users, auth: ours}}}}\n"
    )


def test_the_issuer_s_keys_and_file(tmp_path: Path) -> None:
    config = issuer(tmp_path, "state: {file: tokens.db}")
    found = diagnose(tmp_path, config)
    assert found.of("issuer keys")["says"].startswith("tokens are signed with EdDSA ")
    assert found.of("issuer state")["verdict"] == "well"
    (tmp_path / "tokens.db").write_bytes(b"something else" * 100)
    (tmp_path / "tokens.pem").chmod(0o644)
    found = diagnose(tmp_path, config)
    assert "move it away" in found.wrong["issuer state"]
    assert "chmod 600" in found.of("issuer keys")["advice"]


def test_topics_of_the_gateway_s_own(broker: Broker, tmp_path: Path) -> None:
    names = [f"{name}-{uuid4().hex[:8]}" for name in ("tokens", "limits")]
    top = f'kafka: {{bootstrap: "{broker.bootstrap}"}}\nlimit_store: {{store: kafka, topic: {names[1]}}}\n'
    config = issuer(tmp_path, f"state: {{topic: {names[0]}}}", top).replace("auth: ours}", "auth: ours, limit: 5/min}")
    found = diagnose(tmp_path, config)
    for name, policy in zip(names, ("compact", "delete"), strict=True):
        assert found.of(f"topic {name}")["verdict"] == "note"
        assert f"--config cleanup.policy={policy}" in found.of(f"topic {name}")["says"]
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    wrong = {names[0]: "delete", names[1]: "compact"}
    topics = [NewTopic(name, 1, config={"cleanup.policy": policy}) for name, policy in wrong.items()]
    for future in admin.create_topics(topics).values():
        future.result(10)
    found = diagnose(tmp_path, config)
    said = [each for each in found.findings if each["check"] == f"topic {names[0]}"]
    assert said[0]["says"] == "1 partition, the gateway's own, may be written to and read"
    assert said[1]["says"] == "its cleanup.policy is delete, not compact"
    assert "--add-config cleanup.policy=compact" in said[1]["advice"]


def redis(url: str, more: str = "") -> str:
    return f'{TOP}limit_store: {{store: redis, url: "{url}"{more}}}\n{USERS}{LIMITED}'


def test_a_redis_that_is_well_and_one_that_is_not_there(tmp_path: Path) -> None:
    with RedisServer(tmp_path) as server:
        found = diagnose(tmp_path, redis(server.url)).of(f"limit store {server.url}")
        assert found["verdict"] == "well"
        assert found["says"].startswith("Redis ")
        assert "may be written to" in found["says"]
    url = f"redis://127.0.0.1:{free_port()}"
    assert "nothing listens on port" in diagnose(tmp_path, redis(url)).wrong[f"limit store {url}"]


def test_a_redis_that_wants_another_password_or_permits_nothing(tmp_path: Path) -> None:
    with RedisServer(tmp_path, password="hunter2-hunter2") as server:
        check = f"limit store {server.url}"
        wrong = diagnose(tmp_path, redis(server.url, ", password: wrong-wrong-wrong")).wrong[check]
        assert "'password' of 'limit_store'" in wrong
        assert "wrong-wrong-wrong" not in wrong
        command = ["redis-cli", "-p", str(server.port), "-a", "hunter2-hunter2", "--no-auth-warning"]
        rights = ["ACL", "SETUSER", "shop", "on", ">shop-shop", "+ping", "+eval"]
        subprocess.run([*command, *rights], check=True, stdout=subprocess.DEVNULL)
        wrong = diagnose(tmp_path, redis(server.url, ", user: shop, password: shop-shop")).wrong[check]
        assert "ACL SETUSER NAME ~castlegate:* +eval" in wrong


def test_a_redis_that_takes_nothing_or_says_nothing(tmp_path: Path) -> None:
    with RedisServer(tmp_path) as server:
        check = f"limit store {server.url}"
        command = ["redis-cli", "-p", str(server.port)]
        subprocess.run([*command, "REPLICAOF", "127.0.0.1", "1"], check=True, stdout=subprocess.DEVNULL)
        assert "it answers, but takes nothing" in diagnose(tmp_path, redis(server.url)).wrong[check]
        server.freeze()
        wrong = diagnose(tmp_path, redis(server.url), "--timeout", "1").wrong[check]
        assert "does not answer within 1 s" in wrong
        server.thaw()


def test_an_admin_port_over_tls_that_a_gateway_has(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair, operator = authority.issue("localhost"), authority.issue("operator")
    context = authority.trusting()
    context.load_cert_chain(operator.cert, operator.key)
    port = free_port()
    for required, said in (("false", "ready"), ("true", "which wants a certificate")):
        clients = f"{{ca: {authority.file}, required: {required}}}"
        admin = (
            f"admin: {{address: '127.0.0.1:{port}', tls: {{cert: {pair.cert}, key: {pair.key}, clients: {clients}}}}}\n"
        )
        with Gateway(tmp_path, admin + USERS + LIMITED, operator=context):
            config = TOP.replace("admin: 127.0.0.1:0\n", admin) + USERS + LIMITED
            found = diagnose(tmp_path, config).of("admin")
        assert found["verdict"] == "note"
        assert found["says"].endswith(said)
