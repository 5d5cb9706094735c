"""One message and several services that answer it, late, twice, wrong or not at all; from the client's socket."""

import json
import threading
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest
from confluent_kafka import Message
from tests.conftest import Broker
from tests.kafka.echo import Echo
from tests.testbeds.gateway import Gateway
from tests.testbeds.topics import create_topics
from tests.testbeds.wire import Client

CONFIG = """
kafka: {{bootstrap: "{bootstrap}", streams: {{collected: 4KiB}}}}
services: {{{name}: {{kafka: {{dialect: plain, status_header: status}}}}}}
defaults: {{public: true, timeout: 5s}}
routes:
  POST /all: {{call: {name}.ask, gather: {{of: [north, south, west], by: who}}}}
  POST /all-soon: {{call: {name}.ask, gather: {{of: [north, south, west], by: who, wait: 500ms}}}}
  POST /first: {{call: {name}.ask, gather: {{of: [north, south, west], by: who, want: first}}}}
  POST /two: {{call: {name}.ask, gather: {{of: [north, south, west], by: who, want: 2}}}}
  POST /any: {{call: {name}.ask, timeout: 500ms, gather: {{of: [north, south, west], by: who, want: any}}}}
  POST /anybody: {{call: {name}.ask, gather: {{by: who, want: any, wait: 500ms}}}}
  POST /counted: {{call: {name}.ask, gather: {{of: 3}}}}
  POST /counted-soon: {{call: {name}.ask, gather: {{of: 3, wait: 500ms}}}}
  POST /any-counted: {{call: {name}.ask, status: 203, gather: {{of: 3, want: any, wait: 500ms}}}}
"""
NAMES = ("north", "south", "west")
SILENT: dict[str, Any] = {"silent": True}


def responder(name: str) -> Callable[[Echo, Message], None]:
    """Does what the request says under its name: `after` seconds, `times`, `silent`, `error`, `as`, `text`."""

    def respond(echo: Echo, message: Message) -> None:
        said = json.loads(message.value() or b"{}").get(name, {})
        if said.get("silent"):
            return
        headers = [("who", said.get("as", name).encode())]
        if "error" in said:
            headers += [("error", b"it failed"), ("status", b"%d" % said["error"])]
        value = said["text"].encode() if "text" in said else json.dumps({"from": name}).encode()

        def send() -> None:
            for _ in range(said.get("times", 1)):
                echo.answer(message, value, headers)
            echo.flush()

        threading.Timer(said["after"], send).start() if "after" in said else send()

    return respond


@pytest.fixture(scope="module")
def gateway(broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    name = f"g{uuid4().hex[:8]}"
    create_topics(broker.bootstrap, {f"{name}.ask": 1})
    services = [Echo(broker.bootstrap, f"{name}.ask", responder(each)) for each in NAMES]
    config = CONFIG.format(bootstrap=broker.bootstrap, name=name)
    with Gateway(tmp_path_factory.mktemp("gather"), config) as gateway:
        gateway.program.wait_until(lambda: gateway.readiness()[1] == {"status": "ready", "reason": ""}, "readiness")
        assert ask(gateway, "/all")[0] == 200  # their producers connect at the first answer, and stay
        yield gateway
    for service in services:
        service.stop()


def ask(gateway: Gateway, path: str, said: dict[str, Any] | None = None) -> tuple[int, dict[str, str], Any]:
    body = json.dumps(said or {}).encode()
    with Client(gateway.port, timeout_s=30) as client:
        client.send(f"POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        status, fields, answer = client.read_answer()
    return status, fields, json.loads(answer)


def outcomes(parts: dict[str, Any]) -> dict[str, str]:
    return {name: part["outcome"] for name, part in parts.items()}


def replies(gateway: Gateway, kind: str) -> float:
    return gateway.metrics().get(f'castlegate_kafka_replies_total{{kind="{kind}"}}', 0)


def wait_replies(gateway: Gateway, kind: str, count: float) -> None:
    gateway.program.wait_until(lambda: replies(gateway, kind) == count, f"{count} replies that are {kind}")
    assert gateway.metrics()["castlegate_kafka_pending"] == 0


def test_all_are_put_together_under_their_names(gateway: Gateway) -> None:
    status, fields, told = ask(gateway, "/all", {"north": {"after": 0.1}, "south": {"text": "words"}})
    assert (status, fields["content-type"]) == (200, "application/json")
    parts = told.pop("_parts")
    assert told == {"north": {"from": "north"}, "south": "words", "west": {"from": "west"}}
    assert list(told) == list(NAMES)
    assert outcomes(parts) == dict.fromkeys(NAMES, "ok")
    assert parts["north"]["ms"] >= 90
    assert [part.split(";")[:2] for part in fields["castlegate-parts"].split(", ")] == [
        [name, "outcome=ok"] for name in NAMES
    ]


def test_who_is_silent_is_named(gateway: Gateway) -> None:
    late = replies(gateway, "late")
    status, fields, problem = ask(gateway, "/all-soon", {"south": SILENT, "west": {"after": 1.0}})
    assert (status, problem["type"], problem["outcome"]) == (504, "urn:castlegate:timeout", "unknown")
    assert problem["detail"] == "1 of 3 answers came in time."
    assert outcomes(problem["parts"]) == {"north": "ok", "south": "timeout", "west": "timeout"}
    assert fields["castlegate-parts"].endswith("south;outcome=timeout, west;outcome=timeout")
    wait_replies(gateway, "late", late + 1)


def test_one_that_fails_fails_all_at_once(gateway: Gateway) -> None:
    status, _, problem = ask(gateway, "/all", {"south": {"error": 409}, "north": SILENT, "west": {"after": 0.3}})
    assert (status, problem["type"], problem["outcome"]) == (502, "urn:castlegate:incomplete", "unknown")
    assert problem["parts"]["south"] == {"outcome": "error", "ms": problem["parts"]["south"]["ms"], "status": 409}
    assert outcomes(problem["parts"]) == {"north": "skipped", "south": "error", "west": "skipped"}


def test_when_everybody_has_answered_the_outcome_is_known(gateway: Gateway) -> None:
    errors = {key: {"error": 500} for key in NAMES}
    status, _, problem = ask(gateway, "/first", errors)
    assert (status, problem["outcome"]) == (502, "answered")
    assert set(outcomes(problem["parts"]).values()) == {"error"}


def test_the_first_is_enough_and_the_others_are_late(gateway: Gateway) -> None:
    late = replies(gateway, "late")
    status, _, told = ask(gateway, "/first", {"north": {"error": 500}, "south": {"after": 0.2}, "west": {"after": 0.6}})
    assert status == 200
    parts = told.pop("_parts")
    assert told == {"south": {"from": "south"}}
    assert outcomes(parts) == {"north": "error", "south": "ok", "west": "skipped"}
    wait_replies(gateway, "late", late + 1)


def test_two_of_three_are_enough(gateway: Gateway) -> None:
    status, _, told = ask(gateway, "/two", {"north": SILENT})
    assert (status, outcomes(told["_parts"])) == (200, {"north": "skipped", "south": "ok", "west": "ok"})
    status, _, problem = ask(gateway, "/two", {"north": {"error": 500}, "south": {"text": "{broken"}, "west": SILENT})
    assert (status, problem["outcome"]) == (502, "unknown")


def test_what_came_in_time_is_the_answer(gateway: Gateway) -> None:
    status, _, told = ask(gateway, "/any", {"north": SILENT, "south": {"error": 404}})
    assert status == 200
    assert outcomes(told["_parts"]) == {"north": "timeout", "south": "error", "west": "ok"}
    assert told["west"] == {"from": "west"}
    status, _, problem = ask(gateway, "/any", dict.fromkeys(NAMES, SILENT))
    assert (status, problem["outcome"], outcomes(problem["parts"])) == (
        504,
        "unknown",
        dict.fromkeys(NAMES, "timeout"),
    )


def test_who_answers_need_not_be_known_before(gateway: Gateway) -> None:
    status, _, told = ask(gateway, "/anybody", {"north": {"as": "elsewhere"}, "south": SILENT})
    assert status == 200
    assert outcomes(told.pop("_parts")) == {"elsewhere": "ok", "west": "ok"}
    assert set(told) == {"elsewhere", "west"}


def test_who_answers_twice_is_heard_once(gateway: Gateway) -> None:
    duplicates = replies(gateway, "duplicate")
    status, _, told = ask(gateway, "/all", {"north": {"times": 3}, "west": {"after": 0.3}})
    assert (status, set(told)) == (200, {*NAMES, "_parts"})
    wait_replies(gateway, "duplicate", duplicates + 2)


def test_when_all_have_answered_another_answer_is_a_duplicate(gateway: Gateway) -> None:
    duplicates = replies(gateway, "duplicate")
    assert ask(gateway, "/all", {key: {"times": 2} for key in NAMES})[0] == 200
    wait_replies(gateway, "duplicate", duplicates + 3)


def test_an_answer_of_nobody_who_was_asked_counts_for_nothing(gateway: Gateway) -> None:
    malformed = replies(gateway, "malformed")
    said = {"north": {"as": "stranger"}, "south": {"as": "_parts"}, "west": {"as": "žluť"}}
    status, _, problem = ask(gateway, "/all-soon", said)
    assert (status, outcomes(problem["parts"])) == (504, dict.fromkeys(NAMES, "timeout"))
    wait_replies(gateway, "malformed", malformed + 3)


def test_without_names_answers_are_counted(gateway: Gateway) -> None:
    status, fields, told = ask(gateway, "/counted", {"north": {"after": 0.3}})
    assert (status, fields["castlegate-parts"]) == (200, "ok=3")
    assert (len(told), told[2]) == (3, {"from": "north"})
    status, fields, problem = ask(gateway, "/counted-soon", {"north": SILENT})
    assert (status, fields["castlegate-parts"], problem["parts"]) == (504, "ok=2, timeout=1", {"ok": 2, "timeout": 1})
    status, fields, told = ask(gateway, "/any-counted", {"north": SILENT, "south": {"error": 500}})
    assert (status, fields["castlegate-parts"], told) == (203, "ok=1, error=1, timeout=1", [{"from": "west"}])


def test_answers_are_bounded_in_memory(gateway: Gateway) -> None:
    status, _, problem = ask(gateway, "/all", {key: {"text": "x" * 3000} for key in NAMES})
    assert (status, problem["type"], problem["outcome"]) == (502, "urn:castlegate:bad_answer", "unknown")
    assert sorted(outcomes(problem["parts"]).values()) == ["ok", "ok", "skipped"]


def test_answers_that_are_too_much_claim_nothing_of_who_is_silent(gateway: Gateway) -> None:
    said = {"north": {"text": "x" * 3000}, "south": {"text": "x" * 3000}, "west": SILENT}
    status, fields, problem = ask(gateway, "/all", said)
    assert (status, problem["outcome"]) == (502, "unknown")
    assert outcomes(problem["parts"]) == {"north": "ok", "south": "ok", "west": "skipped"}
    assert fields["castlegate-parts"].endswith(", west;outcome=skipped")
    last = {"text": "x" * 5000, "after": 0.2}
    status, _, problem = ask(gateway, "/any", {"north": {"error": 500}, "south": {"error": 500}, "west": last})
    assert (status, problem["type"], problem["outcome"]) == (502, "urn:castlegate:bad_answer", "answered")


def test_a_client_that_leaves_frees_its_entry(gateway: Gateway) -> None:
    late = replies(gateway, "late")
    body = json.dumps({key: {"after": 0.7} for key in NAMES}).encode()
    with Client(gateway.port) as client:
        client.send(b"POST /all HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        gateway.program.wait_until(lambda: gateway.metrics()["castlegate_kafka_pending"] == 1, "its entry")
    wait_replies(gateway, "late", late + 3)
