"""Sessions with PostgreSQL, and what its errors mean to us."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, Self

import asyncpg

from stores.errors import BatchRejectedError, StoreRefusedError, StoreUnavailableError
from stores.postgres.queries import query

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterator

Dsn = str | Callable[[], str]
"""Where the server is, and who we are. A function is asked before each connection, since passwords are replaced."""

CONNECT_TIMEOUT_S = 10.0
COMMAND_TIMEOUT_S = 60.0
"""A lock that is held longer, or a server that froze, ends the command; the batch is tried again."""

# A backend that is killed inside a transaction surfaces as InterfaceError, since the failing ROLLBACK hides the first
# error. TimeoutError is an OSError. A read-only transaction is what a connection to the old primary gets after a
# failover: the pool is expired, so that the next try goes to the new one.
_LATER = (
    OSError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # the server ended the session just as a command was sent
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.TransactionRollbackError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.ObjectNotInPrerequisiteStateError,  # includes lock_not_available
    asyncpg.PostgresSystemError,
)
_NEVER = (
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.RaiseError,  # a trigger that the owner of the database added
    asyncpg.ProgramLimitExceededError,
)
_NOT_LET_IN = (asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InvalidCatalogNameError)
_WHAT_TO_DO = {
    "3D000": "the database does not exist: create it, or correct postgres.dsn",
    "28000": "the server does not let this user in: correct postgres.dsn or pg_hba.conf",
    "28P01": "the password is wrong: correct postgres.dsn",
    "42501": "the user lacks a privilege: run `cohort-sync migrate --grant` for it, as the owner of the tables",
    "42704": "there is no such role: create it first",
    "42P01": "a table is missing: run `cohort-sync migrate`",
    "42703": "a column is missing: run `cohort-sync migrate`",
}

KEEPALIVE = {"tcp_keepalives_idle": "15", "tcp_keepalives_interval": "5", "tcp_keepalives_count": "3"}

WRITER_SESSION = {
    **KEEPALIVE,
    # After losing a race each statement has to see what the other session made.
    "default_transaction_isolation": "read committed",
    # A worker that froze or was cut off must not hold its locks for ever.
    "statement_timeout": "60s",
    "idle_in_transaction_session_timeout": "60s",
    # `stage` has no statistics, and once `membership` has grown the planner would hash all of it for every batch.
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "enable_seqscan": "off",
    "jit": "off",
    "plan_cache_mode": "force_generic_plan",
    # A batch is staged and sorted in memory.
    "temp_buffers": "32MB",
    "work_mem": "64MB",
}


@contextmanager
def postgres_errors() -> Iterator[None]:
    """Turns the driver's errors into ours: later, never or stop. Their texts may hold rows, so none is carried over."""
    try:
        yield
    except _NEVER as exc:
        raise BatchRejectedError(exc.sqlstate or "unknown") from None
    except _LATER as exc:
        raise StoreUnavailableError("PostgreSQL", describe(exc)) from None
    except asyncpg.PostgresError as exc:
        raise StoreRefusedError(_refusal(exc)) from None


def describe(exc: BaseException) -> str:
    """The kind of error, without the server's text, which may quote a row."""
    if isinstance(exc, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({exc.verify_message}): see postgres.sslrootcert"
    if isinstance(exc, FileNotFoundError):
        return "a file or a socket is not there that postgres.dsn or the postgres.ssl* settings name"
    if type(exc) is ConnectionError:  # only the driver raises this one: the server declined to begin TLS
        return "it does not speak TLS: see postgres.sslmode"
    sqlstate = getattr(exc, "sqlstate", None)
    return f"{type(exc).__name__} ({sqlstate})" if sqlstate else type(exc).__name__


def _refusal(exc: asyncpg.PostgresError) -> str:
    advice = _WHAT_TO_DO.get(exc.sqlstate or "", "see the server's log")
    return f"PostgreSQL refused with {describe(exc)}: {advice}"


async def _connect(dsn: Dsn, *, was_let_in: bool, **options: Any) -> asyncpg.Connection:
    """A connection. Whoever was let in before is about to be given new credentials where it is not let in now: later.

    Raises the driver's errors and `stores.errors`.
    """
    try:
        return await asyncpg.connect(_now(dsn), **options)
    except _NOT_LET_IN as exc:
        if was_let_in:
            raise StoreUnavailableError("PostgreSQL", _refusal(exc)) from None
        raise
    except OSError:  # a certificate that is not trusted is a ValueError too
        raise
    except ValueError:  # of the driver's own, too; its text may quote a part of the password
        message = "no PostgreSQL can be at what postgres.dsn and the postgres.ssl* settings say together: correct them"
        if was_let_in:
            raise StoreUnavailableError("PostgreSQL", message) from None
        raise StoreRefusedError(message) from None


class Pool:
    """A bounded set of sessions, made on demand and thrown away after an error that may have broken them."""

    def __init__(
        self,
        dsn: Dsn,
        *,
        max_size: int,
        session: Mapping[str, str] = KEEPALIVE,
        prepare: Callable[[asyncpg.Connection], Awaitable[None]] | None = None,
    ) -> None:
        self._dsn = dsn
        self._was_let_in = False
        self._search_path: dict[str, str] = {}

        async def connect(_: None, *, server_settings: Mapping[str, str], **options: Any) -> asyncpg.Connection:
            settings = {**server_settings, **self._search_path}
            connection: Any = await _connect(dsn, was_let_in=self._was_let_in, server_settings=settings, **options)
            self._was_let_in = True
            # A pool resets its sessions to what they began with, so this has to be what they begin with.
            if not self._search_path and (schema := await _pinned(connection)):
                self._search_path["search_path"] = schema
                await connection.close(timeout=CONNECT_TIMEOUT_S)
                return await connect(None, server_settings=server_settings, **options)
            return connection

        self._pool: asyncpg.Pool = asyncpg.create_pool(
            connect=connect,
            min_size=0,
            max_size=max_size,
            timeout=CONNECT_TIMEOUT_S,
            command_timeout=COMMAND_TIMEOUT_S,
            max_inactive_connection_lifetime=0,
            server_settings={"application_name": "cohort-sync", **session},
            init=prepare,
        )

    async def __aenter__(self) -> Self:
        await self._pool
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._pool.terminate()

    @asynccontextmanager
    async def session(self) -> AsyncIterator[asyncpg.Connection]:
        """A session of one's own. Errors come out as `stores.errors`."""
        try:
            with postgres_errors():
                async with self._pool.acquire(timeout=CONNECT_TIMEOUT_S) as connection:
                    yield connection
        except StoreUnavailableError:
            # After a failover, sessions that still work are those with the old primary.
            await self._pool.expire_connections()
            raise

    @asynccontextmanager
    async def apart(self, **server_settings: str) -> AsyncIterator[asyncpg.Connection]:
        """A session beside the pool, with settings of its own. Errors come out as `stores.errors`."""
        async with _session(self._dsn, server_settings, was_let_in=self._was_let_in) as session:
            yield session


@asynccontextmanager
async def connected(dsn: Dsn, **server_settings: str) -> AsyncIterator[asyncpg.Connection]:
    """One session outside a pool, for commands. Errors come out as `stores.errors`."""
    async with _session(dsn, server_settings, was_let_in=False) as session:
        yield session


@asynccontextmanager
async def _session(
    dsn: Dsn, server_settings: Mapping[str, str], *, was_let_in: bool
) -> AsyncIterator[asyncpg.Connection]:
    settings = {"application_name": "cohort-sync", **KEEPALIVE, **server_settings}
    with postgres_errors():
        connection = await _connect(dsn, was_let_in=was_let_in, server_settings=settings, timeout=CONNECT_TIMEOUT_S)
        try:
            await _pinned(connection)
            yield connection
        finally:
            await connection.close(timeout=CONNECT_TIMEOUT_S)


async def _pinned(connection: asyncpg.Connection) -> str | None:
    """Lets this session find names in the schema of our tables only, and returns it; None where there is none yet.

    In any other schema of its path somebody else may have put what is taken for a function of PostgreSQL's own.
    """
    schema: str | None = await connection.fetchval(query("pin_to_our_tables"))
    return schema


def _now(dsn: Dsn) -> str:
    return dsn if isinstance(dsn, str) else dsn()
