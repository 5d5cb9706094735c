"""Which partitions are read from where, as topics come, grow and are made anew."""

from castlegate.upstreams.kafka.mailboxes import Mailbox
from castlegate.upstreams.kafka.topics import Order, Presence, TopicInfo

NOW = 1_000_000.0
REREAD = 30.0
EIGHT = TopicInfo(Presence.PRESENT, 8, "id-1")
GONE = TopicInfo(Presence.MISSING, problem="it does not exist")


def shared(pick: int = 13) -> Mailbox:
    return Mailbox("inbox", owned=8, pick=pick, reread=REREAD)


def fixed() -> Mailbox:
    return Mailbox("answers", owned=None, pick=None, reread=REREAD)


def assigned(box: Mailbox, info: TopicInfo = EIGHT) -> Mailbox:
    order = box.seen(info, NOW)
    assert order is not None
    box.assigned(order)
    return box


def where(box: Mailbox) -> tuple[str, int | None] | None:
    return None if box.address is None else (box.address.topic, box.address.partition)


def test_one_partition_is_read_from_its_end_and_named_once_it_is_assigned() -> None:
    box = shared(pick=13)
    order = box.seen(EIGHT, NOW)
    assert order == Order("inbox", (5,), None)
    assert where(box) is None
    box.assigned(order)
    assert where(box) == ("inbox", 5)
    assert box.seen(EIGHT, NOW) is None


def test_a_fixed_topic_is_read_whole_and_no_partition_is_named() -> None:
    box = fixed()
    order = box.seen(TopicInfo(Presence.PRESENT, 3, "id"), NOW)
    assert order == Order("answers", (0, 1, 2), None)
    box.assigned(order)
    assert where(box) == ("answers", None)


def test_an_address_stays_the_same_object_while_it_is_the_same_address() -> None:
    box = assigned(shared())
    address = box.address
    box.assigned(Order("inbox", (5,)))
    assert box.address is address


def test_a_missing_topic_has_a_problem_and_no_address() -> None:
    box = shared()
    assert box.seen(GONE, NOW) is None
    assert (where(box), box.problem) == (None, "it does not exist")
    order = box.seen(EIGHT, NOW)
    assert order == Order("inbox", (5,), None)
    assert box.problem == ""


def test_a_topic_made_anew_is_read_by_time() -> None:
    box = assigned(shared())
    assert box.seen(EIGHT._replace(id="id-2"), NOW) == Order("inbox", (5,), NOW - REREAD, frozenset({5}))
    assert where(box) is None


def test_a_topic_that_went_and_came_back_is_read_by_time() -> None:
    box = assigned(shared())
    assert box.seen(GONE, NOW) is None
    assert where(box) is None
    order = box.seen(EIGHT._replace(id="id-2", partitions=4), NOW)
    assert order == Order("inbox", (1,), NOW - REREAD, frozenset({1}))
    box.assigned(order)
    assert where(box) == ("inbox", 1)


def test_what_the_inbox_reported_lost_keeps_its_place_if_the_topic_is_still_the_same() -> None:
    box = assigned(shared())
    box.lose("")
    assert where(box) is None
    order = box.seen(EIGHT, NOW)
    assert order == Order("inbox", (5,), NOW - REREAD)
    box.assigned(order)
    assert where(box) == ("inbox", 5)


def test_an_old_assignment_does_not_open_what_was_lost_meanwhile() -> None:
    box = shared()
    order = box.seen(EIGHT, NOW)
    assert order is not None
    box.lose("gone")
    box.assigned(order)
    assert where(box) is None


def test_new_partitions_of_a_fixed_topic_are_read_too_and_requests_go_on_meanwhile() -> None:
    box = assigned(fixed(), TopicInfo(Presence.PRESENT, 2, "id"))
    assert box.seen(TopicInfo(Presence.PRESENT, 4, "id"), NOW) == Order("answers", (0, 1, 2, 3), NOW - REREAD)
    assert where(box) == ("answers", None)


def test_a_grown_inbox_is_no_reason_to_move() -> None:
    box = assigned(shared(pick=13))
    assert box.seen(EIGHT._replace(partitions=16), NOW) is None
    assert where(box) == ("inbox", 5)


def test_a_look_that_could_not_tell_changes_nothing() -> None:
    box = assigned(shared())
    assert box.seen(TopicInfo(Presence.UNKNOWN, problem="leader not available"), NOW) is None
    assert where(box) == ("inbox", 5)


def test_workers_of_an_instance_take_different_partitions() -> None:
    taken: set[int] = set()
    for slot in range(8):
        order = shared(pick=987_654_321 + slot).seen(EIGHT, NOW)
        assert order is not None
        taken.update(order.partitions)
    assert taken == set(range(8))


def test_what_is_to_be_forgotten_is_so_until_an_order_was_carried_out() -> None:
    """A topic just made has no leaders for a moment: the first order for it cannot be placed."""
    box = assigned(shared())
    anew = EIGHT._replace(id="id-2")
    assert box.seen(anew, NOW) is not None
    box.lose("no leaders found")
    order = box.seen(anew, NOW + 1)
    assert order == Order("inbox", (5,), NOW + 1 - REREAD, frozenset({5}))
    box.assigned(order)
    assert where(box) == ("inbox", 5)
    box.lose("gone for a moment")
    assert box.seen(anew, NOW + 2) == Order("inbox", (5,), NOW + 2 - REREAD)


def test_a_lost_place_is_found_again_even_if_the_first_try_fails() -> None:
    box = assigned(shared())
    assert box.misplaced(5, NOW) is not None
    box.lose("nobody answers")
    assert box.seen(EIGHT, NOW + 1) == Order("inbox", (5,), NOW + 1 - REREAD, frozenset({5}))
