"""One instance of an HTTP service that can be treated badly: `python instance.py PORT NAME`.

Answers with its name. `POST /be/MODE` changes how: `well`, `slow` (after 3 s), `reset` (a reset instead of an answer),
`broken` (500) or `cut` (half an answer).
"""

import asyncio
import socket
import struct
import sys

_RESET = struct.pack("ii", 1, 0)


class Instance:
    """Serves until it is ended."""

    def __init__(self, name: str) -> None:
        self.name = name.encode()
        self.mode = "well"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = head.lower().partition(b"\r\ncontent-length: ")[2].partition(b"\r\n")[0]
                await reader.readexactly(int(length or 0))
                if head.startswith(b"POST /be/"):
                    self.mode = head.split(b" ")[1].rpartition(b"/")[2].decode()
                    writer.write(b"HTTP/1.1 204 OK\r\n\r\n")
                elif not await self._answer(writer):
                    break
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _answer(self, writer: asyncio.StreamWriter) -> bool:
        if self.mode == "slow":
            await asyncio.sleep(3)
        if self.mode == "reset":
            connection: socket.socket = writer.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            return False
        status = b"500 Broken" if self.mode == "broken" else b"200 OK"
        answer = b"HTTP/1.1 %b\r\ncontent-length: %d\r\n\r\n%b" % (status, len(self.name), self.name)
        writer.write(answer[: len(answer) // 2] if self.mode == "cut" else answer)
        return self.mode != "cut"


async def main(port: int, name: str) -> None:
    """The program."""
    server = await asyncio.start_server(Instance(name).serve, "127.0.0.1", port, backlog=1000)
    print(f"{name} listens", flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2]))
