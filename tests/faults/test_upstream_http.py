"""The cases of *Upstream HTTP*, and what services do that they do not name. Each ends with the rules of `conftest`."""

import json
import socket
import struct
import threading
import time

import pytest
from tests.faults.conftest import CONFIG, Attack
from tests.testbeds.processes import free_port
from tests.testbeds.wire import OK, Client, Origin, answer

GET = b"GET /a/x HTTP/1.1\r\nHost: h\r\n\r\n"
POST = b"POST /a/x HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi"
UPLOAD = b"POST /a/x HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n"

TWO = CONFIG.replace('["http://127.0.0.1:{port}"]', '["http://127.0.0.1:REFUSED", "http://127.0.0.1:{port}"]')


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def outcome(client: Client, request: bytes) -> tuple[int, str]:
    status, _, body = client.send(request).read_answer()
    return status, json.loads(body)["outcome"]


def test_u1_a_refused_instance_is_passed_over_for_any_method(attack: Attack, origin: Origin) -> None:
    gateway = attack(TWO.replace("REFUSED", str(free_port())))
    with Client(gateway.port) as client:
        assert [client.send(message).read_answer()[0] for message in (GET, POST) * 20] == [200] * 40
    assert gateway.metrics()['castlegate_upstream_retries_total{service="origin",reason="connect"}'] >= 2
    assert len(origin.seen) == 40


def test_u2_a_get_is_sent_once_more_after_a_reset_and_a_post_never(attack: Attack, origin: Origin) -> None:
    gateway = attack()

    def reset_first(connection: socket.socket, _request: bytes) -> bool:
        if len(origin.seen) == 1:
            reset(connection)
            return False
        connection.sendall(OK)
        return True

    origin.script = reset_first
    with Client(gateway.port) as client:
        assert client.send(GET).read_answer()[0] == 200
        assert len(origin.seen) == 2
        origin.seen.clear()
        assert outcome(client, POST) == (502, "unknown")
        assert len(origin.seen) == 1


def test_u2_a_get_that_is_reset_twice_is_a_502(attack: Attack, origin: Origin) -> None:
    gateway = attack()
    origin.script = lambda connection, _: bool(reset(connection))
    with Client(gateway.port) as client:
        assert outcome(client, GET) == (502, "unknown")
    assert len(origin.seen) == 2


def test_u4_a_hanging_service_is_a_504_at_the_route_s_timeout(attack: Attack, origin: Origin) -> None:
    gateway = attack(CONFIG.replace("timeout: 2s", "timeout: 500ms"))
    hung_up = threading.Event()

    def hang(connection: socket.socket, _request: bytes) -> bool:
        connection.settimeout(10)
        try:
            connection.recv(1)
        except ConnectionResetError:
            pass
        hung_up.set()
        return False

    origin.script = hang
    with Client(gateway.port) as client:
        started = time.monotonic()
        assert outcome(client, GET) == (504, "unknown")
        assert 0.4 < time.monotonic() - started < 3
        assert hung_up.wait(5)
        origin.script = answer(OK)
        assert client.send(GET).read_answer()[0] == 200
    assert origin.connections == 2


def closes_used(origin: Origin) -> None:
    """Makes each connection close, with a reset, as its second request arrives."""
    used: set[socket.socket] = set()

    def script(connection: socket.socket, _request: bytes) -> bool:
        if connection in used:
            used.discard(connection)
            reset(connection)
            return False
        used.add(connection)
        connection.sendall(OK)
        return True

    origin.script = script


@pytest.mark.parametrize("pool", ["", ", connections: 4"])
def test_u9_no_get_of_10_000_meets_a_closing_connection(attack: Attack, origin: Origin, pool: str) -> None:
    gateway = attack(pool=pool)
    closes_used(origin)
    statuses: list[int] = []

    def ask(count: int) -> None:
        with Client(gateway.port, timeout_s=60) as client:
            for _ in range(count // 25):
                client.send(GET * 25)
                statuses.extend(client.read_answer()[0] for _ in range(25))

    count = 10_000 if not pool else 2_000
    threads = [threading.Thread(target=ask, args=(count // 8,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert {status: statuses.count(status) for status in set(statuses)} == {200: count}
    # What a request was not answered on is where it was sent first.
    retries = gateway.metrics()['castlegate_upstream_retries_total{service="origin",reason="no_answer"}']
    assert len(origin.seen) == count + retries


def test_u9_a_post_is_never_sent_twice(attack: Attack, origin: Origin) -> None:
    gateway = attack()
    closes_used(origin)
    posts = [POST.replace(b"/a/x", b"/a/%d" % number) for number in range(200)]
    with Client(gateway.port) as client:
        statuses = [client.send(post).read_answer()[0] for post in posts]
    assert set(statuses) == {200, 502}
    seen = [request.split(b" ")[1] for request in origin.seen]
    assert len(seen) == len(set(seen)) == 200


def test_u9_a_post_takes_no_connection_that_was_closed_while_idle(attack: Attack, origin: Origin) -> None:
    gateway = attack(pool="", config=CONFIG.replace("idle: 200ms{pool}", "idle: 60s"))
    with Client(gateway.port) as client:
        for _ in range(50):
            assert client.send(POST).read_answer()[0] == 200
            origin.hang_up()
    assert len(origin.seen) == 50


BAD_ANSWERS = {
    "a head of 200 KB (U10)": b"HTTP/1.1 200 OK\r\nx: " + b"y" * 200_000 + b"\r\ncontent-length: 2\r\n\r\nok",
    "a head that never ends": b"HTTP/1.1 200 OK\r\n" + b"x: yyyyyyyyyyyyyyyy\r\n" * 20_000,
    "500 fields (U10)": b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 500 + b"content-length: 2\r\n\r\nok",
    "length and coding (U10)": b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "coding and length": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 2\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "a NUL (U10)": b"HTTP/1.1 200 OK\r\nx: a\x00b\r\ncontent-length: 2\r\n\r\nok",
    "1,000 interim answers (U10)": b"HTTP/1.1 103 Early Hints\r\n\r\n" * 1000 + OK,
    "1,000 continuations": b"HTTP/1.1 100 Continue\r\n\r\n" * 1000 + OK,
    "101 unasked": b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n" + OK,
    "101 without its fields": b"HTTP/1.1 101 Switching Protocols\r\n\r\n" + OK,
    "two lengths": b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nokk",
    "two equal lengths": b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 2\r\n\r\nok",
    "a list of lengths": b"HTTP/1.1 200 OK\r\ncontent-length: 2, 2\r\n\r\nok",
    "a signed length": b"HTTP/1.1 200 OK\r\ncontent-length: +2\r\n\r\nok",
    "a negative length": b"HTTP/1.1 200 OK\r\ncontent-length: -2\r\n\r\nok",
    "a hexadecimal length": b"HTTP/1.1 200 OK\r\ncontent-length: 0x2\r\n\r\nok",
    "a huge length": b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999\r\n\r\nok",
    "an unknown coding": b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked twice": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks in HTTP/1.0": b"HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "a status of text": b"HTTP/1.1 abc OK\r\ncontent-length: 2\r\n\r\nok",
    "a status of two digits": b"HTTP/1.1 20 OK\r\ncontent-length: 2\r\n\r\nok",
    "a status of four digits": b"HTTP/1.1 2000 OK\r\ncontent-length: 2\r\n\r\nok",
    "a status below 100": b"HTTP/1.1 099 OK\r\ncontent-length: 2\r\n\r\nok",
    "a negative status": b"HTTP/1.1 -200 OK\r\ncontent-length: 2\r\n\r\nok",
    "another version": b"HTTP/2.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
    "a version that is none": b"HTTP/1.1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
    "ICY": b"ICY 200 OK\r\ncontent-length: 2\r\n\r\nok",
    "no HTTP": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "a body alone": b"ok\r\n\r\n",
    "HTTP/0.9": b"<html>ok</html>\r\n\r\n",
    "a bare LF": b"HTTP/1.1 200 OK\r\nx: a\ncontent-length: 2\r\n\r\nok",
    "a bare CR": b"HTTP/1.1 200 OK\r\nx: a\rb\r\ncontent-length: 2\r\n\r\nok",
    "a folded field": b"HTTP/1.1 200 OK\r\nx: a\r\n b\r\ncontent-length: 2\r\n\r\nok",
    "space before the colon": b"HTTP/1.1 200 OK\r\nx : a\r\ncontent-length: 2\r\n\r\nok",
    "a length with space before the colon": b"HTTP/1.1 200 OK\r\ncontent-length : 2\r\n\r\nok",
    "no colon": b"HTTP/1.1 200 OK\r\nx\r\ncontent-length: 2\r\n\r\nok",
    "a control in a field": b"HTTP/1.1 200 OK\r\nx: \x1b[2J\r\ncontent-length: 2\r\n\r\nok",
    "a control in the reason": b"HTTP/1.1 200 O\x00K\r\ncontent-length: 2\r\n\r\nok",
    "an empty line before it": b"\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
    "a first chunk that is none": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nok\r\n0\r\n\r\n",
}  # fmt: skip


def test_u10_a_bad_answer_is_a_502_and_its_connection_is_not_used_again(attack: Attack, origin: Origin) -> None:
    gateway = attack()
    with Client(gateway.port) as client:
        for name, bad in BAD_ANSWERS.items():
            before = origin.connections
            origin.script = answer(bad)
            status, _, body = client.send(GET).read_answer()
            assert (status, json.loads(body)["type"]) == (502, "urn:castlegate:bad_answer"), name
            origin.script = answer(OK)
            assert client.send(GET).read_answer()[2] == b"ok", name
            assert origin.connections == before + (2 if before == 0 else 1), name
    retried = gateway.metrics().get('castlegate_upstream_retries_total{service="origin",reason="no_answer"}', 0)
    assert retried == 0


def test_u10_bad_answers_leave_no_memory_behind(attack: Attack, origin: Origin) -> None:
    gateway = attack()
    with Client(gateway.port) as client:

        def ask_all() -> None:
            for bad in BAD_ANSWERS.values():
                origin.script = answer(bad)
                assert client.send(GET).read_answer()[0] == 502

        for _ in range(3):
            ask_all()
        before = gateway.resident()
        for _ in range(20):
            ask_all()
    assert gateway.resident() - before < 4_000_000


ENDS = {
    "nothing": b"",
    "half a status line": b"HTTP/1.1 20",
    "half a head": b"HTTP/1.1 200 OK\r\ncontent-le",
    "a head before a body by length": b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n",
    "half a body by length": b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhe",
    "half a size": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5",
    "half a chunk": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhe",
    "chunks without the last": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",
    "a last chunk without its end": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
    "half a trailer": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx: ",
    "an interim answer alone": b"HTTP/1.1 103 Early Hints\r\n\r\n",
}


@pytest.mark.parametrize("how", ["closed", "reset"])
def test_an_answer_cut_anywhere_is_never_taken_for_a_whole_one(attack: Attack, origin: Origin, how: str) -> None:
    gateway = attack()
    for request in (GET, POST):
        for name, part in ENDS.items():

            def cut(connection: socket.socket, _request: bytes, part: bytes = part) -> bool:
                connection.sendall(part)
                if how == "reset":
                    reset(connection)
                return False

            origin.script = cut
            with Client(gateway.port) as client:
                try:
                    status, _, body = client.send(request).read_answer()
                    assert (status, json.loads(body)["outcome"]) == (502, "unknown"), name
                except (EOFError, ConnectionResetError):
                    assert b"transfer-encoding" in part or b"content-length" in part, name
            origin.script = answer(OK)
            with Client(gateway.port) as client:
                assert client.send(GET).read_answer()[2] == b"ok", name
    posts = [request for request in origin.seen if request.startswith(b"POST")]
    assert len(posts) == len(ENDS)


def test_an_answer_longer_than_it_says_is_delivered_as_it_says(attack: Attack, origin: Origin) -> None:
    gateway = attack()
    origin.script = answer(OK + b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil")
    with Client(gateway.port) as client:
        assert [client.send(GET).read_answer()[2] for _ in range(50)] == [b"ok"] * 50
    assert origin.connections == 50


def test_bytes_that_come_before_a_request_are_nobody_s(attack: Attack, origin: Origin) -> None:
    """An answer that is sent while the connection is idle is not that of the next request on it."""
    gateway = attack(config=CONFIG.replace("idle: 200ms{pool}", "idle: 60s"))
    connections: list[socket.socket] = []

    def script(connection: socket.socket, _request: bytes) -> bool:
        connections.append(connection)
        connection.sendall(OK)
        return True

    origin.script = script
    with Client(gateway.port) as client:
        for _ in range(20):
            assert client.send(GET).read_answer()[2] == b"ok"
            connections[-1].sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil")
            origin.wait_closed(connections[-1])
    assert origin.connections == 20


def test_an_early_answer_reaches_the_client_and_ends_both_connections(attack: Attack, origin: Origin) -> None:
    gateway = attack()
    with Client(gateway.port) as client:
        origin.early = b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 3\r\n\r\nbig"
        client.send(UPLOAD + b"x" * 10)
        status, fields, body = client.read_answer()
        assert (status, body, fields["connection"]) == (413, b"big", "close")
        assert client.closed()
        origin.early = b""
    with Client(gateway.port) as client:
        assert client.send(GET).read_answer()[2] == b"ok"
    assert [request for request in origin.seen if request.startswith(b"POST")] == []


def test_many_tiny_chunks_before_the_end_of_the_connection_are_a_whole_answer(attack: Attack, origin: Origin) -> None:
    gateway = attack()
    count = 20_000
    body = b"1\r\nx\r\n" * count + b"0\r\n\r\n"

    def script(connection: socket.socket, _request: bytes) -> bool:
        connection.sendall(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n" + body)
        return False

    origin.script = script
    for _ in range(5):
        with Client(gateway.port) as client:
            assert client.send(GET).read_answer()[2] == b"x" * count


def test_a_flood_of_tiny_chunks_takes_bounded_memory_and_holds_nobody_up(attack: Attack, origin: Origin) -> None:
    gateway = attack()
    size, sent = 2_000_000, threading.Event()

    def script(connection: socket.socket, _request: bytes) -> bool:
        connection.sendall(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * size)
        connection.sendall(b"0\r\n\r\n")
        sent.set()
        return True

    origin.script = script
    before, grown, latencies, read = gateway.resident(), 0, [], 0
    with Client(gateway.port, timeout_s=20) as client:
        client.send(GET).read_until(b"\r\n\r\n")
        reader = threading.Thread(target=client.read_until, args=(b"\r\n0\r\n\r\n",))
        reader.start()
        while not sent.wait(0.1):
            latencies.append(gateway.ask_plain())
            grown = max(grown, gateway.resident() - before)
            read += 1
        reader.join(20)
        origin.script = answer(OK)
        assert client.send(GET).read_answer()[2] == b"ok"
    assert read
    assert max(latencies) < 1
    assert grown < 5_000_000
    assert origin.connections == 1


def test_a_connection_whose_client_was_slow_is_read_again_for_the_next(attack: Attack, origin: Origin) -> None:
    """The last chunks are decoded while the client holds the reading back."""
    gateway = attack(config=CONFIG.replace("idle: 200ms{pool}", "idle: 60s, connections: 1"))
    count = 150_000
    chunks = b"4\r\nxxxx\r\n" * count + b"0\r\n\r\n"

    def script(connection: socket.socket, _request: bytes) -> bool:
        connection.sendall(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + chunks)
        return True

    origin.script = script
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.settimeout(10)
        slow.connect(("127.0.0.1", gateway.port))
        slow.sendall(GET)
        taken, end = b"", b"0\r\n\r\n"
        while not taken.endswith(end):
            taken = taken[-8:] + slow.recv(20_000)
    origin.script = answer(OK)
    with Client(gateway.port) as client:
        assert client.send(GET).read_answer()[2] == b"ok"
    assert origin.connections == 1


def test_a_service_that_stops_reading_an_upload_is_given_up_at_the_route_s_timeout(attack: Attack) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        config = CONFIG.replace("{port}", str(deaf.getsockname()[1])).replace("body: 1MB", "body: 1GiB")
        gateway = attack(config=config.replace("timeout: 2s", "timeout: 700ms"))

        def send(client: Client) -> None:
            try:
                for _ in range(500):
                    client.socket.sendall(b"x" * 1_000_000)
            except OSError:
                return

        with Client(gateway.port, timeout_s=10) as client:
            client.send(b"POST /a/x HTTP/1.1\r\nHost: h\r\nContent-Length: 500000000\r\n\r\n")
            sender = threading.Thread(target=send, args=(client,))
            sender.start()
            started = time.monotonic()
            assert client.read_answer()[0] == 504
            assert time.monotonic() - started < 8  # read_timeout is 30 s
            client.socket.shutdown(socket.SHUT_RDWR)
            sender.join(5)


def test_a_service_that_reads_an_upload_slowly_is_not_given_up(attack: Attack) -> None:
    """It takes several times the route's timeout, always making some progress."""
    size = 12_000_000
    with socket.create_server(("127.0.0.1", 0)) as slow:
        slow.settimeout(10)
        config = CONFIG.replace("{port}", str(slow.getsockname()[1])).replace("body: 1MB", "body: 1GiB")
        gateway = attack(config=config.replace("timeout: 2s", "timeout: 700ms"))
        pace = threading.Event()

        def serve() -> None:
            connection, _ = slow.accept()
            with connection:
                connection.settimeout(10)
                taken = 0
                while taken < size:
                    if taken < 4_000_000:
                        pace.wait(0.1)  # the slowness itself
                    taken += len(connection.recv(100_000))
                connection.sendall(OK)
                connection.recv(1)

        server = threading.Thread(target=serve)
        server.start()
        with Client(gateway.port, timeout_s=20) as client:
            client.send(b"POST /a/x HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % size)
            for _ in range(size // 1_000_000):
                client.socket.sendall(b"x" * 1_000_000)
            assert client.read_answer()[2] == b"ok"
        server.join(5)


def test_answers_under_faults_never_reach_another_client(attack: Attack, origin: Origin) -> None:
    """Services that add bytes, cut, answer twice or close, asked by many at once for something of their own each."""
    gateway = attack()
    counter = iter(range(10**9))

    def script(connection: socket.socket, request: bytes) -> bool:
        path = request.split(b" ")[1]
        whole = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(path), path)
        match next(counter) % 7:
            case 0:
                connection.sendall(whole + whole)
            case 1:
                connection.sendall(whole[:-1])
                return False
            case 2:
                reset(connection)
                return False
            case 3:
                connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n" + whole)
            case 4:
                connection.sendall(whole)
                return False
            case _:
                connection.sendall(whole)
        return True

    origin.script = script
    wrong: list[object] = []
    right = [0]

    def ask(who: int) -> None:
        for number in range(60):
            path = b"/a/%d-%d" % (who, number)
            with Client(gateway.port) as client:
                try:
                    status, _, body = client.send(b"GET %b HTTP/1.1\r\nHost: h\r\n\r\n" % path).read_answer()
                except (EOFError, ConnectionResetError):
                    continue
            if status == 200 and body == path:
                right[0] += 1
            elif status != 502:
                wrong.append((path, status, body))

    threads = [threading.Thread(target=ask, args=(who,)) for who in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []
    assert right[0] > 200
