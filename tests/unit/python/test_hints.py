"""What a signature says of a function, without a gateway."""

import functools
from typing import Annotated, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from castlegate.python import Context, Header, Principal, Service
from castlegate.python.hints import Unusable, read_signature
from castlegate.python.mistakes import mistake


class Item(msgspec.Struct):
    name: str
    count: Annotated[int, msgspec.Meta(ge=1)] = 1


async def full(
    id: int,  # noqa: A002 - as people write it
    body: Item,
    tenant: Annotated[str, Header("X-Tenant")],
    ctx: Context,
    who: Principal | None,
    orders: Annotated[Service, "orders.get"],
    users: Service,
    page: int = 1,
    tags: list[str] | None = None,
) -> list[Item]:
    """List items.

    More about it.
    """
    return [body]


def test_each_parameter_has_its_place() -> None:
    signature = read_signature(full, ["id"])
    places = {each.name: (each.place, each.key, each.required, each.many) for each in signature.inputs}
    assert places == {
        "id": ("path", "id", True, False),
        "body": ("body", "body", True, False),
        "tenant": ("header", "x-tenant", True, False),
        "page": ("query", "page", False, False),
        "tags": ("query", "tags", False, True),
    }
    assert (signature.contexts, signature.principals) == (["ctx"], {"who": True})
    assert signature.services == {"orders": "orders.get", "users": "users"}


def test_a_name_that_is_no_placeholder_is_one_of_the_query() -> None:
    assert read_signature(full, []).inputs[0].place == "query"


def test_the_fragment_for_openapi_tells_all_of_it() -> None:
    told = read_signature(full, ["id"]).openapi()
    operation = told["operation"]
    assert (operation["operationId"], operation["summary"]) == ("full", "List items.")
    assert [(each["name"], each["in"], each["required"]) for each in operation["parameters"]] == [
        ("id", "path", True), ("x-tenant", "header", True), ("page", "query", False), ("tags", "query", False),
    ]  # fmt: skip
    assert operation["parameters"][0]["schema"] == {"type": "integer"}
    reference = {"$ref": "#/components/schemas/Item"}
    assert operation["requestBody"] == {"required": True, "content": {"application/json": {"schema": reference}}}
    assert operation["responses"]["200"]["content"]["application/json"]["schema"] == {
        "type": "array",
        "items": reference,
    }
    assert told["components"]["schemas"]["Item"]["properties"]["count"]["minimum"] == 1


def test_a_function_that_takes_and_returns_nothing_has_a_fragment_too() -> None:
    async def nothing() -> None: ...

    assert read_signature(nothing, []).openapi() == {
        "operation": {"operationId": "nothing", "responses": {"204": {"description": "The answer"}}},
        "components": {"schemas": {}},
    }


def test_a_body_of_bytes_is_as_it_came() -> None:
    async def raw(body: bytes = b"") -> None: ...

    told = read_signature(raw, []).openapi()["operation"]
    assert told["requestBody"] == {"required": False, "content": {"application/octet-stream": {}}}


def test_a_decorator_that_says_what_it_wraps_is_looked_through() -> None:
    @functools.wraps(full)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return full(*args, **kwargs)

    signature = read_signature(wrapped, ["id"])
    assert signature.asynchronous
    assert len(signature.inputs) == 5


@pytest.mark.parametrize("value", [3, "text", Item, lambda x: x, len])
def test_what_is_no_typed_function_is_refused(value: Any) -> None:
    with pytest.raises(Unusable):
        read_signature(value, [])


@given(st.lists(st.one_of(st.integers(0, 99), st.from_regex(r"[a-z]{1,5}", fullmatch=True)), max_size=4))
def test_where_msgspec_finds_a_mistake_becomes_a_pointer(steps: list[int | str]) -> None:
    path = "".join([f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps])
    text = f"Expected `int`, got `str` - at `${path}`" if steps else "Expected `int`, got `str`"
    told = mistake("body", "", text)
    assert told == {
        "in": "body",
        "pointer": "".join([f"/{step}" for step in steps]),
        "detail": "Expected `int`, got `str`",
    }
