"""The HTTP service behind the gateways for large bodies: sends 4 MB, takes whatever it is sent, and answers then.

Run: PORT=8000 python -m benchmarks.services.sink
"""

import asyncio
import os

import uvloop

SIZE = 4 * 1024 * 1024
_BIG = b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: %d\r\n\r\n" % SIZE + bytes(SIZE)
_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Sink(asyncio.Protocol):
    """One connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]
        self._head = b""
        self._left = 0  # bytes of a body

    def data_received(self, data: bytes) -> None:
        if self._left:
            self._left -= len(data)
            if not self._left:
                self._transport.write(_OK)
            return
        self._head += data
        end = self._head.find(b"\r\n\r\n")
        if end < 0:
            return
        head, rest = self._head[:end].lower(), self._head[end + 4 :]
        self._head = b""
        length = head.partition(b"content-length: ")[2].partition(b"\r\n")[0]
        if head.startswith(b"get"):
            self._transport.write(_BIG)
        else:
            self._left = int(length or 0) - len(rest)
            if not self._left:
                self._transport.write(_OK)


async def serve(port: int) -> None:
    """Serve until the program is ended."""
    server = await asyncio.get_running_loop().create_server(Sink, "127.0.0.1", port, backlog=1024)
    print("ready", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(os.environ["PORT"])))
