"""What services get of a credential that was accepted: nothing, unless its scheme says so."""

from base64 import urlsafe_b64encode
from pathlib import Path

import pytest
from click.testing import CliRunner
from tests.testbeds.gateway import Gateway
from tests.testbeds.wire import Client, Origin
from tests.trust.conftest import Start

from castlegate.cli.main import main

CONFIG = """
auth:
  field: {{keys: the.keys}}
  word: {{keys: {{file: the.keys, authorization: Key}}}}
  cookie: {{keys: {{file: the.keys, cookie: session}}}}
  query: {{keys: {{file: the.keys, query: api_key}}}}
  either: {{keys: {{file: the.keys, header: x-key, query: api_key}}}}
  socket: {{keys: {{file: the.keys, subprotocol: castlegate.bearer}}}}
  kept-socket: {{keys: {{file: the.keys, subprotocol: castlegate.bearer, forward: true}}}}
  kept: {{keys: {{file: the.keys, header: x-key, authorization: Key, cookie: session, query: api_key, forward: true}}}}
services: {{origin: {{http: ["http://127.0.0.1:{port}"]}}}}
routes:
  GET /field: {{call: origin, auth: field}}
  GET /word: {{call: origin, auth: word}}
  GET /cookie: {{call: origin, auth: cookie, trusted_origins: []}}
  GET /query: {{call: origin, auth: query}}
  GET /either: {{call: origin, auth: [either, field]}}
  GET /socket: {{call: origin, auth: socket}}
  GET /kept-socket: {{call: origin, auth: kept-socket}}
  GET /kept: {{call: origin, auth: kept}}
  GET /open: {{call: origin, public: true}}
"""


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("keys") / "the.keys"
    done = CliRunner().invoke(main, ["key", "new", str(file), "--owner", "ann"])
    assert done.exit_code == 0, done.output
    (file.parent / "key").write_text(done.stdout.strip())
    return str(file)


@pytest.fixture(scope="module")
def gateway(start_shared: Start, shared_origin: Origin, key: str) -> Gateway:
    return start_shared(CONFIG.format(port=shared_origin.port).replace("the.keys", key))


OFFERED = "sec-websocket-protocol"


def encoded(key: str) -> str:
    return urlsafe_b64encode(key.encode()).rstrip(b"=").decode()


def sent(gateway: Gateway, behind: Origin, target: str, *fields: str) -> tuple[str, list[str]]:
    """Target and fields that the service got."""
    head = "".join(f"{field}\r\n" for field in fields)
    with Client(gateway.port) as client:
        assert client.send(f"GET {target} HTTP/1.1\r\nHost: h\r\n{head}\r\n".encode()).read_answer()[0] == 200
    line, *lines = behind.seen[-1].decode().split("\r\n\r\n")[0].split("\r\n")
    names = ("authorization", "cookie", "x-api-key", "x-key", "x-other", "sec-websocket-protocol")
    return line.split(" ")[1], [each for each in lines if each.startswith(names)]


def test_what_was_accepted_does_not_reach_the_service(gateway: Gateway, behind: Origin, key: str) -> None:
    good = (Path(key).parent / "key").read_text()
    cases: list[tuple[str, list[str], str, list[str]]] = [
        ("/field?a=b", [f"X-API-Key: {good}", "X-Other: 1"], "/field?a=b", ["x-other: 1"]),
        ("/field", [f"X-API-Key: {good}", "Authorization: Basic eA=="], "/field", ["authorization: Basic eA=="]),
        ("/word", [f"Authorization: kEY {good}"], "/word", []),
        ("/cookie", [f"Cookie: a=1; session={good}; b=2"], "/cookie", ["cookie: a=1; b=2"]),
        ("/cookie", [f"Cookie: session={good}", "Cookie: xsession=1"], "/cookie", ["cookie: xsession=1"]),
        ("/cookie", [f"Cookie: session={good}"], "/cookie", []),
        (f"/query?a=%20&api_key={good}&b", [], "/query?a=%20&b", []),
        (f"/query?api%5fkey={good}&api_key={good}", [], "/query", []),
        (f"/either?api_key={good}", [f"X-Key: {good}"], "/either", []),
        ("/either", [f"X-API-Key: {good}"], "/either", []),
        ("/socket", [f"{OFFERED}: castlegate.bearer, {good}, chat.v1,b"], "/socket", [f"{OFFERED}: chat.v1, b"]),
        (
            "/socket",
            [f"{OFFERED}: a", f"{OFFERED}:castlegate.bearer.{encoded(good)}", f"{OFFERED}: castlegate.bearers"],
            "/socket",
            [f"{OFFERED}: a, castlegate.bearers"],
        ),
        ("/socket", [f"{OFFERED}: castlegate.bearer", f"{OFFERED}: {good}"], "/socket", []),
        (
            "/open?api_key=x",
            ["X-API-Key: x", "Cookie: session=x"],
            "/open?api_key=x",
            ["x-api-key: x", "cookie: session=x"],
        ),
    ]
    for target, fields, arrives, left in cases:
        assert sent(gateway, behind, target, *fields) == (arrives, left), target


def test_it_stays_where_the_scheme_says_that_services_verify_it(gateway: Gateway, behind: Origin, key: str) -> None:
    good = (Path(key).parent / "key").read_text()
    for fields in ([f"x-key: {good}"], [f"authorization: Key {good}"], [f"cookie: session={good}; a=b"]):
        assert sent(gateway, behind, "/kept", *fields) == ("/kept", fields)
    offered = [f"{OFFERED}: chat.v1, castlegate.bearer, {good}"]
    assert sent(gateway, behind, "/kept-socket", *offered) == ("/kept-socket", offered)
    assert sent(gateway, behind, f"/kept?api_key={good}") == (f"/kept?api_key={good}", [])


@pytest.mark.parametrize(
    ("target", "fields"),
    [
        ("/cookie", ["Cookie: session={key}; session=x"]),
        ("/cookie", ["Cookie: session=x; session={key}"]),
        ("/cookie", ["Cookie: session={key}", "Cookie: session=x"]),
        ("/query?api_key={key}&api_key=x", []),
        ("/socket", ["Sec-WebSocket-Protocol: castlegate.bearer, {key}, castlegate.bearer, x"]),
        ("/socket", ["Sec-WebSocket-Protocol: castlegate.bearer, {key}, castlegate.bearer.{encoded}"]),
        ("/socket", ["Sec-WebSocket-Protocol: {key}, castlegate.bearer"]),
        ("/socket", ["Sec-WebSocket-Protocol: castlegate.bearer.{encoded}=="]),
        ("/socket", ["Sec-WebSocket-Protocol: castlegate.bearer."]),
        ("/query?api_key=x&api%5Fkey={key}", []),
    ],
)
def test_of_several_credentials_that_differ_none_is_taken(
    gateway: Gateway, behind: Origin, key: str, target: str, fields: list[str]
) -> None:
    good = (Path(key).parent / "key").read_text()
    head = "".join(f"{field}\r\n" for field in fields)
    with Client(gateway.port) as client:
        client.send(f"GET {target} HTTP/1.1\r\nHost: h\r\n{head}\r\n".format(key=good, encoded=encoded(good)).encode())
        status, answered, body = client.read_answer()
    assert status == 401
    assert 'error="invalid_request"' in answered["www-authenticate"]
    assert good.encode() not in body
    assert not behind.seen


def test_the_same_credential_twice_is_one(gateway: Gateway, behind: Origin, key: str) -> None:
    good = (Path(key).parent / "key").read_text()
    assert sent(gateway, behind, "/cookie", f"Cookie: session={good}; a=b; session={good}") == (
        "/cookie",
        ["cookie: a=b"],
    )
    assert sent(gateway, behind, "/cookie", f"Cookie: session=; session={good}") == ("/cookie", [])


def test_another_scheme_of_the_route_may_still_accept_its_own(gateway: Gateway, behind: Origin, key: str) -> None:
    good = (Path(key).parent / "key").read_text()
    target, _ = sent(gateway, behind, "/either?api_key=x&api_key=y", f"X-API-Key: {good}")
    assert target == "/either?api_key=x&api_key=y"
