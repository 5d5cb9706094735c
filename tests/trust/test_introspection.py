"""Opaque tokens, judged by a real authorization server over TLS: a small one, whose answers each test says."""

import base64
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from tests.testbeds.certificates import Authority, serving
from tests.testbeds.gateway import Gateway
from tests.testbeds.wire import Client, Origin

CONFIG = """
auth:
  opaque:
    introspection:
      url: https://localhost:{idp}/introspect?v=1
      client: "gate way"
      secret: "s3cret+/%"
      timeout: 2s
{more}
services: {{origin: {{http: ["http://127.0.0.1:{port}"]}}}}
routes:
  GET /who: {{call: origin, auth: opaque, headers: {{request: {{x-who: "{{principal.subject}} {{claims.scope?}}"}}}}}}
  GET /soon: {{call: origin, auth: opaque, timeout: 200ms}}
"""


class Idp:
    """Answers with what is known of a token, at `/introspect`."""

    def __init__(self, tls: Any) -> None:
        self.tokens: dict[str, Any] = {}  # to a document, or to bytes of a whole response
        self.asked: list[str] = []
        self.heads: list[bytes] = []
        self.gate = threading.Event()  # answers wait for it
        self.gate.set()
        self.origin = Origin(self._answer, tls=tls)

    def _answer(self, connection: socket.socket, request: bytes) -> bool:
        body = request.partition(b"\r\n\r\n")[2]
        [token] = parse_qs(body.decode())["token"]
        self.asked.append(token)
        self.heads.append(request)
        self.gate.wait(10)
        known = self.tokens.get(token, {"active": False})
        answer = known if isinstance(known, bytes) else response(known)
        connection.sendall(answer)
        return True


def response(document: Any, status: str = "200 OK") -> bytes:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin() as origin:
        yield origin


@pytest.fixture
def idp(tmp_path: Path) -> Iterator[Idp]:
    authority = Authority(tmp_path)
    idp = Idp(serving(authority.issue("localhost")))
    with idp.origin:
        yield idp
        idp.gate.set()


Start = Callable[..., Gateway]


@pytest.fixture
def start(tmp_path: Path, origin: Origin, idp: Idp) -> Iterator[Start]:
    running: list[Gateway] = []

    def start(*more: str) -> Gateway:
        tls = [] if any(each.startswith("tls:") for each in more) else ["tls: {ca: authority.pem}"]
        lines = "\n".join(f"      {each}" for each in [*tls, *more])
        running.append(Gateway(tmp_path, CONFIG.format(idp=idp.origin.port, port=origin.port, more=lines)))
        return running[-1]

    yield start
    for gateway in running:
        gateway.stop()


def ask(gateway: Gateway, token: str, path: str = "/who") -> tuple[int, dict[str, str], dict[str, Any]]:
    with Client(gateway.port) as client:
        client.send(f"GET {path} HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {token}\r\n\r\n".encode())
        status, fields, body = client.read_answer()
        return status, fields, {} if status == 200 else json.loads(body)


def test_an_active_token_is_whose_the_server_says_and_is_asked_about_once(
    start: Start, idp: Idp, origin: Origin
) -> None:
    gateway = start()
    idp.tokens["good"] = {"active": True, "sub": "ann", "scope": "a b", "exp": time.time() + 100}
    assert [ask(gateway, "good")[0] for _ in range(5)] == [200] * 5
    assert idp.asked == ["good"]
    assert all(b"\r\nx-who: ann a b\r\n" in seen for seen in origin.seen)
    head = idp.heads[0]
    assert head.startswith(b"POST /introspect?v=1 HTTP/1.1\r\n")
    basic = base64.b64encode(b"gate+way:s3cret%2B%2F%25")
    assert b"\r\nauthorization: Basic " + basic + b"\r\n" in head


def test_authorities_are_replaced_without_a_restart(start: Start, idp: Idp, tmp_path: Path) -> None:
    idp.tokens["good"] = {"active": True, "sub": "ann"}
    new = Authority(tmp_path, "new")
    idp.origin.tls = serving(new.issue("localhost"))
    gateway = start("tls: {ca: authority.pem, watch: 100ms}")
    assert ask(gateway, "good")[0] == 503
    new.file.replace(tmp_path / "authority.pem")
    gateway.program.wait_for_line("new certificates of 'auth.opaque.introspection.tls' are used")
    assert ask(gateway, "good")[0] == 200


def test_the_secret_may_go_in_the_form(start: Start, idp: Idp) -> None:
    gateway = start("method: post")
    idp.tokens["good"] = {"active": True, "client_id": "batch"}
    assert ask(gateway, "good")[0] == 200
    head, _, body = idp.heads[0].partition(b"\r\n\r\n")
    assert b"authorization" not in head
    assert parse_qs(body.decode()) == {"client_id": ["gate way"], "client_secret": ["s3cret+/%"], "token": ["good"]}


def test_an_inactive_token_is_refused_and_not_asked_about_again_at_once(start: Start, idp: Idp, origin: Origin) -> None:
    gateway = start()
    for _ in range(3):
        status, fields, problem = ask(gateway, "bad")
        assert (status, problem["detail"]) == (401, "The credential is not accepted.")
        assert fields["www-authenticate"].startswith('Bearer realm="opaque", error="invalid_token"')
    assert idp.asked == ["bad"]
    assert origin.seen == []


def test_nobody_is_asked_about_what_cannot_be_a_token(start: Start, idp: Idp) -> None:
    gateway = start()
    for token in ("a b", "a,b", "a%20b", "ü", '"a"', "a&token=good", "=", "A" * 8193):
        assert ask(gateway, token)[0] == 401, token
    assert idp.asked == []


def test_a_token_for_somebody_else_is_refused(start: Start, idp: Idp) -> None:
    gateway = start("issuer: https://idp.example.com", "audience: api")
    right = {"active": True, "sub": "ann", "iss": "https://idp.example.com", "aud": "api"}
    idp.tokens |= {
        "right": right,
        "among": right | {"aud": ["other", "api"]},
        "audience": right | {"aud": "api2"},
        "audiences": right | {"aud": ["apis"]},
        "no-audience": {name: value for name, value in right.items() if name != "aud"},
        "issuer": right | {"iss": "https://idp.example.com/"},
    }
    assert {token: ask(gateway, token)[0] for token in idp.tokens} == {
        "right": 200, "among": 200, "audience": 401, "audiences": 401, "no-audience": 401, "issuer": 401,
    }  # fmt: skip


def test_an_answer_that_makes_no_sense_lets_nobody_in(start: Start, idp: Idp, origin: Origin) -> None:
    gateway = start("cache: {refused: 0s}")
    good = {"active": True, "sub": "ann"}
    idp.tokens |= {
        "status": response(good, "500 Oops"),
        "ours": response({"error": "invalid_client"}, "401 Unauthorized"),
        "moved": b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n",
        "empty": response(b""),
        "text": response(b"active"),
        "cut": response(b'{"active": true, "sub": "ann"'),
        "list": [good],
        "null": None,
        "no-active": {"sub": "ann"},
        "text-active": good | {"active": "true"},
        "number-active": good | {"active": 1},
        "nobody": {"active": True},
        "null-subject": good | {"sub": None},
        "list-subject": good | {"sub": ["ann"]},
        "no-text": good | {"sub": ""},
        "scopes": good | {"scope": {"admin": True}},
        "expiry": good | {"exp": "never"},
        "large": good | {"pad": "x" * 70_000},
        "deep": response(b"[" * 30_000),
        "no-http": b"active\r\n\r\n",
        "http-length": b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n",
    }
    for token in idp.tokens:
        status, fields, problem = ask(gateway, token)
        assert (status, problem["type"]) == (503, "urn:castlegate:unverifiable"), token
        assert int(fields["retry-after"]) > 0
    idp.tokens["over"] = good | {"exp": time.time() - 1}
    assert ask(gateway, "over")[0] == 401
    assert origin.seen == []


def test_an_acceptance_ends_with_the_token(start: Start, idp: Idp) -> None:
    gateway = start("cache: 60s")
    idp.tokens["short"] = {"active": True, "sub": "ann", "exp": time.time() + 1}
    assert ask(gateway, "short")[0] == 200
    gateway.program.wait_until(lambda: ask(gateway, "short")[0] == 401, "its end", 5)
    assert len(idp.asked) == 2


def test_many_with_the_same_token_are_one_question_and_none_is_lost_when_one_leaves(start: Start, idp: Idp) -> None:
    gateway = start()
    idp.tokens["good"] = {"active": True, "sub": "ann"}
    idp.gate.clear()
    clients = [Client(gateway.port) for _ in range(20)]
    for client in clients:
        client.send(b"GET /who HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer good\r\n\r\n")
    gateway.program.wait_until(lambda: len(idp.asked) == 1, "the question")
    clients[0].socket.close()  # who asked first
    gateway.program.wait_until(lambda: gateway.metrics()["castlegate_connections"] == 19, "the first to be gone")
    idp.gate.set()
    assert [client.read_answer()[0] for client in clients[1:]] == [200] * 19
    assert idp.asked == ["good"]
    for client in clients:
        client.socket.close()


def test_questions_at_once_are_bounded_and_routes_do_not_wait_longer_than_they_may(start: Start, idp: Idp) -> None:
    gateway = start("questions: 2")
    idp.gate.clear()
    with Client(gateway.port) as first, Client(gateway.port) as second:
        for client, token in ((first, b"one"), (second, b"two")):
            client.send(b"GET /soon HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer %b\r\n\r\n" % token)
        gateway.program.wait_until(lambda: len(idp.asked) == 2, "two questions")
        assert ask(gateway, "three")[0] == 503
        began = time.monotonic()
        assert [first.read_answer()[0], second.read_answer()[0]] == [503, 503]
        assert time.monotonic() - began < 1.5  # the question itself may take 2 s
    assert gateway.metrics()['castlegate_auth_questions_total{scheme="opaque",result="full"}'] == 1
    assert sorted(idp.asked) == ["one", "two"]


def test_when_the_server_dies_under_load_nothing_opens_and_it_is_asked_again_when_it_is_back(
    start: Start, idp: Idp, origin: Origin
) -> None:
    gateway = start("cache: {accepted: 500ms, refused: 200ms}")
    idp.tokens |= {f"good-{n}": {"active": True, "sub": f"user-{n}"} for n in range(20)}
    stop = threading.Event()
    answers: list[tuple[float, str, int]] = []

    def load(number: int) -> None:
        turn = 0
        while not stop.is_set():
            turn += 1
            token = f"good-{(number + turn) % 20}" if turn % 2 else f"bad-{turn % 30}"
            answers.append((time.monotonic(), token, ask(gateway, token)[0]))

    threads = [threading.Thread(target=load, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    try:
        gateway.program.wait_until(lambda: len(answers) > 100, "load")
        idp.origin.accepts = False
        idp.origin.hang_up()
        died = time.monotonic()
        gateway.program.wait_until(lambda: time.monotonic() > died + 1.5, "everything that was known to be forgotten")
        back = time.monotonic()
        idp.origin.accepts = True
        gateway.program.wait_until(
            lambda: any(at > back and status == 200 for at, _, status in list(answers)), "the first to be let in again"
        )
    finally:
        stop.set()
        for thread in threads:
            thread.join(10)
    assert {status for _, token, status in answers if token.startswith("bad")} == {401, 503}
    assert {status for _, token, status in answers if token.startswith("good")} == {200, 503}
    assert {status for at, _, status in answers if died + 0.8 < at < back - 0.2} == {503}
    assert len(origin.seen) == sum(status == 200 for *_, status in answers)


def test_neither_tokens_nor_the_secret_are_written_anywhere(start: Start, idp: Idp) -> None:
    gateway = start("query: access")
    idp.tokens["se.cret-token-that-fails"] = response(
        {"error": "se.cret-token-that-fails"}, "500 se.cret-token-that-fails"
    )
    for path in ("/who?access=se.cret-token-that-fails", "/who?access=se.cret-token-that-is-bad"):
        with Client(gateway.port) as client:
            answer = client.send(f"GET {path} HTTP/1.1\r\nHost: h\r\n\r\n".encode()).read_answer()
            assert answer[0] in (401, 503)
            assert b"se.cret" not in answer[2].replace(b"/who", b"")
            assert "se.cret" not in str(answer[1])
    gateway.program.wait_for_line(r"auth 'opaque': credentials cannot be verified: .* status 500")
    gateway.wait_logged(2)
    assert gateway.program.log is not None
    for text in (gateway.program.log.read_text(), gateway.access_log.read_text(), gateway.metrics_text("text/plain")):
        assert "se.cret" not in text
        assert "s3cret" not in text
