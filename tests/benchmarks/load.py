"""Load by k6, which `tests/load/go.mod` pins with all that it is made of; it is built once, into `.local/tools`."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Literal, NamedTuple

from deploy.local import guard

FOLDER = Path(__file__).parents[1] / "load"
TOOLS = guard.ROOT / ".local" / "tools"
BUILD_S = 900
SECONDS = 5
CONNECTIONS = 128
"""Enough that a server is never idle while Kafka acknowledges."""


class Answers(NamedTuple):
    """What came back, and nothing else did: not one request failed."""

    a_second: float
    p99_s: float


async def load(
    url: str, token: str, *, of: Literal["identify", "batch"], members: int = 0, a_second: float = 0
) -> Answers:
    """Sends for some seconds: at this pace, or as fast as it is answered. Raises `RuntimeError` on any failure."""
    settings = {
        "LOAD_URL": url,
        "LOAD_TOKEN": token,
        "LOAD_OF": of,
        "LOAD_MEMBERS": str(members),
        "LOAD_RATE": str(round(a_second)),
        "LOAD_SECONDS": str(SECONDS),
        "LOAD_CONNECTIONS": str(CONNECTIONS),
        "K6_NO_USAGE_REPORT": "true",
    }
    command = [str(k6()), "run", "--quiet", "--address=", str(FOLDER / "load.js")]
    done = await asyncio.to_thread(
        subprocess.run,
        command,
        env=os.environ | settings,
        capture_output=True,
        text=True,
        timeout=SECONDS + 60,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    said = json.loads(done.stdout)
    if said["failed"] or said["dropped"]:
        message = f"{said['failed']} requests failed and {said['dropped']} found no connection: {done.stderr[-2000:]}"
        raise RuntimeError(message)
    return Answers(said["requests"] / SECONDS, said["p99_ms"] / 1000)


def k6() -> Path:
    """The program, built now if it is not there yet."""
    if shutil.which("go") is None:
        raise RuntimeError("This benchmark loads by k6, which is built with Go 1.25 or newer: no go is on the PATH")
    pinned = hashlib.sha256((FOLDER / "go.sum").read_bytes()).hexdigest()[:16]
    program = TOOLS / f"k6-{pinned}"
    if not program.exists():
        print("Building k6, which takes a minute or two", flush=True)
        fresh = program.with_suffix(".new")
        command = ["go", "build", "-mod=readonly", "-trimpath", "-o", str(fresh), "go.k6.io/k6"]
        subprocess.run(command, cwd=FOLDER, timeout=BUILD_S, check=True)
        fresh.rename(program)
    return program
