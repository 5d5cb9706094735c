"""A FastStream service that says whose a token is: `good-NAME` is NAME's, `silent` is not answered, all else is nobody's.

BOOTSTRAP: the broker. LEDGER: a file that gets a line of JSON for each question. Prints `ready` when it consumes all
partitions of its topic, which must exist.
"""

import asyncio
import json
import os
from pathlib import Path
from typing import Any

from faststream import FastStream
from faststream.kafka import KafkaBroker, KafkaMessage

broker = KafkaBroker(os.environ["BOOTSTRAP"], logger=None)
app = FastStream(broker, logger=None)


@broker.subscriber("auth.verify", group_id="authorizer", auto_offset_reset="earliest", max_workers=32)
async def verify(payload: dict[str, Any], message: KafkaMessage) -> dict[str, Any]:
    """What the authorizer of the gateway's configuration asks."""
    token = payload["token"]
    _note({"token": token, "headers": dict(message.headers)})
    if token == "silent":
        raise RuntimeError("this is how a service fails that answers nothing")
    kind, _, name = token.partition("-")
    if kind != "good":
        return {"active": False}
    return {"sub": name, "scope": "orders:read orders:write", "tier": "gold"}


@app.after_startup
async def ready() -> None:
    """The subscriber was started, which waits for its assignment."""
    print("ready", flush=True)


def _note(entry: dict[str, Any]) -> None:
    with Path(os.environ["LEDGER"]).open("a") as ledger:
        ledger.write(json.dumps(entry) + "\n")


if __name__ == "__main__":
    asyncio.run(app.run())
