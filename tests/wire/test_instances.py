"""Instances that are found, checked, ejected and drained, through the real program: who is called, and what is told."""

import json
import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.testbeds.certificates import Authority, serving
from tests.testbeds.gateway import Gateway
from tests.testbeds.names import NameServer
from tests.testbeds.processes import free_port
from tests.testbeds.wire import OK, Client, Origin, Script, answer
from tests.wire.conftest import Start

GET = b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n"
BROKEN = b"HTTP/1.1 500 X\r\ncontent-length: 0\r\n\r\n"


class Instances:
    """Scripted instances of one service; each says which it is."""

    def __init__(self, stack: ExitStack, count: int) -> None:
        self.origins = [stack.enter_context(Origin(says(number))) for number in range(count)]

    @property
    def http(self) -> str:
        """As the configuration says them; called in turn."""
        return in_turn(*[f"http://127.0.0.1:{each.port}" for each in self.origins])

    def name(self, number: int) -> str:
        return f"127.0.0.1:{self.origins[number].port}"

    def calls(self, number: int) -> int:
        """How many calls it has seen, checks apart."""
        return sum(not seen.startswith(b"GET /healthz ") for seen in list(self.origins[number].seen))

    def checks(self, number: int) -> int:
        return sum(seen.startswith(b"GET /healthz ") for seen in list(self.origins[number].seen))


def in_turn(*urls: str) -> str:
    return f"{{instances: {json.dumps(urls)}, balance: round_robin}}"


def says(number: int, checks: bytes = OK) -> Script:
    text = b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n%d" % number

    def script(connection: object, request: bytes) -> bool:
        connection.sendall(checks if request.startswith(b"GET /healthz ") else text)  # type: ignore[attr-defined]
        return True

    return script


@pytest.fixture
def three() -> Iterator[Instances]:
    with ExitStack() as stack:
        yield Instances(stack, 3)


def config(http: str, more: str = "", workers: int = 1) -> str:
    return f"""
workers: {workers}
services: {{users: {{http: {http}{more}}}}}
defaults: {{public: true, timeout: 5s}}
routes: {{GET /x: {{call: users}}}}
"""


def ask(gateway: Gateway, count: int) -> Counter[str]:
    """Requests one after another: how often each instance answered, `500` for one that failed so."""
    found: Counter[str] = Counter()
    with Client(gateway.port) as client:
        for _ in range(count):
            status, _, body = client.send(GET).read_answer()
            found[body.decode() if status == 200 else str(status)] += 1
    return found


# --- drained


def test_a_drained_instance_gets_nothing_new_and_ends_what_it_has(start: Start, three: Instances) -> None:
    gateway = start(config(three.http))
    goes_on = threading.Event()

    def slowly(connection: object, _request: bytes) -> bool:
        three.origins[0].script = says(0)  # the first call alone is slow
        goes_on.wait(5)
        connection.sendall(OK)  # type: ignore[attr-defined]
        return True

    three.origins[0].script = slowly
    with Client(gateway.port) as first:
        first.send(GET)
        gateway.program.wait_until(lambda: three.calls(0) == 1, "the first call")
        for number in (0, 1):
            status, told = gateway.order(f"/services/users/{three.name(number)}/drain")
            assert (status, told["status"]) == (200, "drained")
        assert ask(gateway, 3) == {"2": 3}
        shown = gateway.instances("users")
        assert [shown[three.name(number)]["state"] for number in range(3)] == ["drained", "drained", "in"]
        [out] = shown[three.name(1)]["out"]
        assert (out["by"], out["since"][:2]) == ("drain", "20")
        goes_on.set()
        assert first.read_answer()[0] == 200, "what was in flight ends"
    for number in (0, 1):
        assert gateway.order(f"/services/users/{three.name(number)}/undrain")[0] == 200
    gateway.program.wait_until(lambda: len(ask(gateway, 6)) == 3, "calls of all")
    assert gateway.metrics()['castlegate_instances{service="users",state="drained"}'] == 0


def test_a_service_of_which_all_is_drained_answers_503_and_was_sent_nothing(start: Start, three: Instances) -> None:
    gateway = start(config(three.http))
    for number in range(3):
        gateway.order(f"/services/users/{three.name(number)}/drain")
    with Client(gateway.port) as client:
        _, fields, body = client.send(GET).read_answer()
    assert (json.loads(body)["outcome"], fields["retry-after"]) == ("not_sent", "5")


def test_who_drains_what_is_not_there_is_told(start: Start, three: Instances) -> None:
    gateway = start(config(three.http))
    for path in ("/services/users/127.0.0.1:1/drain", f"/services/none/{three.name(0)}/undrain"):
        status, told = gateway.order(path)
        assert (status, "GET /services" in told["detail"]) == (404, True)


def test_a_drain_outlives_workers_and_reloads(start: Start, three: Instances) -> None:
    gateway = start(config(three.http, workers=2))
    gateway.order(f"/services/users/{three.name(0)}/drain")
    gateway.program.wait_until(lambda: "0" not in ask(gateway, 3), "no more calls")
    killed = {worker["pid"] for worker in gateway.workers()}
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    gateway.program.wait_until(lambda: killed.isdisjoint(each["pid"] for each in gateway.workers()), "new workers")
    gateway.program.wait_until(lambda: all(each["ready"] for each in gateway.workers()), "them to serve")
    gateway.rewrite(config(three.http, ", panic: 0.9", workers=2))
    assert gateway.order("/reload") == (200, {"status": "reloaded"})
    before = three.calls(0)
    assert sum((ask(gateway, 3) for _ in range(10)), Counter[str]())["0"] == 0
    assert three.calls(0) == before


# --- checked


def test_an_instance_that_fails_its_checks_gets_no_calls_until_it_passes_them(start: Start, three: Instances) -> None:
    three.origins[1].script = says(1, checks=BROKEN)
    gateway = start(config(three.http, ", health: {path: /healthz, interval: 20ms, unhealthy: 2}"))
    gateway.program.wait_until(lambda: set(ask(gateway, 9)) == {"0", "2"}, "calls of the others alone")
    before = three.calls(1)
    assert ask(gateway, 10) == {"0": 5, "2": 5}
    assert three.calls(1) == before
    shown = gateway.instances("users")[three.name(1)]
    assert (shown["state"], shown["out"][0]["by"], shown["out"][0]["why"]) == ("out", "check", "its status was 500")
    assert gateway.metrics()['castlegate_instances{service="users",state="ill"}'] == 1
    gateway.program.wait_for_line(rf"service users: {three.name(1)} is out: its status was 500")
    three.origins[1].script = says(1)
    gateway.program.wait_until(lambda: len(ask(gateway, 6)) == 3, "calls of all")
    gateway.program.wait_for_line(rf"service users: {three.name(1)} is in again")


def test_checks_are_made_once_however_many_workers_there_are_and_all_of_them_know(
    start: Start, three: Instances
) -> None:
    three.origins[1].script = says(1, checks=BROKEN)
    gateway = start(config(three.http, ", health: {path: /healthz, interval: 1h}", workers=3))
    gateway.program.wait_until(lambda: sum(map(three.checks, range(3))) == 3, "a check of each")
    gateway.program.wait_until(
        lambda: gateway.instances("users")[three.name(1)]["out"][0]["why"] != "not checked yet", "news"
    )
    before = three.calls(1)
    for _ in range(20):
        assert "1" not in ask(gateway, 3)
    victim = gateway.workers()[0]["pid"]
    os.kill(victim, signal.SIGKILL)
    gateway.program.wait_until(lambda: gateway.workers()[0]["pid"] not in (None, victim), "a new worker")
    gateway.program.wait_until(lambda: gateway.workers()[0]["ready"], "it to serve")
    for _ in range(20):
        assert "1" not in ask(gateway, 3)
    assert three.calls(1) == before
    assert sum(map(three.checks, range(3))) == 3


def test_a_reload_goes_on_with_the_checks_that_it_does_not_change(start: Start, three: Instances) -> None:
    three.origins[1].script = says(1, checks=BROKEN)
    health = ", health: {path: /healthz, interval: 1h}"
    gateway = start(config(three.http, health))
    gateway.program.wait_until(lambda: sum(map(three.checks, range(3))) == 3, "a check of each")
    gateway.program.wait_until(lambda: gateway.instances("users")[three.name(0)]["state"] == "in", "its news")
    before = gateway.instances("users")
    gateway.rewrite(config(three.http, health).replace("/x", "/y"))
    assert gateway.order("/reload") == (200, {"status": "reloaded"})
    assert gateway.instances("users") == before
    gateway.rewrite(config(three.http, health.replace("1h", "2h")).replace("/x", "/y"))
    assert gateway.order("/reload") == (200, {"status": "reloaded"})
    gateway.program.wait_until(lambda: sum(map(three.checks, range(3))) == 6, "checks by the new settings")


def test_where_too_few_are_well_all_are_called(start: Start, three: Instances) -> None:
    for number in range(3):
        three.origins[number].script = says(number, checks=BROKEN)
    gateway = start(config(three.http, ", health: {path: /healthz, interval: 20ms}"))
    gateway.program.wait_until(
        lambda: gateway.instances("users")[three.name(0)]["state"] == "out", "the first to be out"
    )
    assert ask(gateway, 9) == {"0": 3, "1": 3, "2": 3}
    assert gateway.metrics()['castlegate_upstream_panic{service="users"}'] == 1


# --- ejected


@pytest.fixture
def four() -> Iterator[Instances]:
    with ExitStack() as stack:
        yield Instances(stack, 4)


def test_u5_the_fifth_failure_in_a_row_ejects_an_instance_and_it_comes_back(start: Start, four: Instances) -> None:
    gateway = start(config(four.http, ", ejection: {time: 1s}"))
    four.origins[2].script = answer(BROKEN)
    found = ask(gateway, 80)
    assert found["500"] == four.calls(2) == 5
    assert found["0"] + found["1"] + found["3"] == 75
    shown = gateway.instances("users")[four.name(2)]
    assert [(out["by"], out["worker"], out["why"]) for out in shown["out"]] == [("ejection", 0, "5 failures in a row")]
    assert gateway.metrics()['castlegate_instance_ejections_total{service="users"}'] == 1
    assert gateway.metrics()['castlegate_instances{service="users",state="ejected"}'] == 1
    gateway.program.wait_for_line(rf"service users: {four.name(2)} is ejected for 1 s: 5 failures in a row")
    four.origins[2].script = says(2)
    gateway.program.wait_until(lambda: len(ask(gateway, 4)) == 4, "calls of all again")
    assert gateway.instances("users")[four.name(2)]["state"] == "in"


def test_u5_no_more_than_the_share_are_ejected_and_one_is_always_left(start: Start, four: Instances) -> None:
    gateway = start(config(four.http, ", ejection: {time: 1h, longest: 1h, share: 1}, panic: 0"))
    for origin in four.origins:
        origin.script = answer(BROKEN)
    assert ask(gateway, 100) == {"500": 100}
    states = [each["state"] for each in gateway.instances("users").values()]
    assert sorted(states) == ["in", "out", "out", "out"]
    calls = [four.calls(number) for number in range(4)]
    assert sorted(calls) == [5, 5, 5, 85]


def test_one_that_was_not_reached_is_called_again_when_a_check_has_reached_it(start: Start, four: Instances) -> None:
    port = free_port()
    http = in_turn(f"http://127.0.0.1:{port}", f"http://127.0.0.1:{four.origins[0].port}")
    health = "health: {path: /healthz, interval: 50ms, unhealthy: 1000000}"
    with Origin(says(9), address=("127.0.0.1", port)):
        gateway = start(config(http, f", {health}, ejection: {{time: 1h, longest: 1h}}"))
        gateway.program.wait_until(lambda: "9" in ask(gateway, 2), "it to be called")
    assert ask(gateway, 20) == {"0": 20}, "what was not sent goes to the other"
    assert gateway.instances("users")[f"127.0.0.1:{port}"]["out"][0]["why"] == "not reached 5 times in a row"
    with Origin(says(9), address=("127.0.0.1", port)):
        gateway.program.wait_until(lambda: "9" in ask(gateway, 2), "it to be called again")


def test_a_lone_instance_is_never_ejected(start: Start, four: Instances) -> None:
    gateway = start(config(f'["http://{four.name(0)}"]'))
    four.origins[0].script = answer(BROKEN)
    assert ask(gateway, 20) == {"500": 20}
    four.origins[0].script = says(0)
    assert ask(gateway, 3) == {"0": 3}


def test_ejection_can_be_off(start: Start, four: Instances) -> None:
    gateway = start(config(four.http, ", ejection: off"))
    four.origins[0].script = answer(BROKEN)
    assert ask(gateway, 40) == {"500": 10, "1": 10, "2": 10, "3": 10}


# --- found


@pytest.fixture
def names() -> Iterator[NameServer]:
    with NameServer() as names:
        yield names


def test_the_addresses_of_a_name_are_called_by_its_name(start: Start, names: NameServer) -> None:
    port = free_port()
    http = (
        f'{{dns: {{name: "users.test:{port}", server: "127.0.0.1:{names.port}", least: 50ms}}, balance: round_robin}}'
    )
    names.ttl = 0
    names.say("users.test", "A", "127.0.0.1")
    with Origin(says(0), address=("127.0.0.1", port)) as first, Origin(says(1), address=("127.0.0.2", port)) as second:
        gateway = start(config(http, workers=2))
        assert ask(gateway, 4) == {"0": 4}
        assert b"host: users.test:%d\r\n" % port in first.seen[0].lower()
        names.say("users.test", "A", "127.0.0.1", "127.0.0.2")
        gateway.program.wait_until(lambda: all(len(ask(gateway, 2)) == 2 for _ in range(8)), "both to be called by all")
        names.say("users.test", "A", "127.0.0.2")
        gateway.program.wait_until(lambda: all(ask(gateway, 2) == {"1": 2} for _ in range(8)), "the second alone")
        for amiss in ("empty", "gone", "silent"):
            if amiss == "empty":
                names.say("users.test", "A")
            elif amiss == "gone":
                names.zone.clear()
            names.silent = amiss == "silent"
            asked = len(names.asked)
            gateway.program.wait_until(lambda asked=asked: len(names.asked) > asked + 1, "further questions")
            assert ask(gateway, 4) == {"1": 4}, amiss
        assert gateway.services()["users"]["found_by"] == f"DNS name users.test:{port}"
        assert gateway.services()["users"]["problem"]
        assert len(second.seen) > 4


def test_a_service_that_nobody_knows_yet_answers_503_and_is_found_later(start: Start, names: NameServer) -> None:
    with Origin(says(0)) as origin:
        http = f'{{srv: {{name: _http._tcp.users.test, server: "127.0.0.1:{names.port}", least: 50ms}}}}'
        gateway = start(config(http))
        with Client(gateway.port) as client:
            status, _, body = client.send(GET).read_answer()
        assert (status, json.loads(body)["outcome"]) == (503, "not_sent")
        assert gateway.readiness() == (200, {"status": "degraded", "reason": "service users has no instances"})
        gateway.program.wait_for_line(
            "DNS service _http._tcp.users.test: there is no such name; it has no instances yet"
        )
        names.say("_http._tcp.users.test", "SRV", f"1 1 {origin.port} localhost.")
        gateway.program.wait_until(lambda: ask(gateway, 1) == {"0": 1}, "an answer")
        assert list(gateway.instances("users")) == [f"localhost:{origin.port}"]
        gateway.program.wait_until(lambda: gateway.readiness()[1]["status"] == "ready", "readiness without a reason")


def test_instances_come_and_go_without_losing_a_request(start: Start, tmp_path: Path, four: Instances) -> None:
    def write(*numbers: int) -> None:
        (tmp_path / "next").write_text(json.dumps([f"http://{four.name(number)}" for number in numbers]))
        (tmp_path / "next").rename(tmp_path / "users.json")

    write(0, 1)
    gateway = start(
        config("{file: {path: users.json, every: 20ms}}", ", health: {path: /healthz, interval: 20ms}", workers=2)
    )
    found: Counter[str] = Counter()
    stop, counting = threading.Event(), threading.Lock()

    def load() -> None:
        while not stop.is_set():
            answers = ask(gateway, 10)
            with counting:
                found.update(answers)

    threads = [threading.Thread(target=load) for _ in range(6)]
    for thread in threads:
        thread.start()
    for numbers in ((1, 2), (2, 3), (0,), (0, 1, 2, 3), (3,)):
        write(*numbers)
        names = {four.name(number) for number in numbers}
        gateway.program.wait_until(
            lambda names=names: {n for n, each in gateway.instances("users").items() if each["state"] == "in"} == names,
            "the change",
        )
        seen = found.total()
        gateway.program.wait_until(lambda seen=seen: found.total() > seen + 100, "more requests")
    calls = [four.calls(number) for number in range(3)]
    stop.set()
    for thread in threads:
        thread.join(10)
    assert set(found) == {"0", "1", "2", "3"}, "nobody saw a failure"
    assert [four.calls(number) for number in range(3)] == calls, "who is gone gets nothing"
    assert sum(map(four.calls, range(4))) == found.total(), "and nothing was sent twice"


def test_the_name_that_is_looked_up_is_the_one_that_certificates_are_for(
    start: Start, names: NameServer, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    with Origin(says(0), tls=serving(authority.issue("users.test"))) as origin:
        names.say("users.test", "A", "127.0.0.1")
        name = f'name: "users.test:{origin.port}", scheme: https, server: "127.0.0.1:{names.port}"'
        http = f"{{dns: {{{name}}}, tls: {{ca: {authority.file}}}}}"
        gateway = start(config(http, ", health: /healthz"))
        gateway.program.wait_until(
            lambda: gateway.instances("users")[f"127.0.0.1:{origin.port}"]["state"] == "in", "its check"
        )
        assert ask(gateway, 2) == {"0": 2}


def test_a_reload_keeps_what_was_found(start: Start, names: NameServer) -> None:
    with Origin(says(0)) as origin:
        names.say("_http._tcp.users.test", "SRV", f"1 1 {origin.port} localhost.")
        names.ttl = 3600
        gateway = start(
            config(f'{{srv: {{name: _http._tcp.users.test, server: "127.0.0.1:{names.port}", longest: 1h}}}}')
        )
        assert ask(gateway, 1) == {"0": 1}
        connections, asked = origin.connections, len(names.asked)
        names.zone.clear()
        gateway.rewrite(gateway.path.read_text().replace("timeout: 5s", "timeout: 6s"))
        assert gateway.order("/reload") == (200, {"status": "reloaded"})
        assert ask(gateway, 3) == {"0": 3}
        assert (origin.connections, len(names.asked)) == (connections, asked)


def test_a_source_that_changes_while_a_request_is_in_flight_ends_no_worker(start: Start, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    goes_on = threading.Event()

    def slowly(connection: object, _request: bytes) -> bool:
        goes_on.wait(10)
        connection.sendall(OK)  # type: ignore[attr-defined]
        return True

    with Origin(slowly) as plain, Origin(says(1), tls=serving(authority.issue("127.0.0.1"))) as encrypted:
        (tmp_path / "users.json").write_text(json.dumps([f"http://127.0.0.1:{plain.port}"]))
        gateway = start(config("{file: {path: users.json}}"))
        with Client(gateway.port) as first:
            first.send(GET)
            gateway.program.wait_until(lambda: bool(plain.seen), "the call")
            (tmp_path / "secure.json").write_text(json.dumps([f"https://127.0.0.1:{encrypted.port}"]))
            gateway.rewrite(config(f"{{file: {{path: secure.json, scheme: https}}, tls: {{ca: {authority.file}}}}}"))
            assert gateway.order("/reload") == (200, {"status": "reloaded"})
            name = f"127.0.0.1:{encrypted.port}"
            assert gateway.order(f"/services/users/{name}/drain")[0] == 200, "all of the service is told again"
            assert gateway.order(f"/services/users/{name}/undrain")[0] == 200
            assert ask(gateway, 1) == {"1": 1}
            goes_on.set()
            assert first.read_answer()[0] == 200
        assert gateway.metrics()["castlegate_worker_restarts_total"] == 0
