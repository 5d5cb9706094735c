"""What outlives a reload, and its end."""

import logging

import pytest

from castlegate.resources import Resources


class Stopped:
    """One that notes its end, or fails to end."""

    def __init__(self, fails: bool = False) -> None:
        self.stops = 0
        self._fails = fails

    async def start(self) -> None:
        pass

    async def stop(self) -> None:
        self.stops += 1
        if self._fails:
            raise RuntimeError("it is stuck")


async def test_one_that_cannot_be_stopped_keeps_no_other_from_it(caplog: pytest.LogCaptureFixture) -> None:
    resources, made = Resources(), [Stopped(), Stopped(fails=True), Stopped()]
    for number, each in enumerate(made):
        resources.keep(f"thing {number}", None, lambda each=each: each)
    await resources.start()
    with caplog.at_level(logging.ERROR, "castlegate.resources"):
        await resources.retire([])
    assert [each.stops for each in made] == [1, 1, 1]
    [record] = caplog.records
    assert record.getMessage() == "thing 1 could not be stopped"
    assert record.exc_info is not None
    assert "it is stuck" in str(record.exc_info[1])


async def test_what_another_holds_is_stopped_by_the_last() -> None:
    first, made = Resources(), Stopped()
    first.keep("thing", None, lambda: made)
    await first.start()
    second = Resources(first)
    assert second.keep("thing", None, Stopped) is made
    await second.start()
    await first.retire([second])
    assert made.stops == 0
    await second.retire([])
    assert made.stops == 1
