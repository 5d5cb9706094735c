"""Parts that are called for each element of a list."""

import json
import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest
from tests.compose.conftest import Services, Start, ask, http

ORDERS = [{"id": 1, "sku": "lamp"}, {"id": 2, "sku": "chair"}, {"id": 3, "sku": "lamp"}]


@pytest.fixture
def shop(services: Services) -> Services:
    services.says("/orders", ORDERS)
    services.says("/prices/lamp", {"price": 5})
    services.says("/prices/chair", {"price": 7})
    return services


def routes(part: str) -> str:
    return f"  GET /a: {{compose: {{orders: {{call: s, get: /orders, hidden: true}}, prices: {{{part}}}}}}}"


def test_equal_elements_are_asked_for_once_and_results_stand_in_their_order(shop: Services, start: Start) -> None:
    answer = ask(start(routes('call: s, each: "{orders[].sku}", get: "/prices/{each}"')), "/a")
    assert answer.json == {"prices": [{"price": 5}, {"price": 7}, {"price": 5}]}
    assert (len(shop.asked("/prices/lamp")), len(shop.asked("/prices/chair"))) == (1, 1)


def test_results_are_joined_to_their_elements(shop: Services, start: Start) -> None:
    part = 'call: s, each: {of: "{orders[]}", join: price}, get: "/prices/{each.sku}", pick: [price]'
    assert ask(start(routes(part)), "/a").json["prices"] == [
        {"id": 1, "sku": "lamp", "price": {"price": 5}},
        {"id": 2, "sku": "chair", "price": {"price": 7}},
        {"id": 3, "sku": "lamp", "price": {"price": 5}},
    ]


def test_elements_that_fail_are_marked_and_the_part_lives(shop: Services, start: Start) -> None:
    shop.says("/prices/chair", {}, status=500)
    answer = ask(start(routes('call: s, each: "{orders[].sku}", get: "/prices/{each}"')), "/a")
    mark = {"_error": {"kind": "service_error", "status": 500}}
    assert answer.json == {"prices": [{"price": 5}, mark, {"price": 5}]}
    assert answer.fields["castlegate-parts"].endswith(";failed=1")
    assert answer.fields["cache-control"] == "no-store"


def test_an_element_that_lacks_what_is_asked_of_it_is_marked_too(shop: Services, start: Start) -> None:
    shop.says("/orders", [{"sku": "lamp"}, {"id": 1}])
    answer = ask(start(routes('call: s, each: "{orders[]}", get: "/prices/{each.sku}"')), "/a")
    assert answer.json == {"prices": [{"price": 5}, {"_error": {"kind": "bad_answer", "status": 502}}]}


@pytest.mark.parametrize(("more", "status"), [("", 502), (", optional: true", 200), (", fallback: []", 200)])
def test_a_part_of_which_every_element_fails_fails(shop: Services, start: Start, more: str, status: int) -> None:
    answer = ask(start(routes(f'call: gone, each: "{{orders[].sku}}", get: "/prices/{{each}}"{more}')), "/a")
    assert answer.status == status


@pytest.mark.parametrize("orders", [{"sku": "lamp"}, [{"sku": str(number)} for number in range(4)]])
def test_what_is_no_list_or_too_long_a_one_fails_before_anything_is_asked(
    shop: Services, start: Start, orders: Any
) -> None:
    shop.says("/orders", orders)
    answer = ask(start(routes('call: s, each: {of: "{orders[].sku}", most: 3}, get: "/prices/{each}"')), "/a")
    assert (answer.status, len(shop.seen)) == (502, 1)


def test_the_empty_list_asks_for_nothing(shop: Services, start: Start) -> None:
    shop.says("/orders", [])
    answer = ask(start(routes('call: s, each: "{orders[].sku}", get: "/prices/{each}"')), "/a")
    assert (answer.json, answer.parts["prices"]) == ({"prices": []}, "ok")


def test_no_more_calls_are_under_way_than_may_be(shop: Services, start: Start) -> None:
    shop.says("/orders", [{"sku": str(number)} for number in range(20)])
    most, script = Counter(), shop.script
    for number in range(20):
        shop.says(f"/prices/{number}", number)
    shop.script = most.around(script)
    part = 'call: s, each: {of: "{orders[].sku}", concurrency: 3}, get: "/prices/{each}"'
    answer = ask(start(routes(part)), "/a")
    assert answer.json == {"prices": list(range(20))}
    assert 1 < most.most <= 3


class Counter:
    """How many requests of prices are being answered at once."""

    def __init__(self) -> None:
        self.most = self._now = 0
        self._changed = threading.Condition()

    def around(self, script: Callable[[socket.socket, bytes], bool]) -> Callable[[socket.socket, bytes], bool]:
        def counted(connection: socket.socket, request: bytes) -> bool:
            if not request.startswith(b"GET /prices"):
                return script(connection, request)
            with self._changed:
                self._now += 1
                self.most = max(self.most, self._now)
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._now > 1, 0.05)  # others would have the time to come
                self._now -= 1
            return script(connection, request)

        return counted


def test_elements_of_the_client_s_body_are_asked_for_too(shop: Services, start: Start) -> None:
    gateway = start('  POST /a: {compose: {prices: {call: s, each: "{body.skus}", get: "/prices/{each}"}}}')
    answer = ask(gateway, "/a", method="POST", body=b'{"skus": ["chair", "lamp"]}')
    assert answer.json == {"prices": [{"price": 7}, {"price": 5}]}
    assert ask(gateway, "/a", method="POST", body=b'{"skus": 3}').status == 400


BATCHED = [
    ("batch: {}", [{"price": 5}, {"price": 7}], [{"price": 5}, {"price": 7}, {"price": 5}]),
    (
        "batch: sku",
        [{"sku": "chair", "p": 7}, {"sku": "lamp", "p": 5}, 3, {}],
        [{"sku": "lamp", "p": 5}, {"sku": "chair", "p": 7}, {"sku": "lamp", "p": 5}],
    ),
    ("batch: {by: sku, within: data.items}", {"data": {"items": [{"sku": "lamp"}]}}, [
        {"sku": "lamp"}, None, {"sku": "lamp"},
    ]),
    ("batch: {}", {"lamp": 5, "chair": 7}, [5, 7, 5]),
]  # fmt: skip


@pytest.mark.parametrize(("batch", "prices", "found"), BATCHED)
def test_a_batch_is_one_call_and_told_apart(
    shop: Services, start: Start, batch: str, prices: Any, found: object
) -> None:
    shop.says("/batch", prices)
    part = f'call: s, each: "{{orders[].sku}}", {batch}, post: /batch, send: {{skus: "{{each}}"}}'
    assert ask(start(routes(part)), "/a").json == {"prices": found}
    [request] = shop.asked("/batch")
    assert request.endswith(b'\r\n\r\n{"skus":["lamp","chair"]}')


@pytest.mark.parametrize("prices", [3, [1], [1, 2, 3], {"data": 1}, None])
def test_a_batch_that_cannot_be_told_apart_fails(shop: Services, start: Start, prices: Any) -> None:
    shop.says("/batch", prices)
    part = 'call: s, each: "{orders[].sku}", batch: {within: data}, post: /batch, send: "{each}", optional: true'
    if isinstance(prices, list):
        part = part.replace("{within: data}", "{}")
    assert ask(start(routes(part)), "/a").json == {"prices": None}


def test_a_large_batch_goes_in_several_calls_of_which_some_may_fail(shop: Services, start: Start) -> None:
    shop.says("/orders", [{"sku": number} for number in range(5)])
    part = 'call: s, each: "{orders[].sku}", batch: {size: 2}, post: /batch, send: "{each}"'

    def double(connection: socket.socket, request: bytes) -> bool:
        skus = json.loads(request.rpartition(b"\r\n\r\n")[2])
        answer = http(b"", status=500) if skus == [2, 3] else http(json.dumps([2 * sku for sku in skus]).encode())
        connection.sendall(answer)
        return True

    script = shop.script
    shop.script = lambda connection, request: (double if b"/batch" in request else script)(connection, request)
    answer = ask(start(routes(part)), "/a")
    mark = {"_error": {"kind": "service_error", "status": 500}}
    assert answer.json == {"prices": [0, 2, mark, mark, 8]}
    assert answer.fields["castlegate-parts"].endswith(";failed=2")


def test_equal_elements_are_bounded_by_what_they_become(services: Services, start: Start) -> None:
    services.says("/price", "x" * 1000)
    gateway = start('  POST /a: {compose: {b: {call: s, get: /price, each: "{body.skus[]}", limit: 64KiB}}}')
    few = ask(
        gateway, "/a", "Content-Type: application/json", method="POST", body=json.dumps({"skus": ["a"] * 60}).encode()
    )
    many = ask(
        gateway, "/a", "Content-Type: application/json", method="POST", body=json.dumps({"skus": ["a"] * 99}).encode()
    )
    assert (few.status, many.status) == (200, 502)
    assert len(services.asked("/price")) == 2
