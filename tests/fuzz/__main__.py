"""`make fuzz`: feeds inputs to every format and fails where one breaks a promise."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from tests.fuzz.run import Finding, Fuzz, tried_again
from worker.commands.output import print_line, progress, tell

FINDINGS = Path(".local/fuzz")
_STEP = 1_000
_MOST_FINDINGS = 20


def main() -> int:
    arguments = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    arguments.add_argument("--inputs", type=int, default=1_000_000, help="how many (default: a million)")
    arguments.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000, help="default: another each time")
    arguments.add_argument("--again", type=Path, metavar="FILE", help="only read the input of a saved finding again")
    chosen = arguments.parse_args()
    if chosen.again:
        finding = tried_again(chosen.again)
        print_line(f"{finding.problem}\n{finding.trace}" if finding else "nothing is wrong with it now")
        return 1 if finding else 0
    tell(f"{chosen.inputs:,} inputs from seed {chosen.seed}")
    started = time.perf_counter()
    fuzz = Fuzz(chosen.seed)
    found = _found(fuzz, chosen.inputs)
    tried = sum(fuzz.outcomes.values())
    for finding in found:
        print_line(
            f"{finding.described(chosen.seed)}\nsaved as {finding.saved(FINDINGS, chosen.seed)}\n{finding.trace}"
        )
    outcomes = ", ".join(f"{number:,} {outcome}" for outcome, number in fuzz.outcomes.items())
    print_line(f"{tried:,} inputs ({outcomes}), {tried / (time.perf_counter() - started):,.0f} a second")
    print_line(f"{len(found)} broken promises" if found else "every promise was kept")
    return 1 if found else 0


def _found(fuzz: Fuzz, inputs: int) -> list[Finding]:
    """The first finding of each kind."""
    found: dict[tuple[str, str, str], Finding] = {}
    with progress("fuzzing", inputs) as advance:
        for number, finding in enumerate(fuzz.findings(inputs), 1):
            if finding is not None:
                found.setdefault((finding.input.integration, finding.problem, finding.trace), finding)
                if len(found) == _MOST_FINDINGS:
                    break
            if number % _STEP == 0:
                advance(_STEP)
    return list(found.values())


if __name__ == "__main__":
    sys.exit(main())
