"""Both ends of the wire: a client that sends bytes as they are, an origin that records what it saw and answers a script."""

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any, Self

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


class Client:
    """A connection to the gateway, over TLS if there is a context for it. A cut without close_notify is an error."""

    def __init__(
        self, port: int, timeout_s: float = 5.0, *, tls: ssl.SSLContext | None = None, name: str = "localhost"
    ) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout_s)
        if tls is not None:
            try:
                self.socket = tls.wrap_socket(self.socket, server_hostname=name, suppress_ragged_eofs=False)
            except BaseException:
                self.socket.close()
                raise
        self._rest = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> Self:
        self.socket.sendall(data)
        return self

    def read_answer(self, *, bodiless: bool = False) -> tuple[int, dict[str, str], bytes]:
        """One response by its framing: status, fields, body. A cut one raises `EOFError`."""
        head = self.read_until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        status = int(head[0].split(" ")[1])
        fields = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
        if bodiless or status < 200 or status in (204, 304):
            return status, fields, b""
        if fields.get("transfer-encoding") == "chunked":
            body = b""
            while size := int(self.read_until(b"\r\n"), 16):
                body += self._exactly(size)
                assert self._exactly(2) == b"\r\n"
            assert self._exactly(2) == b"\r\n"
            return status, fields, body
        return status, fields, self._exactly(int(fields["content-length"]))

    def read_to_end(self) -> bytes:
        """Everything until the connection ends, in whatever way."""
        with contextlib.suppress(ConnectionResetError):
            while data := self.socket.recv(65536):
                self._rest += data
        return self._rest

    def closed(self) -> bool:
        """Whether the gateway closes the connection without a further byte."""
        try:
            return self._rest == b"" and self.socket.recv(1) == b""
        except ConnectionResetError:
            return True

    def read_until(self, end: bytes) -> bytes:
        """Everything up to and with `end`."""
        while end not in self._rest:
            self._more()
        found, self._rest = (
            self._rest[: self._rest.index(end) + len(end)],
            self._rest[self._rest.index(end) + len(end) :],
        )
        return found

    def _exactly(self, size: int) -> bytes:
        while len(self._rest) < size:
            self._more()
        found, self._rest = self._rest[:size], self._rest[size:]
        return found

    def _more(self) -> None:
        data = self.socket.recv(65536)
        if not data:
            raise EOFError(f"closed after {self._rest!r}")
        self._rest += data


Script = Callable[[socket.socket, bytes], bool]  # gets the connection and a request as seen; True to go on with it


def answer(data: bytes) -> Script:
    """Answer every request with the same bytes."""

    def script(connection: socket.socket, _request: bytes) -> bool:
        connection.sendall(data)
        return True

    return script


class Origin:
    """A service behind the gateway. `seen` holds each request, head and body, byte for byte."""

    def __init__(
        self,
        script: Script | None = None,
        *,
        tls: ssl.SSLContext | None = None,
        address: tuple[str, int] = ("127.0.0.1", 0),
    ) -> None:
        self.script: Script = script or answer(OK)
        self.seen: list[bytes] = []
        self.unfinished: list[bytes] = []  # what was left of a connection that ended within a request
        self.connections = 0
        self.tls = tls  # spoken on the connections to come
        self.peers: list[Any] = []  # the certificates of those who connected over TLS
        self.accepts = True  # else each connection is closed at once
        self.early = b""  # an answer to each head, before its body
        self._open: set[socket.socket] = set()
        self._listening = socket.create_server(address)
        self.port: int = self._listening.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def __enter__(self) -> Self:
        return self

    def wait_closed(self, connection: socket.socket, timeout_s: float = 5.0) -> None:
        """Until a connection has ended at the other side."""
        end = time.monotonic() + timeout_s
        while connection in self._open:
            assert time.monotonic() < end, "the connection is still open"
            time.sleep(0.002)

    def hang_up(self) -> None:
        """End every connection; returns when they are closed."""
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads[1:]:
            thread.join(5)
        del self._threads[1:]

    def stop_listening(self) -> None:
        """Refuse further connections."""
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def __exit__(self, *_: object) -> None:
        self.stop_listening()
        self._threads[0].join(5)
        self.hang_up()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            self.connections += 1
            if not self.accepts:
                connection.close()
                continue
            if self.tls is not None:
                connection = self.tls.wrap_socket(
                    connection, server_side=True, do_handshake_on_connect=False, suppress_ragged_eofs=False
                )
            self._open.add(connection)
            thread = threading.Thread(target=self._serve, args=(connection,))
            thread.start()
            self._threads.append(thread)

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            if isinstance(connection, ssl.SSLSocket):
                connection.do_handshake()
                self.peers.append(connection.getpeercert())
            rest = b""
            while True:
                if self.early:
                    while b"\r\n\r\n" not in rest and (data := connection.recv(65536)):
                        rest += data
                    if rest:
                        connection.sendall(self.early)
                request, rest = _read_request(connection, rest)
                if not request:
                    if rest:
                        self.unfinished.append(rest)
                    break
                self.seen.append(request)
                if not self.script(connection, request):
                    break
        self._open.discard(connection)


def _read_request(connection: socket.socket, rest: bytes) -> tuple[bytes, bytes]:
    """A request and what stands behind it; none, and what there is of one, when the connection ends."""
    while (end := _end_of(rest)) is None:
        try:
            data = connection.recv(65536)
        except ConnectionResetError:
            data = b""
        if not data:
            return b"", rest
        rest += data
    return rest[:end], rest[end:]


def _end_of(data: bytes) -> int | None:
    """Where the first request ends, by its framing; None if it is not all there."""
    end = data.find(b"\r\n\r\n") + 4
    if end < 4:
        return None
    head = data[:end].lower()
    if b"\r\ntransfer-encoding: chunked\r\n" in head:
        while True:
            line = data.find(b"\r\n", end)
            if line < 0:
                return None
            size = int(data[end:line], 16)
            end = line + 2 + size + 2
            if not size:
                break
    elif b"\r\ncontent-length: " in head:
        end += int(head.split(b"\r\ncontent-length: ")[1].split(b"\r\n")[0])
    return end if end <= len(data) else None
