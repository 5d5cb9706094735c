"""Functions for parts.yaml."""

from typing import Annotated, Any

from castlegate.python import Header, Principal, Service


async def home(
    user: str,
    body: dict[str, str],
    tenant: Annotated[str, Header("X-Tenant")],
    users: Service,
    prices: Annotated[Service, "prices.ask"],
    days: int = 7,
) -> Any:
    return None


def own(principal: Principal, path: dict[str, str]) -> bool:
    return principal.subject == path["user"]
