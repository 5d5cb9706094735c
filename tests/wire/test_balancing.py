"""Several instances of a service behind the gateway: who is asked, and who answers when one cannot."""

import socket
import threading
from collections import Counter
from collections.abc import Iterator

import pytest
from tests.testbeds.gateway import Gateway
from tests.testbeds.processes import free_port
from tests.testbeds.wire import Client, Origin, answer
from tests.wire.conftest import Start

SECRET = "a-secret-of-our-own-0123456789"


def named(name: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n" + name


@pytest.fixture
def origins() -> Iterator[list[Origin]]:
    with Origin(answer(named(b"a"))) as a, Origin(answer(named(b"b"))) as b, Origin(answer(named(b"c"))) as c:
        yield [a, b, c]


def service(origins: list[Origin], balance: str, *, more: str = "") -> str:
    urls = ", ".join(f'"http://127.0.0.1:{origin.port}"' for origin in origins)
    return f"""
services:
  three: {{http: {{instances: [{urls}], balance: {balance}}}}}
defaults: {{public: true}}
routes: {{"ANY /a/{{id}}": {{call: three}}}}
{more}"""


def ask(client: Client, target: str = "/a/x", fields: str = "", method: str = "GET") -> tuple[str, dict[str, str]]:
    """Who answered, and the fields of the answer."""
    status, got, body = client.send(f"{method} {target} HTTP/1.1\r\nHost: h\r\n{fields}\r\n".encode()).read_answer()
    assert status == 200
    return body.decode(), got


def who(gateway: Gateway, times: int, target: str = "/a/x", fields: str = "") -> Counter[str]:
    with Client(gateway.port) as client:
        return Counter(ask(client, target, fields)[0] for _ in range(times))


def test_in_turns(start: Start, origins: list[Origin]) -> None:
    assert who(start(service(origins, "round_robin")), 9) == {"a": 3, "b": 3, "c": 3}


def test_by_weight(start: Start, origins: list[Origin]) -> None:
    a, b, c = (f"http://127.0.0.1:{origin.port}" for origin in origins)
    instances = f"[{a}, {{url: {b}, weight: 3}}, {{url: {c}, weight: 4}}]"
    gateway = start(f"""
services: {{three: {{http: {{instances: {instances}, balance: round_robin}}}}}}
defaults: {{public: true}}
routes: {{"GET /a/x": {{call: three}}}}
""")
    assert who(gateway, 80) == {"a": 10, "b": 30, "c": 40}


def test_one_that_is_busy_with_a_body_is_passed_over_until_it_has_ended(start: Start, origins: list[Origin]) -> None:
    """In flight until the last byte, not the first."""
    ends = threading.Event()

    def slowly(connection: socket.socket, _request: bytes) -> bool:
        connection.sendall(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\ns\r\n")
        ends.wait(10)
        connection.sendall(b"0\r\n\r\n")
        return True

    origins[0].script = slowly
    gateway = start(service(origins[:2], "least_request"))
    with Client(gateway.port) as waiting:
        while b"chunked" not in waiting.send(b"GET /a/x HTTP/1.1\r\nHost: h\r\n\r\n").read_until(b"\r\n\r\n"):
            waiting.read_until(b"b")
        assert who(gateway, 20) == {"b": 20}
        ends.set()
        waiting.read_until(b"0\r\n\r\n")
        assert who(gateway, 60)["s"] > 5


def test_by_a_key_of_the_path_the_same_one_answers(start: Start, origins: list[Origin]) -> None:
    gateway = start(service(origins, '{by: hash, key: "{path.id}"}'))
    with Client(gateway.port) as client:
        first = {number: ask(client, f"/a/{number}")[0] for number in range(60)}
        assert set(first.values()) == {"a", "b", "c"}
        assert {number: ask(client, f"/a/{number}")[0] for number in range(60)} == first


@pytest.mark.parametrize(
    ("key", "fields"),
    [
        ("{header.x-tenant}", "X-Tenant: {}\r\n"),
        ("{cookie.session}", "Cookie: a=b; session={}; c=d\r\n"),
        ("{query.t}", ""),
    ],
)
def test_by_a_key_of_fields_or_query_the_same_one_answers(
    start: Start, origins: list[Origin], key: str, fields: str
) -> None:
    gateway = start(service(origins, f'{{by: hash, key: "{key}"}}'))
    for value in range(20):
        assert len(who(gateway, 4, f"/a/x?t={value}", fields.format(value))) == 1
    assert len(who(gateway, 60, "/a/x")) == 3  # without a key


def test_by_address_one_answers_all_of_a_client(start: Start, origins: list[Origin]) -> None:
    assert len(who(start(service(origins, "{by: hash, key: address}")), 20)) == 1


def test_a_cookie_keeps_a_client_where_it_is(start: Start, origins: list[Origin]) -> None:
    gateway = start(service(origins, f"{{by: round_robin, sticky: {{cookie: at, secret: {SECRET}}}}}"))
    with Client(gateway.port) as client:
        first, fields = ask(client)
        said, *attributes = fields["set-cookie"].split("; ")
        assert attributes == ["Path=/", "HttpOnly", "SameSite=Lax", "Secure"]
        for _ in range(6):
            name, fields = ask(client, fields=f"Cookie: {said}\r\n")
            assert (name, "set-cookie" in fields) == (first, False)
        assert str(origins[0].port) not in said


def test_a_cookie_that_the_gateway_did_not_make_is_worth_nothing(start: Start, origins: list[Origin]) -> None:
    gateway = start(service(origins, f"{{by: round_robin, sticky: {{cookie: at, secret: {SECRET}}}}}"))
    with Client(gateway.port) as client:
        for value in ("127.0.0.1", f"127.0.0.1:{origins[0].port}", "0" * 32):
            asked = [ask(client, fields=f"Cookie: at={value}\r\n") for _ in range(3)]
            assert {name for name, _ in asked} == {"a", "b", "c"}
            assert all("set-cookie" in fields for _, fields in asked)


def test_a_client_whose_instance_is_gone_goes_to_another_and_stays_there(start: Start, origins: list[Origin]) -> None:
    gateway = start(service(origins, f"{{by: round_robin, sticky: {{cookie: at, secret: {SECRET}}}}}"))
    with Client(gateway.port) as client:
        first, fields = ask(client)
        cookie = fields["set-cookie"].split(";")[0]
        gone = origins["abc".index(first)]
        gone.stop_listening()
        gone.hang_up()
        second, fields = ask(client, fields=f"Cookie: {cookie}\r\n")
        assert second != first
        cookie = fields["set-cookie"].split(";")[0]
        assert ask(client, fields=f"Cookie: {cookie}\r\n")[0] == second


def test_the_next_priority_answers_where_none_of_the_first_can_be_reached(start: Start, origins: list[Origin]) -> None:
    a, b, _ = origins
    instances = (
        f"[{{url: 'http://127.0.0.1:{b.port}', priority: 1}}, 'http://127.0.0.1:{a.port}',"
        f" 'http://127.0.0.1:{free_port()}']"
    )
    gateway = start(f"""
services: {{two: {{http: {{instances: {instances}, balance: round_robin}}}}}}
defaults: {{public: true}}
routes: {{"GET /a/x": {{call: two}}}}
""")
    assert who(gateway, 6) == {"a": 6}
    a.stop_listening()
    a.hang_up()
    assert who(gateway, 6) == {"b": 6}


def test_requests_by_instance_are_in_the_metrics(start: Start, origins: list[Origin]) -> None:
    gateway = start(service(origins, "round_robin"))
    who(gateway, 6)
    metrics = gateway.metrics()
    for origin in origins:
        labels = f'{{service="three",address="127.0.0.1:{origin.port}",result="answered"}}'
        assert metrics[f"castlegate_upstream_requests_total{labels}"] == 2
    assert metrics['castlegate_instances{service="three",state="all"}'] == 3
