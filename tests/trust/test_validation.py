"""Requests of another shape than the route says."""

import json
import time
from typing import Any

import pytest
from tests.testbeds.gateway import Gateway
from tests.testbeds.wire import Client, Origin
from tests.wire.conftest import Start

pytestmark = pytest.mark.usefixtures("behind")


@pytest.fixture(scope="module")
def gateway(start_shared: Start, shared_origin: Origin) -> Gateway:
    return start_shared(f"""
services: {{origin: {{http: ["http://127.0.0.1:{shared_origin.port}"]}}}}
defaults: {{public: true}}
routes:
  POST /orders/{{id}}:
    call: origin
    validate:
      depth: 4
      path: {{properties: {{id: {{type: integer, minimum: 1}}}}}}
      query:
        properties: {{page: {{type: integer}}, tags: {{type: array, items: {{type: string, maxLength: 3}}}}, exact: {{type: boolean}}}}
        additionalProperties: false
      body:
        type: object
        required: [item]
        properties:
          item: {{type: string, pattern: "^(a+)+$"}}
          "a/b": {{type: integer}}
          size: {{$ref: "#/$defs/size"}}
          mail: {{type: string, format: email}}
          more: true
        additionalProperties: false
        $defs: {{size: {{type: integer, exclusiveMinimum: 0}}}}
  POST /deep: {{call: origin, validate: {{depth: 3}}}}
  POST /trees:
    call: origin
    limits: {{body: 2MiB}}
    validate:
      body: {{$ref: "#/$defs/tree", $defs: {{tree: {{anyOf: [{{type: string}}, {{type: array, items: {{$ref: "#/$defs/tree"}}}}]}}}}}}
""")


def post(gateway: Gateway, target: str, body: bytes, kind: str = "application/json") -> tuple[int, Any]:
    head = f"POST {target} HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    with Client(gateway.port) as client:
        status, fields, answered = client.send(head.encode() + body).read_answer()
        return status, json.loads(answered) if "json" in fields.get("content-type", "") else answered


def test_what_has_the_shape_is_passed_on_as_it_came(gateway: Gateway, behind: Origin) -> None:
    body = b'{ "item": "aaa",  "size": 3, "mail": "ann@example.com" }'
    assert post(gateway, "/orders/12?page=2&tags=x&tags=y&exact=true", body)[0] == 200
    assert behind.seen[0].endswith(body)


def test_every_mistake_is_told_in_one_answer_with_its_pointer(gateway: Gateway, behind: Origin) -> None:
    status, problem = post(gateway, "/orders/0?page=two&other=1&tags=long", b'{"a/b": "x", "size": 0, "b": {}}')
    assert status == 400
    assert problem["type"] == "urn:castlegate:invalid"
    found = {(mistake["in"], mistake["pointer"]) for mistake in problem["errors"]}
    assert found == {
        ("path", "/id"), ("query", "/page"), ("query", ""), ("query", "/tags/0"), ("body", "/a~1b"), ("body", "/size"),
        ("body", ""),
    }  # fmt: skip
    assert problem["detail"] == "There are 8 mistakes in the path and query and body."
    assert behind.seen == []


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"", "application/json", 400),
        (b"null", "application/json", 400),
        (b"[1", "application/json", 400),
        (b'{"item": "a"}', "text/plain", 415),
        (b'{"item": "a"}', "application/vnd.shop+json; charset=utf-8", 200),
        (b'{"item": "a", "more": [[[1]]]}', "application/json", 200),
        (b'{"item": "a", "more": [[[[1]]]]}', "application/json", 400),
        (b'{"item": "a", "more": "[[[[[[[[ \\" [[[["}', "application/json", 200),
        (b"[" * 100_000, "application/json", 400),
        (b'{"item": "' + b"a" * 5000 + b'b"}', "application/json", 400),  # a pattern that backtracking takes for ever
        (b'{"item": "a", "mail": "no mail"}', "application/json", 400),
        (b'{"item": "a", "size": 0, "size": 1}', "application/json", 400),  # services may take the first
        (b'{"item":"a","more":{"b":1,"\\u0062":2}}', "application/json", 400),
        (b'{"item":"a","more":[{"b":1},{"b":2, "c":1e5}]}', "application/json", 200),
    ],
)  # fmt: skip
def test_bodies(gateway: Gateway, behind: Origin, body: bytes, kind: str, status: int) -> None:
    assert post(gateway, "/orders/1", body, kind)[0] == status
    assert len(behind.seen) == (status == 200)


def test_depth_alone_concerns_json_only(gateway: Gateway) -> None:
    assert post(gateway, "/deep", b"[[[[]]]]")[0] == 400
    assert post(gateway, "/deep", b"[[[[]]]]", "text/plain")[0] == 200
    assert post(gateway, "/deep", b"")[0] == 200


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b'"' + b'\\"' * 500_000, id="a text that does not end"),
        pytest.param(b"[" + b"1," * 500_000 + b"1]", id="half a million mistakes"),
        pytest.param(b"[[[" + b"1," * 500_000 + b"1]]]", id="mistakes within alternatives"),
    ],
)
def test_a_large_body_without_the_shape_holds_nobody_up(gateway: Gateway, behind: Origin, body: bytes) -> None:
    began = time.monotonic()
    status, problem = post(gateway, "/trees", body)
    assert status == 400
    assert len(problem.get("errors", ())) <= 1
    assert time.monotonic() - began < 2
    assert behind.seen == []
