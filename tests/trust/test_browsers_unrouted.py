"""Answers that no route makes: `defaults` say which pages may read them, and what browsers are told."""

from pathlib import Path

import pytest
from tests.testbeds.gateway import Gateway
from tests.testbeds.wire import Client, Origin
from tests.wire.conftest import Start

APP = b"https://app.example.com"
PAGE = b"Origin: https://app.example.com\r\n"
PREFLIGHT = PAGE + b"Access-Control-Request-Method: DELETE\r\nAccess-Control-Request-Headers: authorization\r\n"


def config(origin: Origin, said: str) -> str:
    return f"""
listen: {{address: "127.0.0.1:0", limits: {{header_size: 2KiB, uri: 1KiB}}, timeouts: {{header: 300ms}}}}
services: {{origin: {{http: ["http://127.0.0.1:{origin.port}"]}}}}
defaults: {{public: true{said}}}
routes:
  GET /data: {{call: origin, limits: {{body: 10B}}}}
  GET /bare: {{call: origin, cors: [], secure: {{enabled: false}}}}
"""


@pytest.fixture(scope="module")
def gateway(start_shared: Start, shared_origin: Origin) -> Gateway:
    return start_shared(
        config(shared_origin, f", secure: true, cors: {{origins: [{APP.decode()}], credentials: true}}")
    )


def ask(gateway: Gateway, message: bytes) -> tuple[int, dict[str, str]]:
    with Client(gateway.port) as client:
        status, fields, _ = client.send(message).read_answer()
        return status, fields


HOST = b" HTTP/1.1\r\nHost: h\r\n"
UNROUTED = {
    "no such path": (404, b"GET /nothing" + HOST + PAGE + b"\r\n"),
    "no such method": (405, b"DELETE /data" + HOST + PAGE + b"\r\n"),
    "an ambiguous path": (400, b"GET /a%2F..%5C" + HOST + PAGE + b"\r\n"),
    "a malformed head": (400, b"GET /data HTTP/1.1\r\nHost: h\r\nno field\r\n" + PAGE + b"\r\n"),
    "no host": (400, b"GET /data HTTP/1.1\r\n" + PAGE + b"\r\n"),
    "a long target": (414, b"GET /" + b"x" * 1100 + HOST + PAGE + b"\r\n"),
    "a long head": (431, b"GET /data" + HOST + PAGE + b"X-Pad: " + b"x" * 2100 + b"\r\n\r\n"),
    "a head that is not complete": (408, b"GET /data" + HOST + PAGE),
    "a version that is not spoken": (505, b"GET /data HTTP/2.0\r\nHost: h\r\n" + PAGE + b"\r\n"),
}


@pytest.mark.parametrize("name", UNROUTED)
def test_a_page_may_read_what_no_route_answers(gateway: Gateway, name: str) -> None:
    status, message = UNROUTED[name]
    found, fields = ask(gateway, message)
    assert found == status
    assert fields["access-control-allow-origin"] == APP.decode()
    assert fields["access-control-allow-credentials"] == "true"
    assert fields["vary"] == "origin"
    assert fields["x-content-type-options"] == "nosniff"
    assert fields["content-security-policy"].startswith("default-src 'none'")


@pytest.mark.parametrize("name", UNROUTED)
def test_a_page_of_others_may_not(gateway: Gateway, name: str) -> None:
    status, message = UNROUTED[name]
    found, fields = ask(gateway, message.replace(APP, b"https://evil.example"))
    assert (found, fields["vary"]) == (status, "origin")
    assert "access-control-allow-origin" not in fields


def test_with_two_origins_nobody_is_believed(gateway: Gateway) -> None:
    status, fields = ask(gateway, b"GET /data HTTP/1.1\r\nno field\r\n" + PAGE * 2 + b"\r\n")
    assert status == 400
    assert "access-control-allow-origin" not in fields


def test_the_origin_of_a_request_before_on_the_connection_is_forgotten(gateway: Gateway) -> None:
    with Client(gateway.port) as client:
        client.send(b"GET /nothing" + HOST + PAGE + b"\r\n" + b"GET /data HTTP/1.1\r\nno field\r\n\r\n")
        assert client.read_answer()[1]["access-control-allow-origin"] == APP.decode()
        status, fields, _ = client.read_answer()
    assert status == 400
    assert "access-control-allow-origin" not in fields


@pytest.mark.parametrize("path", [b"/nothing", b"/data"])
def test_a_page_that_must_ask_first_may_ask_for_what_no_route_answers(gateway: Gateway, path: bytes) -> None:
    status, fields = ask(gateway, b"OPTIONS " + path + HOST + PREFLIGHT + b"\r\n")
    assert status == 204
    assert fields["access-control-allow-origin"] == APP.decode()
    assert fields["access-control-allow-methods"] == "DELETE"


def test_a_route_that_takes_them_away_stays_without(gateway: Gateway, shared_origin: Origin) -> None:
    status, fields = ask(gateway, b"GET /bare" + HOST + PAGE + b"Content-Length: 99999999\r\n\r\n")
    assert status == 413
    assert not {"access-control-allow-origin", "x-content-type-options"} & fields.keys()


def test_without_defaults_nothing_is_added_and_a_reload_changes_that(tmp_path: Path, origin: Origin) -> None:
    message = UNROUTED["no such path"][1]
    with Gateway(tmp_path, config(origin, "")) as gateway:
        assert not {"access-control-allow-origin", "vary", "x-content-type-options"} & ask(gateway, message)[1].keys()
        assert ask(gateway, b"OPTIONS /nothing" + HOST + PREFLIGHT + b"\r\n")[0] == 404
        gateway.rewrite(config(origin, ", cors: ['*']"))
        gateway.program.send_signal(1)
        gateway.program.wait_until(lambda: gateway.workers()[0]["version"] == 2, "the reload")
        assert ask(gateway, message)[1]["access-control-allow-origin"] == "*"
