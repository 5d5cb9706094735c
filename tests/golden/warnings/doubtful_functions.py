"""Policies for functions.yaml."""

from castlegate.python import Principal


async def own(principal: Principal, path: dict[str, str]) -> bool:
    return principal.subject == path["user"]


async def anybody(principal: Principal | None) -> bool:
    return principal is None
