"""`make faults`: a campaign of so many minutes, from a seed, with a table at the end.

Exit status 1 if anything was wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.faults.campaign import Outcome, Report, run
from tests.faults.faults import FAULTS

MIB = 1 << 20

console = Console(highlight=False)


def main() -> int:
    """Runs one campaign and shows what it found."""
    parser = argparse.ArgumentParser(prog="make faults", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--only", action="append", choices=[fault.name for fault in FAULTS], default=[])
    parser.add_argument("--keep", type=Path, help="a folder for logs and data, which stays")
    chosen = parser.parse_args()
    # So that what was started and mounted is ended and unmounted, as after Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="cohort-sync-faults-") as folder:
        where = chosen.keep or Path(folder)
        where.mkdir(parents=True, exist_ok=True)
        # A client that says how a broker is away says what we know, many times.
        logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
        report = asyncio.run(
            run(chosen.seed, seconds=chosen.minutes * 60, folder=where, only=frozenset(chosen.only), tell=_tell)
        )
    show(report)
    if report.problems:
        console.print(
            f"[bold red]wrong[/]; again: make faults FAULT_SEED={chosen.seed} FAULT_MINUTES={chosen.minutes:g}"
        )
        return 1
    return 0


def _tell(outcome: Outcome) -> None:
    took = f"recovered in {outcome.recovered_s:.1f} s" if outcome.recovered_s else "did not recover"
    print(f"{time.strftime('%H:%M:%S')} {' + '.join(outcome.names)}: {took}", file=sys.stderr, flush=True)


def show(report: Report) -> None:
    """A row for each fault, and what was compared."""
    table = Table(title=f"Seed {report.seed}: seconds until all that was there was stored and committed")
    for column in ("fault", "times", "survived", "median", "worst"):
        table.add_column(column, justify="left" if column == "fault" else "right")
    by_name: dict[str, list[float | None]] = {}
    for outcome in report.outcomes:
        for name in outcome.names:
            by_name.setdefault(name, []).append(outcome.recovered_s)
    for name, times in sorted(by_name.items()):
        known = sorted(time for time in times if time is not None)
        median, worst = (f"{known[len(known) // 2]:.1f}", f"{known[-1]:.1f}") if known else ("-", "-")
        table.add_row(name, str(len(times)), str(len(known)), median, worst)
    console.print(table)
    compared, before, after = report.compared, report.before, report.after
    console.print(
        f"{compared.deltas:,} deltas of {compared.records:,} records checked: {compared.memberships:,} memberships, "
        f"{compared.dead_letters:,} dead letters, and {compared.projected:,} members in Valkey. "
        f"[bold]{compared.lost} lost, {compared.wrong} wrong.[/]"
    )
    console.print(
        f"A process held {before.open_files} open files before and {after.open_files} after, "
        f"{before.tasks} and {after.tasks} tasks, "
        f"{before.memory_bytes / MIB:.0f} and {after.memory_bytes / MIB:.0f} MiB."
    )
    together = sum(len(outcome.names) > 1 for outcome in report.outcomes)
    console.print(f"{len(report.outcomes)} times something was broken, {together} of them two things at once.")
    if report.left_out:
        console.print(f"[yellow]Not possible here, since they mount a small disk:[/] {', '.join(report.left_out)}")
    for problem in report.problems[:20]:
        console.print(f"  [red]{problem}[/]")


if __name__ == "__main__":
    sys.exit(main())
