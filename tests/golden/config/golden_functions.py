"""Functions that cannot be used, for functions.yaml."""

from collections.abc import Iterator
from typing import Annotated, Any

from castlegate.python import Principal, Service


class Odd:
    pass


async def good(number: int) -> int:
    return number


async def untyped(number) -> int:  # type: ignore[no-untyped-def]
    return number


async def open_ended(*numbers: int) -> int:
    return len(numbers)


async def odd(number: Odd) -> int:
    return 0


async def in_query(number: dict[str, int] | None = None) -> int:
    return 0


async def unnamed(number: "Missing") -> int:  # type: ignore[name-defined] # noqa: F821
    return 0


def generates() -> Iterator[int]:
    yield 1


async def calls(nobody: Service, users: Annotated[Service, "users.get"], orders: Service) -> Any:
    return None


async def calls_shadow(shadow: Service) -> Any:
    return None


async def knows(principal: Principal) -> str:
    return principal.subject


VALUE = 3


async def other_facts(principal: Principal, body: bytes) -> bool:
    return True


async def wrong_type(now: float) -> bool:
    return True


async def no_bool(method: str) -> str:
    return method
