"""A FastStream service that answers in every way FastStream can, for tests of the `faststream` dialect.

BOOTSTRAP: the broker. LEDGER: a file that gets a line of JSON for each message handled. Prints `ready` when it
consumes all partitions of its topics, which must exist.
"""

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from faststream import BaseMiddleware, FastStream, StreamMessage
from faststream.kafka import KafkaBroker, KafkaMessage, KafkaResponse

Payload = dict[str, Any]


class Ledger(BaseMiddleware):
    """Writes down every message a handler got."""

    async def consume_scope(
        self, call_next: Callable[[StreamMessage[Any]], Awaitable[Any]], msg: StreamMessage[Any]
    ) -> Any:
        """Note it before the handler runs, so that one that fails is in it too."""
        entry = {
            "topic": msg.raw_message.topic,
            "partition": msg.raw_message.partition,
            "correlation_id": msg.headers.get("correlation_id"),
            "headers": dict(msg.headers),
            "payload": _readable(await msg.decode()),
        }
        _note(entry)
        return await call_next(msg)


broker = KafkaBroker(os.environ["BOOTSTRAP"], middlewares=[Ledger], logger=None)
app = FastStream(broker, logger=None)


def operation(topic: str, *, workers: int = 1) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Subscribe to one topic, in a group of its own: members of one group would wait for each other's joining."""
    group = f"{os.environ.get('GROUP', 'fs-tests')}.{topic}"
    return broker.subscriber(topic, group_id=group, auto_offset_reset="earliest", max_workers=workers)


@operation("fs.echo")
async def echo(payload: Any, message: KafkaMessage) -> Payload:
    """What arrived, as this service sees it."""
    record = message.raw_message
    assert not isinstance(record, tuple)
    return {
        "payload": _readable(payload),
        "headers": dict(message.headers),
        "key": record.key.decode() if record.key is not None else None,
        "topic": record.topic,
        "partition": record.partition,
    }


@operation("fs.fail")
async def fail(payload: Any) -> None:
    """FastStream answers nothing."""
    raise RuntimeError("something broke")


@operation("fs.slow", workers=64)
async def slow(payload: Payload) -> Payload:
    await asyncio.sleep(payload["delay_ms"] / 1000)
    return {"waited_ms": payload["delay_ms"]}


@operation("fs.none")
async def none(payload: Any) -> None:
    """An empty value without a content type."""


@operation("fs.text")
async def text(payload: Payload) -> str:
    return str(payload.get("text", "just text"))


@operation("fs.bytes")
async def raw(payload: Payload) -> bytes:
    return bytes.fromhex(payload.get("hex", "00ff10"))


@operation("fs.json")
async def value(payload: Payload) -> Any:
    """Answers `value`, or an object of `size` bytes and more."""
    return payload["value"] if "value" in payload else {"blob": "x" * payload["size"]}


@operation("fs.reply")
async def reply(payload: Payload) -> KafkaResponse:
    """A reply with `headers` of the service's own."""
    return KafkaResponse(payload.get("body"), headers=payload.get("headers", {}))


@operation("fs.events")
async def events(payload: Any) -> None:
    """An event is only written down."""


@app.after_startup
async def ready() -> None:
    """Each subscriber was started, which waits for its assignment."""
    print("ready", flush=True)


def _note(entry: Payload) -> None:
    with Path(os.environ["LEDGER"]).open("a") as ledger:
        ledger.write(json.dumps(entry) + "\n")


def _readable(payload: Any) -> Any:
    return payload.decode("utf-8", "backslashreplace") if isinstance(payload, bytes) else payload


if __name__ == "__main__":
    asyncio.run(app.run())
