"""Ten thousand kept-alive connections that each have asked once and now say nothing: memory of the gateway for each.

    python -m benchmarks.idle [--connections N]

A process may open some 20,000 files at most, so the clients are in this one and the gateway is another.
"""

import argparse
import asyncio
import contextlib
import resource
import sys
import tempfile
from pathlib import Path

from benchmarks.measure import CannotMeasure, Running, resident_memory
from benchmarks.peers.castlegate import castlegate
from benchmarks.services.origin import origin

_REQUEST = (
    b"GET /orders/7 HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:132.0)\r\n"
    b"Accept: application/json\r\nAccept-Language: en-US,en;q=0.7\r\nCookie: session=4f3c2b1a09f8e7d6c5b4a392\r\n\r\n"
)
_AT_ONCE = 50


def main() -> int:
    """Run it; 1 if a connection costs 10 KB or more."""
    parser = argparse.ArgumentParser(description="Memory of idle connections.")
    parser.add_argument("--connections", type=int, default=10_000)
    count = parser.parse_args().connections
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    config = (
        Path(__file__)
        .with_name("gateway_http.yaml")
        .read_text()
        .replace(
            "listen: 127.0.0.1:${PORT}",
            'listen: {address: "127.0.0.1:${PORT}", '
            f"limits: {{connections: {count + 100}}}, timeouts: {{idle: 10m}}}}",
        )
    )
    config += "  GET /orders/{id}: {call: origin}\n"
    try:
        with contextlib.ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="castlegate-idle-")))
            port = stack.enter_context(origin(folder))
            (folder / "gateway").mkdir()
            subject = castlegate(config, {"ORIGIN_PORT": str(port)})
            running = stack.enter_context(subject.start(folder / "gateway"))
            each = asyncio.run(_measure(running, count))
    except CannotMeasure as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{count} idle connections: {each / 1000:.1f} KB each")
    return 0 if each < 10_000 else 1


async def _measure(running: Running, count: int) -> float:
    port = int(running.url.rpartition(":")[2])
    await _ask(port)
    before = resident_memory(running.program.pid)
    gate = asyncio.Semaphore(_AT_ONCE)
    writers = await asyncio.gather(*[_ask(port, gate) for _ in range(count)])
    each = (resident_memory(running.program.pid) - before) / count
    for writer in writers:
        writer.close()
    return each


async def _ask(port: int, gate: asyncio.Semaphore | None = None) -> asyncio.StreamWriter:
    async with gate or contextlib.nullcontext():
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(_REQUEST)
        head = await reader.readuntil(b"\r\n\r\n")
        if b" 200 " not in head.partition(b"\r\n")[0]:
            raise CannotMeasure(f"not served: {head!r}")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        await reader.readexactly(length)
        return writer


if __name__ == "__main__":
    sys.exit(main())
