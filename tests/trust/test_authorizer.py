"""Credentials that a service judges: a FastStream and a NestJS one on a real broker, and one that speaks HTTP."""

import json
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.testbeds.embedded import EmbeddedBroker
from tests.testbeds.gateway import Gateway
from tests.testbeds.services import Service, start_authorizer, start_nest
from tests.testbeds.wire import Client, Origin

WHO = '{request: {x-who: "{principal.subject} {claims.tier?}"}}'


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin() as origin:
        yield origin


@pytest.fixture
def authorizer(embedded_broker: EmbeddedBroker, tmp_path: Path) -> Iterator[Service]:
    """The one behind Kafka that tests may kill."""
    service = start_authorizer(embedded_broker.bootstrap, tmp_path)
    yield service
    service.program.terminate()


def ask(gateway: Gateway, token: str, path: str = "/who") -> tuple[int, dict[str, str], dict[str, Any]]:
    return ask_with(gateway, f"Authorization: Bearer {token}", path)


def ask_with(gateway: Gateway, field: str, path: str = "/who") -> tuple[int, dict[str, str], dict[str, Any]]:
    with Client(gateway.port) as client:
        client.send(f"GET {path} HTTP/1.1\r\nHost: h\r\n{field}\r\n\r\n".encode())
        status, fields, body = client.read_answer()
        return status, fields, {} if status == 200 else json.loads(body)


def ready(gateway: Gateway) -> None:
    gateway.program.wait_until(lambda: gateway.readiness()[1].get("status") == "ready", "Kafka to be ready")


def test_three_lines_have_a_kafka_service_judge_tokens(
    embedded_broker: EmbeddedBroker, authorizer: Service, origin: Origin, tmp_path: Path
) -> None:
    config = f"""
kafka: {{bootstrap: "{embedded_broker.bootstrap}", inbox: castlegate.three}}
auth:
  team:
    authorizer: {{call: auth.verify}}
services: {{auth: {{kafka: faststream}}, origin: {{http: ["http://127.0.0.1:{origin.port}"]}}}}
routes: {{"GET /who": {{call: origin, auth: team, headers: {WHO}}}}}
"""
    with Gateway(tmp_path, config) as gateway:
        ready(gateway)
        assert [ask(gateway, "good-ann")[0] for _ in range(5)] == [200] * 5
        assert all(b"\r\nx-who: ann gold\r\n" in seen for seen in origin.seen)
        status, fields, problem = ask(gateway, "bad")
        assert (status, problem["detail"]) == (401, "The credential is not accepted.")
        assert fields["www-authenticate"].startswith('Bearer realm="team", error="invalid_token"')
        assert [each["token"] for each in authorizer.handled()] == ["good-ann", "bad"]
        sent = authorizer.handled()[0]["headers"]
        assert {"traceparent", "x-request-id", "x-deadline-ms"} <= sent.keys()
        assert len(origin.seen) == 5
        gateway.wait_logged(6)
        assert gateway.program.log is not None
        for text in (gateway.program.log.read_text(), gateway.access_log.read_text()):
            assert "good-ann" not in text


def test_an_authorizer_behind_kafka_that_dies_under_load_opens_nothing(
    embedded_broker: EmbeddedBroker, authorizer: Service, origin: Origin, tmp_path: Path
) -> None:
    config = f"""
kafka: {{bootstrap: "{embedded_broker.bootstrap}", inbox: castlegate.dies}}
auth:
  team:
    authorizer: {{call: auth.verify, timeout: 400ms, cache: {{accepted: 500ms, refused: 100ms}}}}
services: {{auth: {{kafka: faststream}}, origin: {{http: ["http://127.0.0.1:{origin.port}"]}}}}
routes:
  GET /who: {{call: origin, auth: team}}
  GET /soon: {{call: origin, auth: team, timeout: 150ms}}
"""
    with Gateway(tmp_path, config) as gateway:
        ready(gateway)
        assert ask(gateway, "good-first")[0] == 200
        stop = threading.Event()
        answers: list[tuple[float, str, int]] = []

        def load(number: int) -> None:
            turn = 0
            while not stop.is_set():
                turn += 1
                token = f"good-{(number + turn) % 12}" if turn % 2 else f"bad-{turn % 12}"
                answers.append((time.monotonic(), token, ask(gateway, token)[0]))

        threads = [threading.Thread(target=load, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        try:
            gateway.program.wait_until(lambda: len(answers) > 60, "load")
            authorizer.program.kill()
            died = time.monotonic()
            gateway.program.wait_until(lambda: time.monotonic() > died + 1.5, "all that was known to be forgotten")
        finally:
            stop.set()
            for thread in threads:
                thread.join(10)
        assert {status for _, token, status in answers if token.startswith("bad")} == {401, 503}
        assert {status for _, token, status in answers if token.startswith("good")} == {200, 503}
        assert {status for at, _, status in answers if at > died + 0.6} == {503}
        assert len(origin.seen) == 1 + sum(status == 200 for *_, status in answers)
        began = time.monotonic()
        status, fields, problem = ask(gateway, "good-first", "/soon")
        assert (status, problem["type"]) == (503, "urn:castlegate:unverifiable")
        assert fields["retry-after"] == "5"
        assert time.monotonic() - began < 0.38, "the route's deadline bounds the question"


@pytest.fixture(scope="module")
def nest(embedded_broker: EmbeddedBroker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    service = start_nest(embedded_broker.bootstrap, tmp_path_factory.mktemp("nest"))
    yield service
    service.program.terminate()


def test_a_nest_service_refuses_with_an_rpc_exception(
    embedded_broker: EmbeddedBroker, nest: Service, origin: Origin, tmp_path: Path
) -> None:
    config = f"""
kafka: {{bootstrap: "{embedded_broker.bootstrap}", inbox: castlegate.nest}}
auth:
  team: {{authorizer: {{call: nest.verify, cookie: session, key: "{{credential}}"}}}}
services: {{nest: {{kafka: nest}}, origin: {{http: ["http://127.0.0.1:{origin.port}"]}}}}
routes: {{"GET /who": {{call: origin, auth: team, headers: {WHO}}}}}
"""
    tokens = {"good-ann": 200, "bad": 401, "forbidden": 401, "nobody": 401, "broken": 503, "good-ben": 200}
    with Gateway(tmp_path, config) as gateway:
        ready(gateway)
        found = {token: ask_with(gateway, f"Cookie: a=b; session={token}") for token in tokens}
        assert {token: status for token, (status, *_) in found.items()} == tokens
        assert "no such token" not in str(found), "the service's words may repeat the credential"
        assert [seen.partition(b"x-who: ")[2].partition(b"\r\n")[0] for seen in origin.seen] == [
            b"ann gold",
            b"ben gold",
        ]
        gateway.program.wait_for_line("auth 'team': credentials cannot be verified: service error .status 500.")


class Judge:
    """An authorizer that speaks HTTP; each test says how it answers."""

    def __init__(self) -> None:
        self.answers: dict[str, bytes] = {}  # by what stands in the request
        self.seen: list[bytes] = []
        self.gate = threading.Event()
        self.gate.set()
        self.origin = Origin(self._answer)

    def _answer(self, connection: socket.socket, request: bytes) -> bool:
        self.seen.append(request)
        self.gate.wait(10)
        text = request.decode("latin-1")
        answer = next(
            (answer for token, answer in self.answers.items() if f'"{token}"' in text or f" {token}\r" in text), None
        )
        connection.sendall(answer or response({"message": "who?"}, "401 Unauthorized"))
        return True


def response(document: Any, status: str = "200 OK", fields: str = "") -> bytes:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\n{fields}content-length: {len(body)}\r\n\r\n"
    return head.encode() + body


@pytest.fixture
def judge() -> Iterator[Judge]:
    judge = Judge()
    with judge.origin:
        yield judge
        judge.gate.set()


Start = Callable[[str], Gateway]


@pytest.fixture
def start(tmp_path: Path, origin: Origin, judge: Judge) -> Iterator[Start]:
    running: list[Gateway] = []

    def start(authorizer: str) -> Gateway:
        running.append(Gateway(tmp_path, f"""
auth: {{team: {{authorizer: {authorizer}}}}}
services:
  judge: {{http: ["http://127.0.0.1:{judge.origin.port}"]}}
  origin: {{http: ["http://127.0.0.1:{origin.port}"]}}
routes: {{"GET /who": {{call: origin, auth: team, headers: {WHO}}}}}
"""))  # fmt: skip
        return running[-1]

    yield start
    for gateway in running:
        gateway.stop()


def test_an_http_service_is_asked_as_the_configuration_says(start: Start, judge: Judge, origin: Origin) -> None:
    judge.answers["good"] = response({"subject": 42, "claims": {"tier": "gold"}})
    gateway = start("{call: judge, post: /verify}")
    assert ask(gateway, "good")[0] == 200
    head, _, body = judge.seen[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /verify HTTP/1.1\r\n")
    assert (json.loads(body), b"authorization" in head) == ({"token": "good"}, False)
    assert b"\r\nx-who: 42 gold\r\n" in origin.seen[0]


def test_the_credential_may_go_in_a_field(start: Start, judge: Judge) -> None:
    judge.answers["good"] = response({"sub": "ann"})
    gateway = start(
        '{call: judge, get: /verify, header: X-Session, headers: {request: {authorization: "Bearer {credential}"}}}'
    )
    assert ask_with(gateway, "X-Session: good")[0] == 200
    assert judge.seen[0].startswith(b"GET /verify HTTP/1.1\r\n")
    assert b"\r\nauthorization: Bearer good\r\n" in judge.seen[0]
    for odd in ("a\tb", "\xff", "a" * 8193):
        assert ask_with(gateway, f"X-Session: {odd}")[0] == 401
    assert len(judge.seen) == 1


def test_a_credential_in_the_path_stays_one_segment(start: Start, judge: Judge, origin: Origin) -> None:
    judge.answers["good"] = response({"sub": "ann"})
    gateway = start('{call: judge, get: "/tokens/{credential}"}')
    for token, target in (("a/../b", b""), ("..", b""), ("a/b?c=d#e", b"/tokens/a%2Fb%3Fc%3Dd%23e")):
        assert ask(gateway, token)[0] == 401
        assert [seen.split(b" ")[1] for seen in judge.seen] == ([target] if target else [])
    assert origin.seen == []


def test_answers_that_are_no_clear_yes_let_nobody_in(start: Start, judge: Judge, origin: Origin) -> None:
    yes = {"subject": "ann"}
    judge.answers = {
        "status": response(yes, "500 Oops"),
        "not-there": response(yes, "404 Not Found"),
        "moved": response(yes, "302 Found", "location: /elsewhere\r\n"),
        "created-nobody": response({}, "201 Created"),
        "nothing": b"HTTP/1.1 204 No Content\r\n\r\n",
        "text": response(b"ok"),
        "true": response(True),
        "list": response([yes]),
        "odd-active": response(yes | {"active": "yes"}),
        "odd-claims": response(yes | {"claims": ["admin"]}),
        "odd-scopes": response(yes | {"scopes": [1]}),
        "odd-ttl": response(yes | {"ttl": "long"}),
        "odd-exp": response(yes | {"exp": 1e300}),
        "odd-subject": response({"subject": True}),
        "large": response(yes | {"pad": "x" * 70_000}),
        "endless": b"HTTP/1.1 200 OK\r\n\r\n" + b'{"subject": "ann", "pad": "' + b"x" * 100_000,
    }
    refusing = {
        "no": response({"active": False, "subject": "ann"}),
        "null": response(None),
        "forbidden": response(yes, "403 Forbidden"),
        "over": response(yes | {"exp": time.time() - 1}),
        "over-within": response(yes | {"claims": {"exp": time.time() - 1}}),
    }
    unsure = list(judge.answers)
    judge.answers |= refusing
    gateway = start("{call: judge, post: /verify, timeout: 1s}")
    assert {token: ask(gateway, token)[0] for token in unsure} == dict.fromkeys(unsure, 503)
    assert {token: ask(gateway, token)[0] for token in refusing} == dict.fromkeys(refusing, 401)
    assert origin.seen == []


def test_an_answer_is_kept_as_long_as_it_allows_and_no_longer_than_the_bound(start: Start, judge: Judge) -> None:
    answers = {
        "silent": (response({"subject": "ann"}), 1),
        "ttl-0": (response({"subject": "ann", "ttl": 0}), 3),
        "ttl-below-0": (response({"subject": "ann", "ttl": -5}), 3),
        "no-store": (response({"subject": "ann", "ttl": 60}, fields="cache-control: private, no-store\r\n"), 3),
        "max-age-0": (response({"subject": "ann"}, fields="cache-control: max-age=0\r\n"), 3),
        "max-age": (response({"subject": "ann"}, fields="cache-control: max-age=60\r\n"), 1),
    }
    judge.answers = {token: answer for token, (answer, _) in answers.items()}
    gateway = start("{call: judge, post: /verify}")
    for token, (_, questions) in answers.items():
        judge.seen.clear()
        assert [ask(gateway, token)[0] for _ in range(3)] == [200] * 3
        assert len(judge.seen) == questions, token


def test_an_http_authorizer_that_dies_opens_nothing_and_is_asked_again_when_it_is_back(
    start: Start, judge: Judge, origin: Origin
) -> None:
    judge.answers["good"] = response({"subject": "ann"})
    gateway = start("{call: judge, post: /verify, timeout: 1s, cache: 200ms}")
    assert ask(gateway, "good")[0] == 200
    judge.origin.accepts = False
    judge.origin.hang_up()
    gateway.program.wait_until(lambda: ask(gateway, "good")[0] == 503, "what was known to be forgotten", 5)
    let_in = len(origin.seen)
    assert {ask(gateway, token)[0] for token in ("good", "bad", "new")} == {503}
    judge.origin.accepts = True
    assert ask(gateway, "good")[0] == 200
    assert len(origin.seen) == let_in + 1


def test_a_reload_does_not_have_everybody_asked_about_again(start: Start, judge: Judge) -> None:
    judge.answers["good"] = response({"subject": "ann"})
    gateway = start("{call: judge, post: /verify}")
    assert ask(gateway, "good")[0] == 200
    gateway.path.write_text(gateway.path.read_text() + "drain: 1s\n")
    gateway.program.send_signal(signal.SIGHUP)
    gateway.program.wait_until(lambda: gateway.workers()[0]["version"] == 2, "the reload")
    assert ask(gateway, "good")[0] == 200
    assert len(judge.seen) == 1
