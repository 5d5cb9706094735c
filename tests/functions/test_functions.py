"""Functions in Python behind routes, through a real gateway: what they get, what they answer, what they call."""

import json
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tests.testbeds.gateway import Gateway
from tests.testbeds.wire import Client, Origin

from castlegate.cli.main import main

SHOP = Path(__file__).parent / "shop.py"
CONFIG = """
services:
  users: {{http: ["http://127.0.0.1:{users}"]}}
  stock: {{http: ["http://127.0.0.1:{stock}"], identity: {{headers: {{x-user: "{{principal.subject}}"}}}}}}
auth: {{keys: {{keys: {{file: shop.keys}}}}}}
defaults: {{public: true, timeout: 5s}}
python: {{threads: 1, queued: 1}}
policies:
  own: {{python: "shop:own"}}
  facts: {{python: "shop:all_facts"}}
  broken: {{python: "shop:broken"}}
  truthy: {{python: "shop:truthy"}}
  slow: {{python: "shop:slow", timeout: 200ms}}
routes:
  POST /inputs/{{number}}: {{call: "python:shop:inputs"}}
  POST /sent/{{number}}: {{call: "python:shop:inputs", send: {{item: "{{query.item}}"}}}}
  GET /tags: {{call: "python:shop:tags"}}
  GET /nothing: {{call: "python:shop:nothing"}}
  GET /accepted: {{call: "python:shop:tags", status: 202, headers: {{response: {{x-more: "1"}}}}}}
  GET /made: {{call: "python:shop:made"}}
  GET /text: {{call: "python:shop:text"}}
  GET /splits: {{call: "python:shop:splits"}}
  GET /refuses: {{call: "python:shop:refuses"}}
  GET /fails: {{call: "python:shop:fails"}}
  GET /ends: {{call: "python:shop:ends"}}
  GET /stops: {{call: "python:shop:stops"}}
  GET /waits-like-a-thread: {{call: "python:shop:waits_like_a_thread"}}
  GET /has-no-time: {{call: "python:shop:has_no_time"}}
  GET /sets-twice: {{call: "python:shop:sets_twice"}}
  GET /leaves-a-call: {{call: "python:shop:leaves_a_call", timeout: 10m}}
  GET /odd: {{call: "python:shop:odd"}}
  GET /waits: {{call: "python:shop:waits"}}
  GET /waits-short: {{call: "python:shop:waits", timeout: 300ms}}
  GET /stubborn: {{call: "python:shop:stubborn", timeout: 300ms}}
  GET /blocks: {{call: "python:shop:blocks"}}
  GET /blocks-short: {{call: "python:shop:blocks", timeout: 300ms}}
  GET /blocks-ends: {{call: "python:shop:blocks_and_fails"}}
  GET /blocks-calls: {{call: "python:shop:blocks_and_calls"}}
  GET /blocks-hangs: {{call: "python:shop:blocks_and_hangs", timeout: 300ms}}
  GET /page/{{user}}: {{call: "python:shop:page", auth: keys, public: false}}
  GET /way-out: {{call: "python:shop:way_out"}}
  GET /forges: {{call: "python:shop:forges"}}
  GET /unknown: {{call: "python:shop:unknown"}}
  GET /passes-on: {{call: "python:shop:passes_on"}}
  GET /catches: {{call: "python:shop:catches"}}
  GET /hopeless: {{call: "python:shop:hopeless"}}
  GET /hangs: {{call: "python:shop:hangs", timeout: 300ms}}
  GET /gone: {{call: "python:shop:hangs"}}
  GET /expects: {{call: "python:shop:expects"}}
  GET /own/{{user}}: {{call: "python:shop:nothing", auth: keys, public: false, policy: own}}
  GET /facts/{{user}}: {{call: "python:shop:nothing", policy: facts}}
  GET /broken: {{call: "python:shop:nothing", policy: broken}}
  GET /truthy: {{call: "python:shop:nothing", policy: truthy}}
  GET /slow: {{call: "python:shop:nothing", policy: slow}}
"""


def json_answer(body: bytes, status: int = 200) -> bytes:
    fields = f"content-type: application/json\r\ncontent-length: {len(body)}\r\nconnection: close"
    return f"HTTP/1.1 {status} X\r\n{fields}\r\n\r\n".encode() + body


def users(connection: socket.socket, request: bytes) -> bool:
    target = request.split(b" ")[1]
    if target == b"/missing":
        connection.sendall(json_answer(b'{"no": "such user"}', 404))
    elif target != b"/hangs":
        connection.sendall(json_answer(b'{"name": "Ann"}'))
    return target == b"/hangs"


def stock(connection: socket.socket, _request: bytes) -> bool:
    connection.sendall(json_answer(b"[3]"))
    return False


class Bed:
    """The gateway with its services and the key of `ann`."""

    def __init__(self, gateway: Gateway, users: Origin, stock: Origin, key: str) -> None:
        self.gateway, self.users, self.stock, self.key = gateway, users, stock, key

    def ask(
        self, path: str, *, method: str = "GET", body: bytes = b"", fields: str = ""
    ) -> tuple[int, dict[str, str], Any]:
        length = f"Content-Length: {len(body)}\r\n" if body else ""
        with Client(self.gateway.port) as client:
            client.send(f"{method} {path} HTTP/1.1\r\nHost: h\r\n{fields}{length}\r\n".encode() + body)
            status, headers, answer = client.read_answer()
        is_json = "json" in headers.get("content-type", "")
        return status, headers, json.loads(answer) if is_json else answer

    @property
    def credential(self) -> str:
        return f"X-Api-Key: {self.key}\r\n"


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    folder = tmp_path_factory.mktemp("functions")
    shutil.copy(SHOP, folder)
    made = CliRunner().invoke(main, ["key", "new", str(folder / "shop.keys"), "--owner", "ann"])
    assert made.exit_code == 0, made.output
    with (
        Origin(users) as people,
        Origin(stock) as counter,
        Gateway(folder, CONFIG.format(users=people.port, stock=counter.port)) as gateway,
    ):
        yield Bed(gateway, people, counter, made.stdout.split()[0])


def test_a_function_gets_what_its_parameters_name(bed: Bed) -> None:
    body = b'{"item": "tea", "count": 2}'
    target = "/inputs/7?page=3&tags=a&tags=b"
    status, headers, told = bed.ask(target, method="POST", body=body, fields="x-tenant: blue\r\n")
    assert status == 200
    assert told == {
        "number": 7, "item": "tea", "count": 2, "tenant": "blue", "page": 3, "tags": ["a", "b"], "who": None,
        "method": "POST", "path": "/inputs/7", "id": headers["x-request-id"], "left": True, "client": "127.0.0.1",
    }  # fmt: skip


def test_all_mistakes_of_a_request_are_told_at_once(bed: Bed) -> None:
    status, headers, problem = bed.ask("/inputs/x?page=y&page=z", method="POST", body=b'{"item": "", "count": 0}')
    assert (status, headers["content-type"]) == (400, "application/problem+json")
    assert problem["type"] == "urn:castlegate:invalid"
    where = [(each["in"], each["pointer"]) for each in problem["errors"]]
    assert where == [
        ("path", "/number"), ("body", "/item"), ("body", "/count"), ("header", "/x-tenant"), ("query", "/page"),
    ]  # fmt: skip


def test_mistakes_of_items_have_their_places(bed: Bed) -> None:
    _, _, problem = bed.ask("/tags?tags=1&tags=x")
    assert [(each["in"], each["pointer"]) for each in problem["errors"]] == [("query", "/tags/1")]
    assert bed.ask("/tags")[2]["errors"] == [{"in": "query", "pointer": "/tags", "detail": "it is missing"}]
    assert bed.ask("/tags?tags=1&tags=2")[2] == [1, 2]


def test_a_body_that_is_no_json_is_refused(bed: Bed) -> None:
    status, _, problem = bed.ask("/inputs/1", method="POST", body=b"{", fields="x-tenant: a\r\n")
    assert (status, problem["type"]) == (400, "urn:castlegate:bad_input")
    _, _, problem = bed.ask("/inputs/1", method="POST", fields="x-tenant: a\r\n")
    assert problem["errors"] == [{"in": "body", "pointer": "", "detail": "it is missing"}]


def test_a_route_can_make_the_body(bed: Bed) -> None:
    _, _, told = bed.ask("/sent/1?item=tea", method="POST", body=b"no matter", fields="x-tenant: a\r\n")
    assert (told["item"], told["count"]) == ("tea", 1)


def test_answers_are_data_or_responses(bed: Bed) -> None:
    assert bed.ask("/nothing")[0] == 204
    status, headers, body = bed.ask("/made")
    assert (status, headers["location"], headers["content-type"], body) == (
        201,
        "/orders/7",
        "application/json",
        {"id": 7},
    )
    status, headers, body = bed.ask("/text")
    assert (status, headers["content-type"], body.decode()) == (200, "text/plain; charset=utf-8", "žluť")
    status, headers, _ = bed.ask("/accepted?tags=1")
    assert (status, headers["x-more"]) == (202, "1")


def test_a_problem_that_a_function_raises_is_the_answer(bed: Bed) -> None:
    status, headers, problem = bed.ask("/refuses")
    assert (status, headers["content-type"]) == (409, "application/problem+json")
    assert (problem["detail"], problem["outcome"]) == ("It is sold out.", "answered")


@pytest.mark.parametrize(("path", "told"), [
    ("/fails", "KeyError: 'a secret of the shop'"), ("/ends", "SystemExit(3)"), ("/odd", "TypeError"),
    ("/stops", "shop.Stop: far away"), ("/waits-like-a-thread", "RuntimeError: an 'async def' does not wait like this"),
    ("/sets-twice", "ValueError: the field content-type is set twice"),
    ("/splits", "ValueError"), ("/blocks-ends", "SystemExit(4)"), ("/forges", "ValueError: not a field that a function can set: 'Traceparent'"),
    ("/unknown", "no service is called 'nobody'"),
])  # fmt: skip
def test_what_a_function_raises_is_told_in_the_log_alone(bed: Bed, path: str, told: str) -> None:
    status, headers, problem = bed.ask(path)
    assert (status, problem["type"]) == (500, "urn:castlegate:function_failed")
    assert set(problem) == {"type", "title", "status", "detail", "instance", "request_id", "outcome"}
    assert "secret" not in json.dumps(problem)
    assert "set-cookie" not in headers
    bed.gateway.program.wait_for_line(told.replace("(", r"\(").replace(")", r"\)"))


def test_the_deadline_ends_a_function(bed: Bed) -> None:
    status, _, problem = bed.ask("/waits-short")
    assert (status, problem["outcome"]) == (504, "unknown")
    bed.gateway.program.wait_for_line("shop: it was cancelled")
    status, _, problem = bed.ask("/stubborn")
    assert (status, problem["outcome"]) == (504, "unknown")
    status, _, problem = bed.ask("/hangs")
    assert (status, problem["outcome"]) == (504, "unknown")


def count(bed: Bed, function: str, result: str) -> float:
    return bed.gateway.metrics().get(
        f'castlegate_function_calls_total{{function="shop:{function}",result="{result}"}}', 0
    )


def test_a_client_that_leaves_ends_a_function_and_its_calls(bed: Bed) -> None:
    before, seen = count(bed, "hangs", "client_gone"), len(bed.users.seen)
    with Client(bed.gateway.port) as client:
        client.send(b"GET /gone HTTP/1.1\r\nHost: h\r\n\r\n")
        bed.gateway.program.wait_until(lambda: len(bed.users.seen) > seen, "the function's call")
    bed.gateway.program.wait_until(lambda: count(bed, "hangs", "client_gone") == before + 1, "its end")
    bed.gateway.program.wait_until(lambda: calls_under_way(bed) == 0, "its call to be given up")


def calls_under_way(bed: Bed) -> float:
    return bed.gateway.metrics()['castlegate_upstream_connections{service="users",state="busy"}']


def test_calls_end_with_the_function_that_began_them(bed: Bed) -> None:
    assert bed.ask("/leaves-a-call")[0] == 404
    bed.gateway.program.wait_until(lambda: calls_under_way(bed) == 0, "the other call to be given up")


def test_what_hangs_is_counted_although_its_function_has_no_more_time(bed: Bed) -> None:
    name = (
        f'castlegate_upstream_requests_total{{service="users",address="127.0.0.1:{bed.users.port}",result="timeout"}}'
    )
    before = bed.gateway.metrics().get(name, 0)
    status, _, problem = bed.ask("/hangs")
    assert (status, problem["outcome"]) == (504, "unknown")
    assert bed.gateway.metrics().get(name, 0) == before + 1


def test_blocking_functions_have_threads_a_queue_and_an_end(bed: Bed) -> None:
    with Client(bed.gateway.port) as one, Client(bed.gateway.port) as two:
        request = b"GET /blocks?seconds=0.7 HTTP/1.1\r\nHost: h\r\n\r\n"
        one.send(request)
        two.send(request)
        bed.gateway.program.wait_until(lambda: metric(bed, "queued") == 1, "one that waits")
        status, headers, problem = bed.ask("/blocks?seconds=0")
        assert (status, problem["type"], problem["outcome"]) == (503, "urn:castlegate:function_busy", "not_sent")
        assert headers["retry-after"] == "1"
        assert bed.ask("/nothing")[0] == 204  # others are not held up
        assert one.read_answer()[2] == two.read_answer()[2] == b'"done"'


def test_a_blocking_function_that_never_began_was_not_sent(bed: Bed) -> None:
    with Client(bed.gateway.port) as one:
        one.send(b"GET /blocks?seconds=1 HTTP/1.1\r\nHost: h\r\n\r\n")
        bed.gateway.program.wait_until(lambda: metric(bed, "busy") == 1, "one that runs")
        status, _, problem = bed.ask("/blocks-short?seconds=0")
        assert (status, problem["outcome"]) == (504, "not_sent")
        assert one.read_answer()[0] == 200
    status, _, problem = bed.ask("/blocks-short?seconds=0.5")
    assert (status, problem["outcome"]) == (504, "unknown")


def test_a_function_calls_services_with_identity_trace_and_deadline(bed: Bed) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    before = len(bed.users.seen), len(bed.stock.seen)
    fields = f"{bed.credential}Cookie: private\r\n"
    status, headers, told = bed.ask("/page/a%2Fb%3Fc", fields=fields)
    assert (status, told) == (
        200, {"user": {"name": "Ann"}, "stock": [3], "status": 200, "kind": "application/json"},
    )  # fmt: skip
    asked, deleted = bed.users.seen[before[0] :]
    counted = bed.stock.seen[before[1]]
    assert asked.startswith(b"GET /users/a%2Fb%3Fc?of=a%2Fb%3Fc HTTP/1.1\r\n")
    assert deleted.startswith(b"DELETE /carts/1 HTTP/1.1\r\n")
    assert b"\r\nx-reason: test\r\n" in deleted
    assert b"\r\nx-user: ann\r\n" in counted
    assert b"\r\ncontent-type: application/json\r\n" in counted
    assert counted.endswith(b'{"of":"a/b?c"}')
    ids = {seen.split(b"x-request-id: ")[1].split(b"\r\n")[0] for seen in (asked, deleted, counted)}
    assert ids == {headers["x-request-id"].encode()}
    assert len({seen.split(b"traceparent: ")[1][:35] for seen in (asked, deleted, counted)}) == 1
    assert b"cookie" not in asked
    assert trace.encode() not in asked


def test_no_value_leaves_its_place_in_a_path(bed: Bed) -> None:
    seen = len(bed.users.seen)
    assert bed.ask("/way-out")[0] in (200, 400)
    assert all(b"/users/..%2Fadmin " in each for each in bed.users.seen[seen:])


def test_a_status_of_a_service_can_be_caught_or_passed_on(bed: Bed) -> None:
    status, _, problem = bed.ask("/passes-on")
    assert (status, problem["detail"], problem["outcome"]) == (404, "A service answered with status 404.", "answered")
    assert bed.ask("/catches")[2] == {"failed": 404}


def test_a_call_has_a_timeout_of_its_own(bed: Bed) -> None:
    begin = time.monotonic()
    assert bed.ask("/hopeless")[0] == 504
    assert time.monotonic() - begin < 4


@pytest.mark.parametrize("seconds", ["-1", "0", "nan"])
def test_a_call_without_time_is_not_made(bed: Bed, seconds: str) -> None:
    seen = len(bed.users.seen)
    status, _, problem = bed.ask(f"/has-no-time?seconds={seconds}")
    assert (status, problem["type"]) == (500, "urn:castlegate:function_failed")
    assert len(bed.users.seen) == seen


def test_an_answer_of_another_shape_is_a_bad_one(bed: Bed) -> None:
    status, _, problem = bed.ask("/expects")
    assert (status, problem["type"]) == (502, "urn:castlegate:bad_answer")


def test_a_blocking_function_calls_services_too(bed: Bed) -> None:
    assert bed.ask("/blocks-calls")[2] == {"name": "Ann"}


def test_a_call_that_a_blocking_function_waits_for_ends_with_the_request(bed: Bed) -> None:
    assert bed.ask("/blocks-hangs")[0] == 504
    bed.gateway.program.wait_until(lambda: metric(bed, "busy") == 0, "the thread to be free")


def metric(bed: Bed, state: str) -> float:
    return bed.gateway.metrics()[f'castlegate_function_threads{{state="{state}"}}']


def test_a_function_that_never_returns_holds_up_no_exit(tmp_path: Path) -> None:
    (tmp_path / "stuck.py").write_text("import time\n\ndef ever() -> None:\n    time.sleep(60)\n")
    config = 'drain: 100ms\nroutes: {GET /: {call: "python:stuck:ever", public: true, timeout: 200ms}}'
    with Gateway(tmp_path, config) as gateway:
        with Client(gateway.port) as client:
            assert client.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").read_answer()[0] == 504
        begin = time.monotonic()
        assert gateway.stop() == 0
        assert time.monotonic() - begin < 30


def test_a_policy_in_python_allows_and_refuses(bed: Bed) -> None:
    assert bed.ask("/own/ann", fields=bed.credential)[0] == 204
    status, _, problem = bed.ask("/own/bob", fields=bed.credential)
    assert (status, problem["type"]) == (403, "urn:castlegate:forbidden")
    assert bed.ask("/own/ann")[0] == 401


def test_a_policy_in_python_knows_the_facts(bed: Bed) -> None:
    assert bed.ask("/facts/ann?a=1&a=2", fields="X-Flag: yes\r\n")[0] == 204
    assert bed.ask("/facts/ann?a=2", fields="X-Flag: yes\r\n")[0] == 403


@pytest.mark.parametrize("path", ["/broken", "/truthy", "/slow"])
def test_a_policy_that_fails_refuses(bed: Bed, path: str) -> None:
    name = f'castlegate_denied_total{{route="GET {path}",by="policy {path[1:]}",because="undecided"}}'
    before = bed.gateway.metrics()[name]
    status, _, problem = bed.ask(path)
    assert (status, problem["type"]) == (403, "urn:castlegate:forbidden")
    assert bed.gateway.metrics()[name] == before + 1
