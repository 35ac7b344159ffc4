"""How processes end: by process id, and also when whoever started them is gone.

A test run or a demo may be killed before it can stop its servers. So the first `watch` starts one small process more, in
a session of its own, that holds the reading end of a pipe. When the pipe closes, for whatever reason, it ends what it
was told to watch. This needs nothing of the operating system, and does not care which thread started a server.
"""

from __future__ import annotations

import atexit
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

import psutil

ROOT = Path(__file__).parent.parent.parent
END_S = 20.0

_pipes: list[IO[str]] = []


def watch(pid: int, signum: int = signal.SIGKILL) -> None:
    """From now on the process gets this signal when this process ends, however that comes about."""
    if not _pipes:
        _start_guard()
    _pipes[0].write(f"{pid} {signum}\n")
    _pipes[0].flush()


def _start_guard() -> None:
    guard = subprocess.Popen(
        [sys.executable, "-m", __name__], cwd=ROOT, stdin=subprocess.PIPE, start_new_session=True, text=True
    )
    assert guard.stdin is not None
    _pipes.append(guard.stdin)

    def dismiss() -> None:
        _pipes.pop().close()
        guard.wait(2 * END_S)

    atexit.register(dismiss)


def tree(process: psutil.Process) -> list[psutil.Process]:
    """The process and all that descend from it; none if it has ended."""
    with suppress(psutil.NoSuchProcess):
        return [process, *process.children(recursive=True)]
    return []


def send(processes: Sequence[psutil.Process], signum: int) -> None:
    """Signals those that still are the processes they were. psutil knows a process id that was given again."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(signum)


def end(process: psutil.Process, signum: int = signal.SIGTERM, *, within_s: float = END_S) -> None:
    """Ends the process by this signal, and by SIGKILL if that takes too long; with it all that descend from it."""
    family = tree(process)
    deadline = time.monotonic() + within_s
    send([process], signum)
    send(family, signal.SIGCONT)  # one that is suspended would keep the signal for later
    _, left = psutil.wait_procs([process], timeout=within_s)
    if not left:  # children of PostgreSQL go a moment after it
        _, left = psutil.wait_procs(family, timeout=max(0.0, min(1.0, deadline - time.monotonic())))
    if left:
        left = family
        send(left, signal.SIGKILL)
        psutil.wait_procs(left, timeout=END_S)


def main() -> None:
    """Waits for the pipe to close, then ends what is still there."""
    watched: list[tuple[psutil.Process, int]] = []
    for line in sys.stdin:
        pid, signum = (int(number) for number in line.split())
        with suppress(psutil.NoSuchProcess):
            watched.append((psutil.Process(pid), signum))
    for process, signum in reversed(watched):
        end(process, signum)


if __name__ == "__main__":
    main()
