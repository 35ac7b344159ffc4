"""`cohort-sync`, and the same as `python -m worker`."""

from __future__ import annotations

import sys

from worker.commands import cli
from worker.commands.frame import run_command_line


def main() -> None:
    """Runs the command that the arguments name, and ends the process with its exit status."""
    sys.exit(run_command_line(cli))


if __name__ == "__main__":
    main()
