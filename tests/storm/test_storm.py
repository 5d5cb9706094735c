"""The short form of the storm, and that its judge does find what it looks for."""

from pathlib import Path

import pytest
from tests.storm.accounts import Asked, Fault, judge, table
from tests.storm.storm import Plan, Storm

FAULT = Fault("kill broker", 10.0, 20.0, excuses=True)
FREEZE = Fault("freeze broker", 10.0, 20.0, excuses=False)


def asked(outcome: str, began: float = 12.0, *, event: bool = False) -> Asked:
    return Asked("r1", "calm", event, began, began + 1, outcome, 0)


@pytest.mark.parametrize(
    ("one", "executed", "rules"),
    [
        (asked("ok", 1.0), 1, []),
        (asked("ok", 1.0), 0, ["answered and not executed once"]),
        (asked("ok", 1.0), 2, ["answered and not executed once"]),
        (asked("ok", 1.0, event=True), 1, ["answered and not executed once"]),  # executed by a service, but not stored
        (asked("answered"), 0, ["answered and not executed once"]),
        (asked("not_sent"), 0, []),
        (asked("not_sent"), 1, ["not sent and executed"]),
        (asked("unknown"), 0, []),
        (asked("unknown"), 1, []),
        (asked("unknown"), 2, ["executed more than once"]),
        (asked("unknown", 8.5), 1, []),
        (asked("unknown", 7.0), 1, ["failed without a fault"]),
        (asked("unknown", 21.0), 0, ["failed without a fault"]),
        (asked("lost"), 0, ["an answer is lost"]),
        (asked("crossed"), 1, ["an answer is crossed"]),
        (asked("no outcome"), 1, ["an answer that is no honest outcome"]),
    ],
)
def test_each_rule_is_seen_to_be_broken(one: Asked, executed: int, rules: list[str]) -> None:
    assert [each.rule for each in judge([one], {"r1": executed}, {}, [FAULT])] == rules


def test_some_faults_are_no_excuse() -> None:
    assert [each.rule for each in judge([asked("not_sent")], {}, {}, [FREEZE])] == ["failed without a fault"]


def test_the_table_adds_up() -> None:
    rows = table([asked("ok"), asked("ok"), asked("odd")])
    assert rows[1][:3] == ["calm", "3", "2"]
    assert rows[2][1:3] == ["3", "2"]


async def test_a_short_storm_answers_each_request_with_the_truth(tmp_path: Path) -> None:
    faults = ["kill broker", "freeze broker", "delete inbox"]
    plan = Plan(seed=4, requests=3600, rate=150, instances=2, workers=2, faults=faults)
    record = await Storm(plan, tmp_path, print).run()
    assert len(record.asked) == plan.requests
    assert {fault.name for fault in record.faults} >= set(faults[:2])
    assert judge(record.asked, record.executed, record.stored, record.faults) == []
