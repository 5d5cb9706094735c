"""The issuer of two instances, with its state in a topic and its login behind Kafka: the log decides for both."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from tests.conftest import Broker
from tests.testbeds.gateway import Gateway
from tests.testbeds.processes import free_port
from tests.testbeds.services import Service, start_plain
from tests.trust.issuing import Answer, ask, login, logout, make_key, refresh

from castlegate.config.report import Report
from castlegate.issuer.keys import load_keys


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_key(tmp_path_factory.mktemp("keys"), "one.pem")


def config(bootstrap: str, keys: Path, topic: str, top: str = "workers: 2", more: str = "") -> str:
    """`fs.json` answers what it is asked to: here, that whoever calls is who they say."""
    return f"""
{top}
kafka: {{bootstrap: "{bootstrap}"}}
services: {{fs: {{kafka: faststream}}}}
issuer:
  url: https://shop.example.com
  keys: [{keys}]
  login: {{call: fs.json, send: {{value: {{subject: "{{body.name}}", scopes: "read"}}}}, timeout: 5s}}
  state: {{topic: {topic}}}
  {more}
auth: {{ours: {{issuer: true}}}}
routes: {{GET /me: {{call: fs.echo, auth: ours, send: {{who: "{{principal.subject}}"}}}}}}
"""


@pytest.fixture(scope="module")
def topic() -> str:
    return f"tokens-{uuid4().hex[:8]}"


@pytest.fixture(scope="module")
def instances(
    broker: Broker, faststream_service: Service, keys: Path, topic: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[Gateway]]:
    del faststream_service
    folders = [tmp_path_factory.mktemp(name) for name in ("one", "two")]
    running = [Gateway(folder, config(broker.bootstrap, keys, f"{topic}-{broker.kind}")) for folder in folders]
    for gateway in running:
        gateway.program.wait_until(lambda: gateway.readiness()[1]["reason"] == "", "readiness")  # noqa: B023
    yield running
    for gateway in running:
        assert gateway.stop() == 0


def all_at_once(ports: list[int], token: str) -> list[Answer]:
    answers: list[Answer] = []
    barrier = threading.Barrier(len(ports))

    def use(port: int) -> None:
        barrier.wait()
        answers.append(refresh(port, token))

    threads = [threading.Thread(target=use, args=(port,)) for port in ports]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def test_what_one_instance_began_goes_on_at_the_other_at_once(instances: list[Gateway]) -> None:
    one, two = (gateway.port for gateway in instances)
    answer = login(one)
    assert (answer.status, answer.document["scope"]) == (200, "read")
    for port in (two, one) * 10:  # each use by one that may not have read of the last yet
        answer = refresh(port, answer.refresh)
        assert answer.status == 200, answer.document
    told = ask(two, "GET", "/me", fields={"authorization": f"Bearer {answer.access}"})
    assert told.document["payload"] == {"who": "ann"}


def test_of_uses_at_once_by_two_instances_one_wins_and_the_login_ends(instances: list[Gateway]) -> None:
    one, two = (gateway.port for gateway in instances)
    for _ in range(5):
        answers = all_at_once([one, two, one, two], login(one).refresh)
        assert sorted(answer.status for answer in answers) == [200, 400, 400, 400]
        [won] = [answer for answer in answers if answer.status == 200]
        for port in (one, two):
            assert refresh(port, won.refresh).status == 400


def test_an_old_token_at_one_instance_ends_the_login_at_the_other(instances: list[Gateway]) -> None:
    one, two = (gateway.port for gateway in instances)
    first = login(one)
    second = refresh(two, first.refresh)
    assert refresh(one, first.refresh).status == 400
    assert refresh(two, second.refresh).status == 400


def test_a_logout_at_one_instance_counts_at_the_other(instances: list[Gateway]) -> None:
    one, two = (gateway.port for gateway in instances)
    first = login(one)
    assert logout(two, first.refresh).status == 204
    assert refresh(one, first.refresh).status == 400
    assert logout(one, first.refresh).status == 204


def test_an_access_token_ends_everywhere_with_its_login_and_no_other_does(instances: list[Gateway]) -> None:
    one, two = (gateway.port for gateway in instances)
    for end in (lambda first: logout(two, first.refresh).status, lambda first: reused(two, first)):
        first, other = login(one), login(two)
        # One that may not have read of the login yet does not refuse it.
        assert [me(port, each.access) for each in (first, other) for port in (two, one) * 4] == [200] * 16
        assert end(first) in (204, 400)
        for gateway in instances:  # told to others by the log, so within moments
            gateway.program.wait_until(
                lambda: all(me(gateway.port, first.access) == 401 for _ in range(8)),  # noqa: B023
                "the end of the access token",
            )
        assert [me(port, other.access) for port in (two, one) * 4] == [200] * 8


def test_one_subject_has_so_many_logins_over_all_instances(
    broker: Broker, faststream_service: Service, keys: Path, tmp_path: Path
) -> None:
    text = config(broker.bootstrap, keys, f"few-{uuid4().hex[:8]}", top="workers: 1")
    text = text.replace("state: {", "state: {per_subject: 2, ")
    running = []
    try:
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            running.append(Gateway(tmp_path / name, text))
        answers = [login(running[number % 2].port) for number in range(4)]
        assert [refresh(running[0].port, each.refresh).status for each in answers] == [400, 400, 200, 200]
        running[1].program.wait_until(lambda: me(running[1].port, answers[0].access) == 401, "the end")
        assert me(running[1].port, answers[3].access) == 200
    finally:
        for gateway in running:
            assert gateway.stop() == 0


def reused(port: int, first: Answer) -> int:
    """By whoever has an old token."""
    assert refresh(port, first.refresh).status == 200
    return refresh(port, first.refresh).status


def me(port: int, token: str) -> int:
    return ask(port, "GET", "/me", fields={"authorization": f"Bearer {token}"}).status


def test_an_invented_token_is_refused_and_ends_nothing(instances: list[Gateway]) -> None:
    one, two = (gateway.port for gateway in instances)
    mine, other = login(one), login(two)
    assert refresh(two, other.refresh[:43] + mine.refresh[43:]).status == 400, "it has one half of each"
    assert refresh(two, mine.refresh).status == 200
    assert refresh(two, "A" * 86).status == 400


def test_the_topic_holds_no_token_and_one_that_nobody_can_read_is_left_out(
    instances: list[Gateway], broker: Broker, topic: str
) -> None:
    name = f"{topic}-{broker.kind}"
    producer = Producer({"bootstrap.servers": broker.bootstrap})
    for key, value in ((b"x", b"{"), (b"y", b'{"granted": 1}'), (None, b"{}"), (b"\xff", b"\xff")):
        producer.produce(name, value, key, 0)
    producer.flush(10)
    answer = refresh(instances[1].port, login(instances[0].port).refresh)
    assert answer.status == 200
    consumer = Consumer({"bootstrap.servers": broker.bootstrap, "group.id": "look", "enable.partition.eof": True})
    consumer.assign([TopicPartition(name, 0, 0)])
    content = b""
    while (message := consumer.poll(10)) is not None and message.error() is None:
        content += (message.key() or b"") + b" " + (message.value() or b"")  # type: ignore[operator]
    consumer.close()
    assert b'"subject":"ann"' in content
    for secret in (answer.refresh, answer.refresh[:43], answer.refresh[43:], answer.access):
        assert secret.encode() not in content


def test_a_restarted_instance_and_one_that_crashed_know_what_was_before(
    broker: Broker, faststream_service: Service, keys: Path, tmp_path: Path
) -> None:
    text = config(broker.bootstrap, keys, f"restarted-{uuid4().hex[:8]}")
    gateway = Gateway(tmp_path, text)
    kept, used, ended = (login(gateway.port) for _ in range(3))
    after = refresh(gateway.port, used.refresh)
    logout(gateway.port, ended.refresh)
    pids = [worker["pid"] for worker in gateway.workers()]
    gateway.program.send_signal(signal.SIGKILL)
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    gateway.program.wait()
    gateway = Gateway(tmp_path, text)
    try:
        assert refresh(gateway.port, kept.refresh).status == 200
        assert refresh(gateway.port, ended.refresh).status == 400
        last = refresh(gateway.port, after.refresh)
        assert last.status == 200
        assert refresh(gateway.port, used.refresh).status == 400
        assert refresh(gateway.port, last.refresh).status == 400
    finally:
        assert gateway.stop() == 0


def test_a_reload_that_replaces_the_kafka_clients_keeps_every_login(
    broker: Broker, faststream_service: Service, keys: Path, tmp_path: Path
) -> None:
    text = config(broker.bootstrap, keys, f"reloaded-{uuid4().hex[:8]}")
    gateway = Gateway(tmp_path, text)
    try:
        answer = login(gateway.port)
        for version, changed in enumerate(
            (text + "defaults: {timeout: 77s}\n", text.replace("workers: 2", "workers: 2\nwatch: false")), 2
        ):
            gateway.rewrite(changed)
            gateway.program.send_signal(signal.SIGHUP)
            gateway.program.wait_until(lambda: all(w["version"] == version for w in gateway.workers()), "the reload")  # noqa: B023
            for _ in range(4):
                answer = refresh(gateway.port, answer.refresh)
                assert answer.status == 200, answer.document
    finally:
        assert gateway.stop() == 0


def test_without_brokers_nothing_is_handed_out_and_nothing_was_sent(keys: Path, tmp_path: Path) -> None:
    gateway = Gateway(tmp_path, config(f"127.0.0.1:{free_port()}", keys, "tokens"))
    try:
        token = "A" * 86
        unknown = ask(gateway.port, "GET", "/me", fields={"authorization": f"Bearer {signed_elsewhere(keys)}"})
        assert (unknown.status, "retry-after" in unknown.fields) == (503, True)
        for answer in (login(gateway.port), refresh(gateway.port, token), logout(gateway.port, token)):
            assert answer.status == 503
            assert (answer.document["outcome"], answer.document["error"]) == ("not_sent", "temporarily_unavailable")
            assert "retry-after" in answer.fields
            assert answer.fields["cache-control"] == "no-store"
    finally:
        gateway.stop()


def signed_elsewhere(keys: Path) -> str:
    """An access token as another instance, which has the same key, may have given it."""
    [key] = load_keys([keys.name], Report(keys.parent).place("keys"))
    url, now = "https://shop.example.com", int(time.time())
    return key.sign({"iss": url, "aud": url, "sub": "ann", "iat": now, "exp": now + 60, "sid": "A" * 43})


def test_a_broker_that_dies_and_comes_back_costs_no_login(own_broker: Broker, keys: Path, tmp_path: Path) -> None:
    """The embedded one comes back empty: then there are no logins any more, and new ones can begin."""
    (tmp_path / "plain").mkdir()
    service = start_plain(own_broker.bootstrap, tmp_path / "plain")
    text = config(own_broker.bootstrap, keys, "tokens", top="workers: 1")
    text = text.replace("fs: {kafka: faststream}", "plain: {kafka: plain}")
    text = text.replace("call: fs.json, send: {value:", "call: plain.script, send: {replies: [{value:").replace(
        'scopes: "read"}}', 'scopes: "read"}}]}'
    )
    text = text.replace("call: fs.echo", "call: plain.script")
    gateway = Gateway(tmp_path, text)
    try:
        gateway.program.wait_until(lambda: gateway.readiness()[1]["reason"] == "", "readiness")
        before = login(gateway.port)
        assert before.status == 200, before.document
        own_broker.kill()
        gateway.program.wait_until(
            lambda: refresh(gateway.port, before.refresh[:43] + "A" * 43).status == 503, "a refusal"
        )
        # What was read goes on being known: only the service behind Kafka cannot be called.
        told = ask(gateway.port, "GET", "/me", fields={"authorization": f"Bearer {before.access}"})
        assert told.document["title"] != "Credentials cannot be verified now", told.document
        assert told.status != 401
        service.program.terminate()
        own_broker.restart()
        service = start_plain(own_broker.bootstrap, tmp_path / "plain")
        gateway.program.wait_until(lambda: login(gateway.port).status == 200, "a login", 30)
        answer = once_possible(gateway.port, before.refresh)
        assert answer.status == (200 if own_broker.kind == "real" else 400), answer.document
        assert once_possible(gateway.port, login(gateway.port).refresh).status == 200
    finally:
        gateway.stop()
        service.program.terminate()


def once_possible(port: int, token: str) -> Answer:
    """Refused as not sent while connections to a broker that is back are made: then it may be repeated."""
    for _ in range(100):
        answer = refresh(port, token)
        if answer.status != 503 or answer.document["outcome"] != "not_sent":
            break
        time.sleep(0.1)
    return answer
