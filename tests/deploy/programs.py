"""Runs a tool of operators and says all that it said if it fails."""

from __future__ import annotations

import subprocess
from pathlib import Path

from deploy.local import tools

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "helm" / "cohort-sync"
LIMIT_S = 300


class ToolFailedError(Exception):
    """It did not end with 0."""


def run_tool(name: str, *arguments: str | Path, text: str = "") -> str:
    """What the tool prints. Raises `ToolFailedError`."""
    program = tools.policy_tool(name) if name in tools.POLICY_TOOLS else tools.tool(name)
    done = subprocess.run(
        [program, *arguments],
        input=text,
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=LIMIT_S,
        check=False,
    )
    if done.returncode:
        said = f"{done.stdout[-5000:]}{done.stderr[-5000:]}"
        raise ToolFailedError(f"{name} {' '.join(map(str, arguments))} ended with {done.returncode}:\n{said}")
    return done.stdout
