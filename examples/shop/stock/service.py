"""The shop's stock: a FastStream service on Kafka.

Look at: `check` answers a request because the message says where to reply; FastStream does that by itself, the
gateway sends such messages. `reserve` is told who asks by a header that only the gateway can set. `adjusted` and
`placed` are events: no one waits for an answer. `audit` takes longer than the gateway's timeout allows.
Run: KAFKA=127.0.0.1:9092 python service.py
"""

import asyncio
import os

from faststream import FastStream
from faststream.kafka import KafkaBroker, KafkaMessage
from pydantic import BaseModel

broker = KafkaBroker(os.environ["KAFKA"], logger=None)
app = FastStream(broker, logger=None)

available = {"lamp": 12, "chair": 4, "table": 0}
prices = {"lamp": 30, "chair": 75, "table": 240}


class Item(BaseModel):
    """What is asked for."""

    sku: str


class Items(BaseModel):
    """Several that are asked for at once."""

    skus: list[str]


class Stock(BaseModel):
    """What is answered."""

    sku: str
    available: int


class Reservation(BaseModel):
    """What is kept for whom."""

    sku: str
    kept_for: str


class Adjustment(BaseModel):
    """An event: so many more of it, or fewer."""

    sku: str
    by: int


class Order(BaseModel):
    """An event: somebody bought something."""

    id: str
    item: str
    quantity: int = 1


# A group for each: a member that joins makes the others of its group wait.
# "earliest": a message written while the service started is read too.
@broker.subscriber("stock.check", group_id="stock.check", auto_offset_reset="earliest")
async def check(item: Item) -> Stock:
    return Stock(sku=item.sku, available=available.get(item.sku, 0))


@broker.subscriber("stock.prices", group_id="stock.prices", auto_offset_reset="earliest")
async def price(items: Items) -> dict[str, int]:
    return {sku: prices[sku] for sku in items.skus if sku in prices}


@broker.subscriber("stock.list", group_id="stock.list", auto_offset_reset="earliest")
async def list_all() -> dict[str, int]:
    return available


@broker.subscriber("stock.reserve", group_id="stock.reserve", auto_offset_reset="earliest")
async def reserve(item: Item, message: KafkaMessage) -> Reservation:
    user = message.headers["x-user-id"]
    available[item.sku] = available.get(item.sku, 0) - 1
    print(f"stock: one {item.sku} is kept for user {user}", flush=True)
    return Reservation(sku=item.sku, kept_for=user)


@broker.subscriber("stock.audit", group_id="stock.audit", auto_offset_reset="earliest")
async def audit() -> dict[str, int]:
    await asyncio.sleep(5)
    return available


@broker.subscriber("stock.adjusted", group_id="stock.adjusted", auto_offset_reset="earliest")
async def adjusted(event: Adjustment) -> None:
    available[event.sku] = available.get(event.sku, 0) + event.by
    print(f"stock: {event.sku} adjusted by {event.by}, now {available[event.sku]}", flush=True)


@broker.subscriber("orders.placed", group_id="stock.orders", auto_offset_reset="earliest")
async def placed(order: Order) -> None:
    available[order.item] = available.get(order.item, 0) - order.quantity
    print(f"stock: order {order.id} takes {order.quantity} {order.item}", flush=True)


@app.after_startup
async def say_ready() -> None:
    print("stock ready", flush=True)


if __name__ == "__main__":
    asyncio.run(app.run())
