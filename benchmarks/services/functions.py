"""The functions that benchmarks/functions.py has the gateway call."""

import asyncio
from typing import Any

from castlegate.python import Principal, Service


async def nothing(id: int) -> dict[str, int]:  # noqa: A002 - the placeholder's name
    return {"id": id}


def in_a_thread(id: int) -> dict[str, int]:  # noqa: A002
    return {"id": id}


async def one(id: int, origin: Service) -> Any:  # noqa: A002
    return await origin(get="/orders/{id}", values={"id": id})


async def three(id: int, origin: Service) -> dict[str, Any]:  # noqa: A002
    names = ("users", "orders", "prices")
    calls = [origin(get=f"/{name}/{{id}}", values={"id": id}) for name in names]
    return dict(zip(names, await asyncio.gather(*calls), strict=True))


async def allow(method: str, principal: Principal | None) -> bool:
    return method == "GET" or principal is not None
