"""How processes are started and ended: by process id, and so that they end when whoever started them is gone.

A test run or a demo may be killed before it can stop its servers. So the first `watch` starts one small process more,
in a session of its own, that reads from a pipe. When the pipe closes, for whatever reason, it ends what it was told to
watch. Unlike Linux's "parent death signal" this works everywhere, ends what is suspended too, and does not take the
end of the thread that started a server for the end of the process.
"""

from __future__ import annotations

import atexit
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

import psutil

ROOT = Path(__file__).parent.parent.parent
END_S = 20.0
CHILDREN_S = 1.0
POLL_S = 0.02
RELEASE = "release"
GATE = 'read -r go && exec "$@" </dev/null'

_pipes: list[IO[str]] = []


def start(
    command: Sequence[str],
    *,
    log: Path,
    cwd: Path,
    environment: Mapping[str, str] | None = None,
    signum: int = signal.SIGKILL,
) -> psutil.Popen:
    """Starts a process under watch: `signum` is what it gets when this process ends, however that comes about.

    It waits at a gate until the guard knows of it. So it is never lost, even if we are killed in this function.
    """
    with log.open("ab") as output:
        process = psutil.Popen(
            ["sh", "-c", GATE, "sh", *command],
            cwd=cwd,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            start_new_session=True,  # Ctrl-C is for us, and we stop what we started in order
        )
    watch(process.pid, signum)
    with process.stdin as gate:
        gate.write(b"go\n")
    return process


def watch(pid: int, signum: int = signal.SIGKILL) -> None:
    """From now on the process gets this signal when this process ends, however that comes about."""
    _tell(f"{pid} {signum}")


def release() -> None:
    """What was watched may now outlive this process."""
    _tell(RELEASE)


def _tell(line: str) -> None:
    if not _pipes:
        _start_guard()
    _pipes[0].write(f"{line}\n")
    _pipes[0].flush()


def _start_guard() -> None:
    guard = subprocess.Popen(
        [sys.executable, "-m", __name__], cwd=ROOT, stdin=subprocess.PIPE, start_new_session=True, text=True
    )
    pipe = guard.stdin
    assert pipe is not None  # noqa: S101 - for mypy: we asked for it
    _pipes.append(pipe)

    def dismiss() -> None:
        pipe.close()
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
    """Ends the process by this signal, or by SIGKILL if that takes too long; with it all that descend from it."""
    family = tree(process)
    send([process], signum)
    send(family, signal.SIGCONT)  # one that is suspended would keep the signal for later
    if wait([process], within_s):
        wait(family, CHILDREN_S)
    kill(family)


def kill(processes: Sequence[psutil.Process]) -> None:
    """Ends them at once, those that are left."""
    send(processes, signal.SIGKILL)
    wait(processes, END_S)


def wait(processes: Sequence[psutil.Process], within_s: float) -> bool:
    """Waits until all have ended; whether they did."""
    deadline = time.monotonic() + within_s
    while not all(map(has_ended, processes)):
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True


def has_ended(process: psutil.Process) -> bool:
    """Also when its parent has not heard of it yet, which psutil's own waiting waits for."""
    if isinstance(process, psutil.Popen):
        return process.poll() is not None
    with suppress(psutil.NoSuchProcess):
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    return True


def main() -> None:
    """Waits for the pipe to close, then ends what is still there."""
    watched: list[tuple[psutil.Process, int]] = []
    for line in map(str.strip, sys.stdin):
        if line == RELEASE:
            watched.clear()
            continue
        pid, signum = (int(number) for number in line.split())
        with suppress(psutil.NoSuchProcess):
            watched.append((psutil.Process(pid), signum))
    for process, signum in reversed(watched):
        end(process, signum)


if __name__ == "__main__":
    main()
