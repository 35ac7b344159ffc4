"""A server on 127.0.0.1 as one process: started, ended, suspended and started again on the same port and data."""

from __future__ import annotations

import json
import random
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import ClassVar, Self

import psutil

from deploy.local import guard

HOST = "127.0.0.1"
START_S = 60.0
POLL_S = 0.02
ATTEMPTS = 5
LOG_TAIL = 3000

PORTS = range(20_000, 32_000)
"""Below those that systems give to outgoing connections. A client that tries to reach a server while it restarts could
otherwise be given the server's port, connect to itself, and keep the server from coming back."""


class ServerNotStartedError(Exception):
    """The server ended, or was not ready in time; the text has the end of its log."""


class PortTakenError(ServerNotStartedError):
    """Somebody else got the port between our choosing it and the server's binding it."""


def is_free(port: int) -> bool:
    """Whether a server could bind the port now."""
    with socket.socket() as candidate:
        candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            candidate.bind((HOST, port))
        except OSError:
            return False
    return True


def free_ports(count: int) -> list[int]:
    """Some free ports, chosen at random so that two checkouts seldom choose the same."""
    candidates = random.sample(PORTS, k=len(PORTS))
    return [port for port, _ in zip(filter(is_free, candidates), range(count), strict=False)]


def ports_of(folder: Path, count: int) -> list[int]:
    """The ports that this folder's server had before, while they are free, else others."""
    kept = folder / "ports.json"
    with suppress(FileNotFoundError):
        ports: list[int] = json.loads(kept.read_text())
        if len(ports) == count and all(map(is_free, ports)):
            return ports
    ports = free_ports(count)
    kept.write_text(json.dumps(ports))
    return ports


def run(command: Sequence[str], *, cwd: Path, environment: Mapping[str, str] | None = None, text: str = "") -> None:
    """Runs a command that prepares a server, and says what it said if it fails."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env=environment,
        input=text,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=START_S,
        check=False,
    )
    if done.returncode:
        message = f"{command[0]} ended with {done.returncode}:\n{' '.join(command)}\n{done.stdout[-LOG_TAIL:]}"
        raise ServerNotStartedError(message)


def said_last(log: Path) -> str:
    """The end of a log."""
    return log.read_text(errors="replace")[-LOG_TAIL:]


def _stands_still(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.status() in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE)
    return True


class Server(ABC):
    """A server of ours, which ends with this process at the latest, unless `guard.release` is called.

    Its folder holds its data and, when none is given, its log.
    """

    NAME: ClassVar[str]
    READY: ClassVar[str]
    """What its log says when it serves."""
    STOP: ClassVar[signal.Signals]
    """The signal for a clean end."""
    ABANDONED: ClassVar[signal.Signals]
    """The signal when its starter was killed: quicker, but leaves nothing behind."""

    def __init__(self, folder: Path, *, log: Path | None = None) -> None:
        self.folder = folder.resolve()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.log = log or self.folder / f"{self.NAME}.log"
        self._process: psutil.Popen | None = None

    @abstractmethod
    def _prepare(self) -> None:
        """Chooses ports and makes the data folder, if there is none."""

    @abstractmethod
    def _command(self) -> list[str]: ...

    def _environment(self) -> Mapping[str, str] | None:
        return None

    @property
    def process(self) -> psutil.Process:
        """The process that serves, or did last."""
        if self._process is None:
            message = f"{self.NAME} has not been started"
            raise ServerNotStartedError(message)
        return self._process

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> Self:
        """Chooses free ports, makes what is missing, and returns when the server serves."""
        for attempt in range(ATTEMPTS):
            self._prepare()
            try:
                self._launch()
            except PortTakenError:
                if attempt == ATTEMPTS - 1:
                    raise
            else:
                break
        return self

    def restart(self) -> None:
        """Starts it again, on the same ports and data; stops it first if it still runs."""
        self.stop()
        self._launch()

    def stop(self) -> None:
        """Ends it in good order; kills it if that takes too long."""
        self._end(self.STOP)

    def kill(self) -> None:
        """Ends it at once, as the kernel or a power cut would."""
        if self._process is not None:
            guard.kill(guard.tree(self._process))

    def suspend(self) -> None:
        """Stops it where it stands: connections stay open, and nothing answers."""
        guard.send([self.process], signal.SIGSTOP)  # first, so that it makes no children meanwhile
        guard.send(guard.tree(self.process)[1:], signal.SIGSTOP)
        # Of many threads one takes the signal, and until it is scheduled the others go on.
        deadline = time.monotonic() + START_S
        while not all(map(_stands_still, guard.tree(self.process))) and time.monotonic() < deadline:
            time.sleep(POLL_S)

    def resume(self) -> None:
        """Lets it go on after `suspend`."""
        guard.send(guard.tree(self.process), signal.SIGCONT)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def _end(self, signum: signal.Signals) -> None:
        if self._process is not None:
            guard.end(self._process, signum)

    def _launch(self) -> None:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.log.touch()
        written_before = self.log.stat().st_size
        self._process = guard.start(
            self._command(), log=self.log, cwd=self.folder, environment=self._environment(), signum=self.ABANDONED
        )
        try:
            self._wait_until_ready(written_before)
        except BaseException:
            self.kill()
            raise

    def _wait_until_ready(self, written_before: int) -> None:
        deadline = time.monotonic() + START_S
        while self.READY not in (said := self._said_since(written_before)):
            if not self.running:
                failure = PortTakenError if "Address already in use" in said else ServerNotStartedError
                message = f"{self.NAME} ended instead of starting; {self.log} ends with:\n{said[-LOG_TAIL:]}"
                raise failure(message)
            if time.monotonic() > deadline:
                message = f"{self.NAME} was not ready after {START_S:.0f} s; {self.log} ends with:\n{said[-LOG_TAIL:]}"
                raise ServerNotStartedError(message)
            time.sleep(POLL_S)

    def _said_since(self, written_before: int) -> str:
        with self.log.open("rb") as log:
            log.seek(written_before)
            return log.read().decode(errors="replace")
