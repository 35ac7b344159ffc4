"""`python -m tests.scale`: prints the tables of deploy/docs/scale.md, from the committed figures or from yours."""

from __future__ import annotations

import argparse
from pathlib import Path

from tests.scale.costs import MEASURED, load
from tests.scale.page import PAGE, TABLES, filled


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument(
        "measured", nargs="?", type=Path, default=MEASURED, help="what `make bench BENCH=scale` has left"
    )
    arguments.add_argument("--write", action="store_true", help="put them into the page instead")
    chosen = arguments.parse_args()
    measured = load(chosen.measured)
    if chosen.write:
        PAGE.write_text(filled(PAGE.read_text(), measured))
    else:
        print("\n\n".join(f"{name}\n\n{make(measured)}" for name, make in TABLES.items()))


main()
