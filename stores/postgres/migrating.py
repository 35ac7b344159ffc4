"""The schema: SQL files, applied in order under an advisory lock, and the refusal of servers that can't hold it.

A file's name says when it may run: `pre` before the code that needs it is rolled out, `post` once no older code runs.
So no `pre` file may need a `post` file, and code runs without the `post` files of its own version.

Rows hold transaction ids, by which readers find changes. They mean nothing on another server, so a database that was
restored from a dump is stamped anew before anything may use it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal
from uuid import UUID

from stores.errors import StoreRefusedError
from stores.postgres.connection import connected
from stores.postgres.own_schema import REVOKE, is_open, make_ours, refuse_excess
from stores.postgres.queries import SQL_FOLDER, query

if TYPE_CHECKING:
    from asyncpg import Connection

Part = Literal["worker", "projector", "gateway", "operator"]
MIGRATIONS = SQL_FOLDER / "migrations"
OLDEST_SERVER = (15, 0)
STAMPS = "stamps_of_this_server"
"""Told among the migrations where the database came from another server."""
STAMPED_AT_ONCE = 20_000
_DISTRIBUTED_ENGINES = ("yugabyte", "cockroach")


async def migrate(dsn: str, *, only_pre: bool = False, folder: Path = MIGRATIONS) -> list[str]:
    """Applies what is missing and returns its names. Side by side runs wait for each other and apply each file once.

    With `only_pre` it leaves out what older code, which still runs, could not bear.
    """
    async with connected(dsn, lock_timeout="0", statement_timeout="0") as session:
        await session.execute(query("lock_migrations"), timeout=None)
        try:
            closed = await make_ours(session)
            await refuse_unfit_server(session)
            await session.execute(query("create_migrations"))
            pending = await pending_migrations(session, only_pre=only_pre, folder=folder)
            for migration in pending:
                await _apply(session, migration.stem, migration.read_text())
            applied = [*closed, *(migration.stem for migration in pending)]
            if await _is_of_another_server(session):
                await _stamp_anew(session)
                applied.append(STAMPS)
            return applied
        finally:
            await session.execute(query("unlock_migrations"))


async def grant(dsn: str, part: Part, role: str) -> list[str]:
    """Lets this role do what this part needs, and returns the statements. To be repeated after each migration."""
    async with connected(dsn) as session, session.transaction():
        await make_ours(session)
        await refuse_excess(session, role)
        statements: list[str] = [statement for (statement,) in await session.fetch(query("list_grants"), part, role)]
        for statement in statements:
            await session.execute(statement)
        return statements


async def missing_migrations(dsn: str, *, only_pre: bool = False, folder: Path = MIGRATIONS) -> list[str]:
    """The names of the migrations that the database lacks; with `only_pre` of those that this code needs to run.

    Changes nothing.
    """
    async with connected(dsn) as session:
        await refuse_unfit_server(session)
        missing = await pending_migrations(session, only_pre=only_pre, folder=folder)
        pending = [REVOKE] if await is_open(session) else []
        pending += [migration.stem for migration in missing]
        return pending if pending or not await _is_of_another_server(session) else [STAMPS]


async def require_schema(session: Connection, *, folder: Path = MIGRATIONS) -> None:
    """Raises `StoreRefusedError` unless this server holds what this code needs and can keep its promises."""
    await refuse_unfit_server(session)
    if pending := await pending_migrations(session, only_pre=True, folder=folder):
        names = ", ".join(migration.stem for migration in pending)
        message = f"the database lacks {names}: run `cohort-sync migrate`"
        raise StoreRefusedError(message)
    if await _is_of_another_server(session):
        message = (
            "the database was restored from a dump, or its server upgraded: its changes are ordered by another "
            "server's transaction ids. Stop what still runs, then run `cohort-sync migrate`, which stamps them anew"
        )
        raise StoreRefusedError(message)


async def pending_migrations(session: Connection, *, only_pre: bool, folder: Path) -> list[Path]:
    """The files that are not applied yet, in order."""
    applied: set[str] = set()
    if await session.fetchval(query("have_migrations")):
        applied = {row["name"] for row in await session.fetch(query("applied_migrations"))}
    return [file for file in migration_files(folder, only_pre=only_pre) if file.stem not in applied]


def migration_files(folder: Path = MIGRATIONS, *, only_pre: bool = False) -> list[Path]:
    """All that there are, in order."""
    return sorted(folder.glob("*_pre_*.sql" if only_pre else "*.sql"))


async def refuse_unfit_server(session: Connection) -> None:
    """Raises `StoreRefusedError` for a server that is too old or that distributes our tables."""
    version: str = await session.fetchval("SELECT version()")
    engine = next((name for name in _DISTRIBUTED_ENGINES if name in version.lower()), None)
    if engine or await _distributes_our_tables(session):
        message = (
            f"{engine or 'Citus'} distributes the tables of the segment store. Transaction ids then no longer order "
            "its changes: committed memberships would be lost to readers. Use one PostgreSQL primary for each store, "
            "and a store for each group of environments (README, Scale)"
        )
        raise StoreRefusedError(message)
    if session.get_server_version()[:2] < OLDEST_SERVER:
        message = f"PostgreSQL 15 or newer is needed (MERGE), this is {version.split(',', maxsplit=1)[0]}"
        raise StoreRefusedError(message)


async def _distributes_our_tables(session: Connection) -> bool:
    if not await session.fetchval(query("have_citus")):
        return False
    return bool(await session.fetchval(query("citus_distributes_us")))


async def _is_of_another_server(session: Connection) -> bool:
    return bool(await session.fetchval(query("is_of_another_server")))


async def _stamp_anew(session: Connection) -> None:
    """Every change as one that was before all others; every target begun anew. May be interrupted and repeated."""
    after: tuple[int, UUID] | None = 0, UUID(int=0)
    while after is not None:
        row = await session.fetchrow(query("stamp_page"), *after, STAMPED_AT_ONCE, timeout=None)
        after = (row["segment_id"], row["context_hash"]) if row else None
    async with session.transaction():
        for statement in ("stamp_clearings", "stamp_projections", "stamp_origin"):
            await session.execute(query(statement))


async def _apply(session: Connection, name: str, sql: str) -> None:
    async with session.transaction():
        await session.execute(sql, timeout=None)
        await session.execute(query("record_migration"), name)
