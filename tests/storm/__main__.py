"""A storm by command: prints how each phase went, and exits with 1 if any request got less than the truth."""

import argparse
import asyncio
import random
import sys
import tempfile
import time
from pathlib import Path

from tests.storm.accounts import judge, table
from tests.storm.storm import FAULTS, Plan, Storm

_SHOWN = 20


def main() -> int:
    """The program."""
    parser = argparse.ArgumentParser(prog="storm", description=__doc__)
    parser.add_argument("--seed", type=int, default=None, help="of the schedule (default: a new one, printed)")
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--rate", type=float, default=300, help="requests per second")
    parser.add_argument("--instances", type=int, default=2)
    parser.add_argument("--workers", type=int, default=2, help="of each instance, where it knows more than one")
    parser.add_argument("--faults", help=f"in this order, instead of drawn: {', '.join(FAULTS)}")
    said = parser.parse_args()
    seed = random.SystemRandom().randrange(1_000_000) if said.seed is None else said.seed
    faults = [name.strip() for name in said.faults.split(",")] if said.faults else None
    plan = Plan(seed, said.requests, said.rate, said.instances, said.workers, faults)
    folder = Path(tempfile.mkdtemp(prefix="castlegate-storm-"))
    print(f"seed {seed}; logs and ledger in {folder}", flush=True)
    began = time.monotonic()

    def tell(line: str) -> None:
        print(f"{time.monotonic() - began:7.1f} s  {line}", flush=True)

    record = asyncio.run(Storm(plan, folder, tell).run())
    rows = table(record.asked)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print(
            "  ".join(
                cell.ljust(width) if not at else cell.rjust(width)
                for at, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
        )
    violations = judge(record.asked, record.executed, record.stored, record.faults)
    for violation in violations[:_SHOWN]:
        print(f"violation: {violation.rule} ({violation.detail}): {violation.asked}")
    print(f"{len(record.asked)} requests, {len(violations)} violations")
    return 1 if violations or len(record.asked) != plan.requests else 0


if __name__ == "__main__":
    sys.exit(main())
