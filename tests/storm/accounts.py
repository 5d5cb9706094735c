"""Judges a storm: what each client saw, against the ledger of the service and the events that are stored.

Pure: outcomes, ledger and faults go in, violations and a table come out.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

OUTCOMES = ("ok", "not_sent", "unknown", "answered", "lost", "crossed")

IN_FLIGHT_S = 2.0  # a request that was asked longer ago ought to have been answered before the fault


class Asked(NamedTuple):
    """One request and what became of it for its client."""

    id: str
    phase: str
    event: bool  # published, not asked
    began: float
    ended: float
    outcome: str
    status: int


class Fault(NamedTuple):
    """When something was wrong, the time to recover included; `excuses` tells whether requests may fail for it."""

    name: str
    began: float
    ended: float
    excuses: bool


class Violation(NamedTuple):
    """A rule that was broken."""

    rule: str
    asked: Asked
    detail: str = ""


def judge(
    asked: Iterable[Asked], executed: Mapping[str, int], stored: Mapping[str, int], faults: Sequence[Fault]
) -> list[Violation]:
    """All violations. `executed` and `stored` count the records of each id."""
    found = []
    excuses = [fault for fault in faults if fault.excuses]
    for each in asked:
        count = (stored if each.event else executed).get(each.id, 0)
        if each.outcome in ("lost", "crossed"):
            found.append(Violation(f"an answer is {each.outcome}", each))
        elif each.outcome not in OUTCOMES:
            found.append(Violation("an answer that is no honest outcome", each, each.outcome))
        if each.outcome in ("ok", "answered") and count != 1:
            found.append(Violation("answered and not executed once", each, f"{count} times"))
        if each.outcome == "not_sent" and count:
            found.append(Violation("not sent and executed", each, f"{count} times"))
        if each.outcome == "unknown" and count > 1:
            found.append(Violation("executed more than once", each, f"{count} times"))
        excused = any(fault.began - IN_FLIGHT_S <= each.began <= fault.ended for fault in excuses)
        if each.outcome != "ok" and not excused:
            found.append(Violation("failed without a fault", each, each.outcome))
    return found


def table(asked: Iterable[Asked]) -> list[list[str]]:
    """Rows of text: how each phase went."""
    by_phase: dict[str, list[Asked]] = defaultdict(list)
    for each in asked:
        by_phase[each.phase].append(each)
    rows = [["phase", "requests", *OUTCOMES, "other", "slowest s"]]
    total: Counter[str] = Counter()
    for phase, those in by_phase.items():
        counts = Counter(each.outcome for each in those)
        total += counts
        slowest = max(each.ended - each.began for each in those)
        rows.append(_row(phase, counts, f"{slowest:.2f}"))
    rows.append(_row("all", total, ""))
    return rows


def _row(name: str, counts: Counter[str], slowest: str) -> list[str]:
    other = sum(count for outcome, count in counts.items() if outcome not in OUTCOMES)
    return [name, str(counts.total()), *(str(counts[outcome]) for outcome in OUTCOMES), str(other), slowest]
