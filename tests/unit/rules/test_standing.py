"""What results of checks make of an instance, against a model that looks at all of them."""

from hypothesis import given
from hypothesis import strategies as st

from castlegate.rules.standing import Standing


def test_the_first_result_decides_at_once() -> None:
    for failure in ("", "status 500"):
        standing = Standing(3, 2)
        assert standing.well is None
        assert standing.note(failure)
        assert (standing.well, standing.why) == (not failure, failure)


def test_one_that_is_ill_tells_the_latest_reason() -> None:
    standing = Standing(1, 2)
    assert standing.note("refused")
    assert not standing.note("status 500")
    assert standing.why == "status 500"
    assert not standing.note("")
    assert standing.why == "status 500"
    assert standing.note("")
    assert standing.why == ""


@given(st.integers(1, 5), st.integers(1, 5), st.lists(st.booleans(), min_size=1, max_size=60))
def test_it_turns_when_all_of_the_latest_results_say_so_and_never_else(
    unhealthy: int, healthy: int, results: list[bool]
) -> None:
    standing, wanted, seen = Standing(unhealthy, healthy), results[0], list[bool]()
    for number, passed in enumerate(results):
        before = standing.well
        turned = standing.note("" if passed else f"failure {number}")
        seen.append(passed)
        needed = unhealthy if wanted else healthy
        if number and len(seen) >= needed and all(each != wanted for each in seen[-needed:]):
            wanted = not wanted
        assert standing.well == wanted
        assert turned == (before != wanted)
        assert bool(standing.why) == (not wanted)
