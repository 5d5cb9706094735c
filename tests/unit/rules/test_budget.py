"""The budget of repetitions, under storms in which everything fails and everyone repeats."""

import heapq
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from castlegate.rules.budget import RepeatBudget

SHARES = st.sampled_from([0.0, 0.1, 0.2, 0.5])
LEASTS = st.integers(0, 5)


@given(SHARES, LEASTS, st.lists(st.sampled_from(["call", "end", "repeat", "repeated"]), max_size=200))
def test_never_more_repetitions_than_the_share_or_the_least(share: float, least: int, steps: list[str]) -> None:
    budget = RepeatBudget(share, least)
    for step in steps:
        if step == "call":
            budget.active += 1
        elif step == "end" and budget.active:
            budget.active -= 1
        elif step == "repeated" and budget.repeats:
            budget.give_back()
        elif step == "repeat":
            before = budget.repeats
            taken = budget.take()
            allowed = before < least or before + 1 <= budget.active * share
            assert (taken, budget.repeats) == (allowed, before + allowed)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(50, 400), st.integers(2, 6))
def test_in_a_storm_a_service_gets_little_more_than_without_repetitions(seed: int, clients: int, tries: int) -> None:
    """Every call fails, each client calls again and again, and every call would be tried `tries` times."""
    chance = random.Random(seed)
    budget = RepeatBudget(0.2, 3)
    attempts = calls = 0
    # When something of a client ends: a call's first try, or a repetition of it.
    events = [(chance.random(), client, 1) for client in range(clients)]
    heapq.heapify(events)
    calls = attempts = budget.active = clients
    while calls < 40 * clients:
        now, client, tried = heapq.heappop(events)
        if tried > 1:
            budget.give_back()
        if tried < tries and budget.take():
            attempts += 1
            heapq.heappush(events, (now + 0.5 + chance.random(), client, tried + 1))
            continue
        calls += 1
        attempts += 1
        heapq.heappush(events, (now + 0.5 + chance.random(), client, 1))
    assert attempts <= calls * 1.3
    assert budget.repeats <= max(3, 0.2 * clients)


@given(SHARES, LEASTS, st.integers(0, 1000))
def test_what_is_given_back_can_be_taken_again(share: float, least: int, active: int) -> None:
    budget = RepeatBudget(share, least)
    budget.active = active
    taken = 0
    while budget.take():
        taken += 1
    for _ in range(taken):
        budget.give_back()
    assert budget.repeats == 0
    again = 0
    while budget.take():
        again += 1
    assert again == taken == max(least, int(active * share))
