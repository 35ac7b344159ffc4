"""The commands of deploy/runbook.md, run by a shell as they stand there."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

RUNBOOK = Path(__file__).parents[1] / "deploy" / "runbook.md"
ON_SERVERS = ("cohort-sync", "new-cell", "kafka-topics.sh", "kafka-consumer-groups.sh", "psql")
ON_KUBERNETES = ("kubectl", "helm")
ELSEWHERE = ("make",)
LIMIT_S = 120


class Command(NamedTuple):
    """A line of a console block, and the heading that it stands under."""

    heading: str
    line: str

    @property
    def program(self) -> str:
        return self.line.split(maxsplit=1)[0]


def commands(programs: Iterable[str] | None = None) -> list[Command]:
    """Those of these programs, or all, in the order of the page."""
    heading, found = "", []
    for line in RUNBOOK.read_text().splitlines():
        if title := re.fullmatch(r"#+ (.+)", line):
            heading = title[1]
        elif line.startswith("$ "):
            found.append(Command(heading, line.removeprefix("$ ")))
    return [each for each in found if programs is None or each.program in programs]


def run(command: Command, folder: Path, environment: Mapping[str, str]) -> str:
    """What it prints, with the programs of a folder first on the PATH. A failure says what it said."""
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command.line],
        env=os.environ | environment | {"PATH": f"{folder}:{os.environ['PATH']}"},
        cwd=RUNBOOK.parents[1],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    said = f"{command.heading}: {command.line} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
    assert done.returncode == 0, said
    return done.stdout


def put_programs(folder: Path, programs: Mapping[str, str]) -> None:
    """Small scripts of these names that run these commands with whatever they are given."""
    folder.mkdir(exist_ok=True)
    for name, command in programs.items():
        (folder / name).write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        (folder / name).chmod(0o755)
