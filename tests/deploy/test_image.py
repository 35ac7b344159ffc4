"""What the first stage of the Dockerfile runs, in folders instead of a container, as no Docker engine is to be had."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy.programs import ROOT

DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text().replace("\\\n", " ")
FIRST_STAGE = DOCKERFILE.split("\nFROM ")[1]


@pytest.mark.timeout(600)
def test_the_first_stage_makes_an_environment_that_runs_and_cannot_install(tmp_path: Path) -> None:
    source, python = tmp_path / "src", tmp_path / "bin"
    for folder in (source, python):
        folder.mkdir()
    (python / "python").symlink_to(Path(sys.executable).resolve())
    for instruction, rest in re.findall(r"^(COPY|RUN) (.+)$", FIRST_STAGE, re.MULTILINE):
        if instruction == "COPY":
            *names, into = rest.split()
            copy(names, source, into)
            continue
        command = re.sub(r"(?<![\w.])/(opt|wheels)", rf"{tmp_path}/\1", rest)
        done = subprocess.run(
            ["sh", "-ec", command],
            cwd=source,
            env={"PATH": f"{python}:/usr/bin:/bin", "HOME": str(tmp_path), **pip_environment()},
            capture_output=True,
            text=True,
            timeout=500,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"

    environment = tmp_path / "opt" / "cohort-sync" / "bin"
    assert not list(environment.glob("pip*"))
    shown = subprocess.run([environment / "cohort-sync", "--help"], capture_output=True, text=True, check=True)
    assert "gateway" in shown.stdout


def copy(names: list[str], source: Path, into: str) -> None:
    for name in names:
        origin = ROOT / name
        if origin.is_dir():
            shutil.copytree(origin, source / into, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            (source / into).mkdir(exist_ok=True)
            shutil.copy(origin, source / into)


def pip_environment() -> dict[str, str]:
    """How pip is set up on this machine, whatever that is."""
    return {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_", "HTTP", "http"))}
