"""The functions that the gateways of these tests call: copied beside their configuration."""

import asyncio
import logging
import time
from datetime import datetime
from typing import Annotated, Any

import msgspec

from castlegate.python import (
    CallFailed,
    Context,
    Header,
    Principal,
    Problem,
    Response,
    Service,
    ServiceFailed,
)


class Order(msgspec.Struct):
    item: Annotated[str, msgspec.Meta(min_length=1)]
    count: Annotated[int, msgspec.Meta(ge=1)] = 1


async def inputs(
    number: int,
    body: Order,
    tenant: Annotated[str, Header("X-Tenant")],
    ctx: Context,
    who: Principal | None,
    tags: list[str] | None = None,
    page: int = 1,
) -> dict[str, Any]:
    """Tell what came."""
    return {
        "number": number, "item": body.item, "count": body.count, "tenant": tenant, "page": page, "tags": tags,
        "who": None if who is None else who.subject, "method": ctx.method, "path": ctx.path, "id": ctx.id,
        "left": 0 < ctx.left <= 5, "client": ctx.client,
    }  # fmt: skip


async def tags(tags: list[int]) -> list[int]:
    return tags


async def nothing() -> None:
    return None


async def made() -> Response:
    return Response({"id": 7}, status=201, headers={"Location": "/orders/7"})


async def text() -> Response:
    return Response("žluť")


async def splits() -> Response:
    return Response("x", headers={"x-a": "1\r\nset-cookie: a=b"})


async def refuses() -> None:
    raise Problem(409, "It is sold out.")


async def fails() -> None:
    raise KeyError("a secret of the shop")


async def ends() -> None:
    raise SystemExit(3)


class Stop(BaseException):
    pass


async def stops() -> None:
    raise Stop("far away")


async def odd() -> object:
    return object()


async def waits() -> str:
    try:
        async with asyncio.timeout(30):
            await asyncio.sleep(30)
    except asyncio.CancelledError:
        logging.getLogger("shop").warning("it was cancelled")
        raise
    return "never"


async def stubborn() -> str:
    for _ in range(3):
        try:
            await asyncio.sleep(0.5)
        except asyncio.CancelledError:
            continue
    return "late"


def blocks(seconds: float) -> str:
    time.sleep(seconds)
    return "done"


def blocks_and_fails() -> str:
    raise SystemExit(4)


def blocks_and_calls(users: Service, ctx: Context) -> Any:
    return ctx.wait(users(get="/a"))


def blocks_and_hangs(users: Service, ctx: Context) -> Any:
    return ctx.wait(users(get="/hangs"))


async def waits_like_a_thread(users: Service, ctx: Context) -> Any:
    return ctx.wait(users(get="/a"))


async def leaves_a_call(users: Service) -> Any:
    return await asyncio.gather(users(get="/hangs"), users(get="/missing"))


async def has_no_time(seconds: float, users: Service) -> Any:
    return await users(get="/a", timeout=seconds)


async def sets_twice() -> Response:
    return Response("x", headers={"Content-Type": "text/html", "content-type": "text/plain"})


async def page(user: str, users: Service, stock: Annotated[Service, "stock"], ctx: Context) -> dict[str, Any]:
    """Two services side by side, and one by its name."""
    one, two = await asyncio.gather(
        users(get="/users/{user}?of={user}", values={"user": user}), stock({"of": user}, post="/count")
    )
    three = await ctx.ask("users", delete="/carts/1", headers={"x-reason": "test"})
    return {"user": one, "stock": two, "status": three.status, "kind": three.headers["content-type"]}


async def way_out(users: Service) -> Any:
    return await users(get="/users/{user}", values={"user": "../admin"})


async def forges(users: Service) -> Any:
    return await users(get="/a", headers={"Traceparent": "00-1-1-01"})


async def unknown(ctx: Context) -> Any:
    return await ctx.call("nobody", get="/")


async def passes_on(users: Service) -> Any:
    return await users(get="/missing")


async def catches(users: Service) -> dict[str, Any]:
    try:
        return {"got": await users(get="/missing")}
    except ServiceFailed as failed:
        return {"failed": failed.answer.status}
    except CallFailed as failed:
        return {"kind": failed.kind.name}


async def hopeless(users: Service) -> Any:
    return await users(get="/hangs", timeout=0.2)


async def hangs(users: Service) -> Any:
    return await users(get="/hangs")


async def expects(users: Service) -> Order:
    return await users(get="/a", into=Order)


async def who(ctx: Context, principal: Principal) -> str:
    return principal.subject


# Policies.


async def own(principal: Principal, path: dict[str, str]) -> bool:
    return principal.subject == path["user"]


def all_facts(
    principal: Principal | None,
    method: str,
    path: dict[str, str],
    query: dict[str, str],
    headers: dict[str, str],
    client: str,
    now: datetime,
) -> bool:
    return (
        principal is None
        and method == "GET"
        and path == {"user": "ann"}
        and query == {"a": "1"}
        and headers["x-flag"] == "yes"
        and client == "127.0.0.1"
        and now.tzinfo is not None
    )


async def broken(method: str) -> bool:
    raise RuntimeError("broken policy")


async def truthy(method: str) -> bool:
    return "yes"  # type: ignore[return-value]


async def slow(method: str) -> bool:
    await asyncio.sleep(30)
    return True
