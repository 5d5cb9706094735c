"""Services that do everything wrong at once: every answer is whole, and afterwards nothing is under way."""

import random
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from tests.compose.conftest import Answer, Services, Start, ask, http

ROUTES = """
  GET /home:
    compose:
      a: {call: s, get: /a}
      b: {call: s, get: "/b/{a.id}", optional: true, timeout: 100ms}
      c: {call: s, get: /c, fallback_call: {call: s, get: /d}, fallback: {}}
      d: {call: s, get: "/e/{each}", each: "{a.skus[]}", optional: true}
  POST /home:
    compose:
      a: {call: s, post: /a}
      b: {call: s, post: "/b/{a.id}"}
      c: {call: s, post: /c, send: {x: "{a}"}}
"""
FINE = http(b'{"id":1,"skus":["a",2]}')


def test_every_answer_is_whole_and_nothing_is_left_under_way(services: Services, start: Start) -> None:
    chance, lock = random.Random(7), threading.Lock()

    def misbehave(connection: socket.socket, _request: bytes) -> bool:
        with lock:
            what = chance.choice(["fine"] * 6 + ["error", "late", "silent", "cut", "garbage", "stalled", "broken off"])
        if what == "late":
            time.sleep(0.4)
        elif what == "error":
            connection.sendall(http(b"{}", status=500))
            return True
        elif what == "cut":
            connection.sendall(http(b'{"id":'))
            return True
        elif what == "garbage":
            connection.sendall(b"garbage\r\n\r\n")
        elif what in ("stalled", "broken off"):
            connection.sendall(FINE[:-10])
            time.sleep(0.4 if what == "stalled" else 0)
        if what in ("fine", "late"):
            connection.sendall(FINE)
        return what in ("fine", "late")

    services.script = misbehave
    gateway = start(ROUTES, timeout="250ms")

    def one(number: int) -> Answer:
        if number % 2:
            return ask(gateway, "/home", method="POST", body=b"{}")
        return ask(gateway, "/home")

    with ThreadPoolExecutor(16) as clients:
        answers = list(clients.map(one, range(400)))
    statuses = {answer.status for answer in answers}
    assert {200} < statuses <= {200, 502, 504}
    for answer in answers:
        told = answer.json
        assert set(answer.parts) == set("abcd" if "d" in answer.parts else "abc")
        if answer.status == 200:
            assert list(told) == list(answer.parts)
        else:
            assert told["outcome"] in ("answered", "unknown", "not_sent")
    text = gateway.path.with_name("castlegate.log").read_text()
    assert "Traceback" not in text
