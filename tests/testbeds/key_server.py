"""Where a provider's keys are asked for: a server that answers what a test says."""

import socket
import threading
from collections.abc import Mapping
from typing import Any, Self

from tests.testbeds.tokens import Signer, jwks
from tests.testbeds.wire import Origin


class KeyServer(Origin):
    """Answers every request with the keys, one request a connection."""

    def __init__(self, *keys: Signer | Mapping[str, Any]) -> None:
        self.keys = list(keys)
        self.status = "200 OK"
        self.fields = ""  # further lines of the head
        self.body: bytes | None = None  # in place of the keys
        self.discovery: bytes | None = None  # the answer for the discovery document
        self.go = threading.Event()  # answers wait for it
        self.go.set()
        super().__init__(self._answer)

    def __enter__(self) -> Self:
        return self

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def fetches(self) -> int:
        """Requests for keys."""
        return len([request for request in self.seen if not _discovers(request)])

    def _answer(self, connection: socket.socket, request: bytes) -> bool:
        self.go.wait(10)
        body = jwks(*self.keys) if self.body is None else self.body
        if self.discovery is not None and _discovers(request):
            body = self.discovery
        head = f"HTTP/1.1 {self.status}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n{self.fields}\r\n"
        connection.sendall(head.encode() + body)
        return False


def _discovers(request: bytes) -> bool:
    return b"/.well-known/openid-configuration " in request.partition(b"\r\n")[0]
