"""When brokers are taken to answer, and when they are given up."""

from castlegate.upstreams.kafka.link import Brokers, Link


def up() -> Brokers:
    brokers = Brokers()
    brokers.answered(lately=True)
    return brokers


def test_the_first_look_decides() -> None:
    assert Brokers().link is Link.STARTING
    assert up().link is Link.UP
    brokers = Brokers()
    assert brokers.silent("refused", now=0.0)
    assert brokers.link is Link.DOWN
    assert brokers.reason == "refused"


def test_broken_connections_make_them_suspect_until_the_next_look() -> None:
    brokers = up()
    assert brokers.broke()
    assert brokers.link is Link.SUSPECT
    assert not brokers.broke()
    assert not brokers.answered(lately=True)
    assert brokers.link is Link.UP
    brokers.broke()
    assert brokers.silent("refused", now=0.0)
    assert brokers.link is Link.DOWN


def test_a_look_from_before_the_suspicion_does_not_allay_it() -> None:
    brokers = up()
    brokers.broke()
    assert not brokers.answered(lately=False)
    assert brokers.link is Link.SUSPECT


def test_connections_that_break_while_they_are_down_say_nothing_new() -> None:
    for brokers in (Brokers(), up()):
        brokers.broke()
        brokers.silent("refused", now=0.0)
        assert not brokers.broke()
        assert brokers.link is Link.DOWN


def test_it_is_told_once_that_they_are_given_up_and_once_that_they_answer_again() -> None:
    brokers = Brokers()
    assert [brokers.silent("refused", now) for now in (0.0, 1.0)] == [True, False]
    assert [brokers.answered(lately=True) for _ in range(2)] == [True, False]


def test_brokers_that_stall_are_suspect_after_a_while_only() -> None:
    brokers = up()
    for now in (10.0, 12.9):
        assert not brokers.silent("timed out", now)
        assert brokers.link is Link.UP
    brokers.answered(lately=True)
    for now in (13.0, 15.9):
        brokers.silent("timed out", now)
        assert brokers.link is Link.UP
    assert not brokers.silent("timed out", 16.0)
    assert brokers.link is Link.SUSPECT
    assert brokers.silent("timed out", 16.2)
    assert brokers.link is Link.DOWN
