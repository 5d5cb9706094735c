"""Instances that die, hang up and overload while they are asked by many."""

import re
import threading
import time
from collections import Counter

import pytest
from tests.resilience.conftest import Start, Told, ask, is_slow, says
from tests.testbeds.gateway import Gateway
from tests.testbeds.wire import Client

_ID = re.compile(rb"\r\nx-number: (\S+)\r\n")


class Clients:
    """Threads that ask in turn for reads and writes, each write with a number of its own."""

    def __init__(self, gateway: Gateway, number: int) -> None:
        self.stopping = threading.Event()
        self.reads: list[int] = []
        self.writes: list[int] = []
        self._threads = [threading.Thread(target=self._run, args=(gateway, each)) for each in range(number)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self.stopping.set()
        for thread in self._threads:
            thread.join()

    def _run(self, gateway: Gateway, own: int) -> None:
        count = 0
        with Client(gateway.port, 20) as client:
            while not self.stopping.is_set():
                count += 1
                client.send(b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n")
                self.reads.append(client.read_answer()[0])
                client.send(
                    b"POST /x HTTP/1.1\r\nHost: h\r\nX-Number: %d.%d\r\nContent-Length: 2\r\n\r\nhi" % (own, count)
                )
                self.writes.append(client.read_answer()[0])


def executed(*instances: Told) -> Counter[bytes]:
    return Counter(found[1] for each in instances for request in each.seen if (found := _ID.search(request)))


@pytest.mark.parametrize("how", ["hangs up", "dies"])
def test_reads_survive_an_instance_and_no_write_is_executed_twice(start: Start, how: str) -> None:
    """U5, U7."""
    with Told() as one, Told() as other:
        gateway = start(f"""
services:
  s:
    http: ["http://127.0.0.1:{one.port}", "http://127.0.0.1:{other.port}"]
    retry: {{tries: 4, on: [connect, no_answer, reset], backoff: 5ms}}
    repeats: {{least: 10}}
defaults: {{public: true, timeout: 5s}}
routes: {{ANY /x: {{call: s}}}}
""")
        one.otherwise = other.otherwise = is_slow(0.01)
        clients = Clients(gateway, 8)
        time.sleep(0.5)
        if how == "dies":
            one.stop_listening()
        for _ in range(5):
            one.hang_up()
            time.sleep(0.1)
        clients.stop()
        assert set(clients.reads) == {200}
        assert set(clients.writes) <= {200, 502}
        assert set(executed(one, other).values()) == {1}


def test_a_service_with_too_much_to_do_gets_no_more_than_it_can_bear(start: Start, one: Told) -> None:
    """Forty clients of one that fails everything beyond four at once."""
    gateway = start(f"""
services:
  s:
    http: ["http://127.0.0.1:{one.port}"]
    concurrency: {{limit: 4, queue: 40, wait: 10s}}
    retry: {{tries: 3, status: [503]}}
defaults: {{public: true, timeout: 15s}}
routes: {{ANY /x: {{call: s}}}}
""")
    busy, most = 0, 0
    lock = threading.Lock()

    def work(connection: object, request: bytes) -> bool:
        nonlocal busy, most
        with lock:
            busy += 1
            most = max(most, busy)
            too_many = busy > 4
        time.sleep(0.02)
        with lock:
            busy -= 1
        return says(503 if too_many else 200)(connection, request)

    one.otherwise = work
    answers: list[int] = []
    threads = [threading.Thread(target=lambda: answers.append(ask(gateway, "GET /x")[0])) for _ in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [200] * 40
    assert most <= 4
