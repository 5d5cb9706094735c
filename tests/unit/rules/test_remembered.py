"""What is remembered is bounded, and what is used goes last."""

from castlegate.rules.remembered import Remembered


def test_what_is_asked_for_stays_and_there_are_never_more_than_may_be() -> None:
    remembered = Remembered[str, int](10)
    remembered.put("often", 0)
    for number in range(1000):
        remembered.put(str(number), number)
        assert len(remembered) <= 10
        assert remembered.get("often") == 0
        assert remembered.get(str(number)) == number
    assert remembered.get("0") is None


def test_it_never_forgets_everything_at_once() -> None:
    remembered = Remembered[int, int](10)
    for number in range(1000):
        remembered.put(number, number)
        assert number < 5 or all(remembered.get(number - back) is not None for back in range(5))


def test_the_last_that_was_said_counts() -> None:
    remembered = Remembered[str, int](2)
    for name, value in (("a", 1), ("b", 2), ("a", 3), ("b", 4)):
        remembered.put(name, value)
    assert (remembered.get("a"), remembered.get("b"), len(remembered)) == (3, 4, 2)
    remembered.drop("a")
    assert (remembered.get("a"), remembered.get("b")) == (None, 4)
    remembered.clear()
    assert len(remembered) == 0


def test_nothing_is_remembered_where_nothing_may_be() -> None:
    remembered = Remembered[str, int](0)
    remembered.put("a", 1)
    assert remembered.get("a") is None
