"""Small writes of one turn of the loop leave together at its end, each in its place."""

import asyncio

from castlegate.wire.burst import Burst


class _Holder:
    def __init__(self, written: list[str], name: str) -> None:
        self.written = written
        self.name = name

    def write_held(self) -> None:
        self.written.append(self.name)


class _Broken(_Holder):
    def write_held(self) -> None:
        raise OSError("gone")


async def test_nothing_is_written_before_the_turn_ends() -> None:
    written: list[str] = []
    Burst().join(_Holder(written, "a"))
    assert written == []
    await asyncio.sleep(0)
    assert written == ["a"]


async def test_all_write_in_the_order_in_which_they_joined() -> None:
    written: list[str] = []
    burst = Burst()
    for name in "abc":
        burst.join(_Holder(written, name))
    await asyncio.sleep(0)
    assert written == ["a", "b", "c"]


async def test_one_that_fails_does_not_keep_the_others_from_writing() -> None:
    written: list[str] = []
    burst = Burst()
    burst.join(_Broken(written, "broken"))
    burst.join(_Holder(written, "whole"))
    await asyncio.sleep(0)
    assert written == ["whole"]


async def test_it_starts_anew_after_each_turn() -> None:
    written: list[str] = []
    burst = Burst()
    for name in "ab":
        burst.join(_Holder(written, name))
        await asyncio.sleep(0)
    assert written == ["a", "b"]
