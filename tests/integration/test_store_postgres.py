"""What only the real store promises: races, the change feed's columns, migrations, servers that are refused."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import asyncpg
import pytest

from stores.errors import StoreRefusedError, StoreUnavailableError
from stores.model import Segment
from stores.postgres import writing
from stores.postgres.connection import connected
from stores.postgres.migrating import migrate, migration_files, missing_migrations, require_schema
from stores.postgres.reading import postgres_reader
from stores.postgres.writing import Sweep
from tests.builders import a_clearing, a_group, a_version
from tests.stores import PostgresStoreUnderTest
from worker.sweeper import finish_sweeps


@pytest.fixture
async def sql(database: str) -> asyncpg.Connection:
    connection = await asyncpg.connect(database)
    yield connection
    await connection.close()


async def test_two_writers_that_insert_the_same_new_keys_both_succeed(database: str) -> None:
    keys = [f"u{number}" for number in range(5_000)]
    async with PostgresStoreUnderTest(database) as store:
        segment = (await store.resolve([a_group()]))[a_group().segment]
        for attempt in range(5):
            older, newer = a_version(offset=2 * attempt), a_version(offset=2 * attempt + 1)
            names = [f"{attempt}-{key}" for key in keys]
            await asyncio.gather(
                store.apply([(segment.id, a_group(*names, version=older))]),
                store.apply([(segment.id, a_group(*names, included=False, version=newer))]),
            )

        assert await store.included_counts() == {"amplitude-beta": 0}
        assert all(not included for included, _ in (await store.memberships()).values())


async def test_the_race_really_makes_merge_raise_and_the_fallback_really_runs(
    database: str, sql: asyncpg.Connection
) -> None:
    async with PostgresStoreUnderTest(database) as store:
        segment = (await store.resolve([a_group()]))[a_group().segment]
        transaction = sql.transaction()
        await transaction.start()
        await sql.execute(
            "INSERT INTO membership VALUES ($1, encode(substr(sha256('u1'), 1, 16), 'hex')::uuid, 'u1', true, 1, 1)",
            segment.id,
        )
        race = asyncio.create_task(store.apply([(segment.id, a_group("u1", included=False))]))
        await asyncio.sleep(0.3)
        assert not race.done()
        await transaction.commit()

        await race
        assert await store.memberships() == {("amplitude-beta", "u1"): (False, a_version())}


async def test_only_a_flip_moves_a_membership_in_the_change_feed(database: str, sql: asyncpg.Connection) -> None:
    async with PostgresStoreUnderTest(database) as store:
        segment = (await store.resolve([a_group()]))[a_group().segment]

        async def change_xids(*groups: object) -> dict[str, str | None]:
            for group in groups:
                await store.apply([(segment.id, group)])  # type: ignore[list-item]
            return dict(await sql.fetch("SELECT context_key, change_xid::text FROM membership"))

        first = await change_xids(a_group("in"), a_group("out", included=False))
        confirmed = await change_xids(a_group("in", version=a_version(offset=1)))
        flipped = await change_xids(a_group("in", included=False, version=a_version(offset=2)))

        assert first["out"] is None
        assert first["in"] is not None
        assert confirmed == first
        assert flipped["in"] not in (None, first["in"])


async def test_what_is_older_than_its_segments_clearing_is_out(database: str, sql: asyncpg.Connection) -> None:
    async with PostgresStoreUnderTest(database) as store:
        segment = (await store.resolve([a_group()]))[a_group().segment]
        await store.apply([(segment.id, a_group("before", version=a_version(1_000)))])
        await sql.execute("UPDATE segment SET cleared_event_time = 2000, cleared_position = 0")
        await store.apply([(segment.id, a_group("late", version=a_version(1_500)))])
        await store.apply([(segment.id, a_group("after", version=a_version(3_000)))])

    async with postgres_reader(database) as reader:
        (found,) = await reader.segments()
        members = {member.context_key: member async for member in reader.members(found, with_removed=True)}
        included = {key for key, member in members.items() if member.included}
        assert included == {"after"}
        assert members["before"].version.event_time_us == 2_000
        assert await reader.count_members(found) == 1


async def test_a_writer_that_did_not_see_a_clearing_is_waited_for_before_the_sweep(
    database: str, sql: asyncpg.Connection
) -> None:
    async with PostgresStoreUnderTest(database) as store:
        drain = a_clearing(drain=True, version=a_version(2_000))
        segment = (await store.resolve([drain]))[drain.segment]
        transaction = sql.transaction()
        await transaction.start()
        await sql.execute(
            "INSERT INTO membership VALUES ($1, encode(substr(sha256('u1'), 1, 16), 'hex')::uuid, 'u1', true, 1, 1)",
            segment.id,
        )
        await store.clear([(segment.id, drain)])
        assert await store.unswept() == 1
        assert await store.sweeps() == []
        await transaction.commit()

        await finish_sweeps(store)

        assert await store.unswept() == 0
        assert dict(await sql.fetch("SELECT context_key, included FROM membership")) == {"u1": False}


async def test_a_writer_that_began_after_a_clearing_and_did_not_see_it_is_waited_for_too(
    database: str, sql: asyncpg.Connection
) -> None:
    other = await asyncpg.connect(database)
    async with PostgresStoreUnderTest(database) as store:
        drain = a_clearing(drain=True, version=a_version(2_000))
        segment = (await store.resolve([drain]))[drain.segment]
        clearing = sql.transaction()
        await clearing.start()  # takes its xid, and is not committed yet
        await sql.execute(
            "UPDATE segment SET cleared_event_time = 2000, cleared_position = 0, cleared_xid = pg_current_xact_id()"
        )
        writing = other.transaction()
        await writing.start()
        await other.execute(
            "INSERT INTO membership VALUES ($1, encode(substr(sha256('u1'), 1, 16), 'hex')::uuid, 'u1', true, 1, 1)",
            segment.id,
        )
        await clearing.commit()
        assert await store.sweeps() == []
        await writing.commit()

        await finish_sweeps(store)

        assert dict(await sql.fetch("SELECT context_key, included FROM membership")) == {"u1": False}
    await other.close()


async def test_a_sweep_goes_in_steps_and_flips_each_membership_once_in_the_feed(
    database: str, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "SWEEP_ROWS", 10)
    keys = [f"u{number}" for number in range(95)]
    async with PostgresStoreUnderTest(database) as store:
        before, after = a_version(1_000), a_version(3_000)
        segment = (await store.resolve([a_group()]))[a_group().segment]
        await store.apply([(segment.id, a_group(*keys, version=before)), (segment.id, a_group("new", version=after))])
        await store.clear([(segment.id, a_clearing(drain=True, version=a_version(2_000)))])
        (step,) = await store.sweeps()
        steps: Sweep | None = step
        count = 0
        while steps is not None:
            steps, count = await store.sweep(steps), count + 1

        assert count == 10
        xids = await sql.fetch("SELECT DISTINCT change_xid::text FROM membership WHERE NOT included")
        assert len(xids) == 10
        assert await store.included_counts() == {"amplitude-beta": 1}
        assert await sql.fetchval("SELECT count(*) FROM membership WHERE included") == 1


async def test_pages_that_two_workers_note_side_by_side_complete_their_session(database: str) -> None:
    async with PostgresStoreUnderTest(database) as store:
        first = a_clearing("s", 1, 20, version=a_version(1_000, 1))
        segment = (await store.resolve([first]))[first.segment]
        await store.apply([(segment.id, a_group("leaver", version=a_version(1)))])
        pages = [a_clearing("s", number, 20, version=a_version(1_000, number)) for number in range(1, 21)]
        await asyncio.gather(*(store.clear([(segment.id, page)]) for page in pages))

        assert await store.included_counts() == {"amplitude-beta": 0}


async def test_what_is_superseded_is_forgotten(database: str, sql: asyncpg.Connection) -> None:
    day = 86_400_000_000
    async with PostgresStoreUnderTest(database) as store:
        open_page = a_clearing("never complete", 1, 2, version=a_version(1_000))
        segment = (await store.resolve([open_page]))[open_page.segment]
        await store.clear([(segment.id, open_page)])
        assert (await store.facts()).open_sessions == 1
        await store.clear([(segment.id, a_clearing(drain=True, version=a_version(2_000)))])
        assert (await store.facts()).open_sessions == 0
        await store.clear([(segment.id, a_clearing(drain=True, version=a_version(2_000 + 2 * day)))])

        assert await sql.fetchval("SELECT count(*) FROM clearing") == 1


async def test_members_stream_through_a_cursor_and_are_all_there(database: str) -> None:
    async with PostgresStoreUnderTest(database) as store:
        segment = (await store.resolve([a_group()]))[a_group().segment]
        await store.apply([(segment.id, a_group(*(f"u{number}" for number in range(12_000))))])
    async with postgres_reader(database) as reader:
        (found,) = await reader.segments()
        assert isinstance(found, Segment)
        assert len({member.context_key async for member in reader.members(found)}) == 12_000


async def test_migrations_side_by_side_apply_each_file_once(empty_database: str) -> None:
    applied = await asyncio.gather(*(migrate(empty_database) for _ in range(4)))

    assert sorted(map(len, applied))[:3] == [0, 0, 0]
    assert await missing_migrations(empty_database) == []


async def test_what_older_code_cannot_bear_is_left_for_after_the_rollout(empty_database: str, tmp_path: Path) -> None:
    for file in migration_files():
        (tmp_path / file.name).write_text(file.read_text())
    (tmp_path / "9001_post_old_is_gone.sql").write_text("ALTER TABLE added DROP COLUMN old")
    (tmp_path / "9002_pre_new_comes.sql").write_text("CREATE TABLE added (old int, new int)")

    async with connected(empty_database) as session:
        await migrate(empty_database)
        with pytest.raises(StoreRefusedError, match="lacks 9002_pre_new_comes"):
            await require_schema(session, folder=tmp_path)
        assert await migrate(empty_database, only_pre=True, folder=tmp_path) == ["9002_pre_new_comes"]
        await require_schema(session, folder=tmp_path)

    assert await missing_migrations(empty_database, only_pre=True, folder=tmp_path) == []
    assert await missing_migrations(empty_database, folder=tmp_path) == ["9001_post_old_is_gone"]
    assert await migrate(empty_database, folder=tmp_path) == ["9001_post_old_is_gone"]


def test_every_migration_says_whether_it_comes_before_or_after_a_rollout() -> None:
    assert [file.name for file in migration_files() if not re.match(r"\d{4}_(pre|post)_\w+\.sql", file.name)] == []


async def test_a_database_without_the_schema_is_refused_with_what_to_do(empty_database: str) -> None:
    async with PostgresStoreUnderTest(empty_database) as store:
        with pytest.raises(StoreRefusedError, match="cohort-sync migrate"):
            await store.require_schema()


async def test_a_table_that_a_distributed_engine_has_taken_over_is_refused(
    database: str, sql: asyncpg.Connection
) -> None:
    await sql.execute("CREATE TABLE pg_dist_partition (logicalrelid regclass)")
    async with PostgresStoreUnderTest(database) as store:
        await store.require_schema()
        await sql.execute("INSERT INTO pg_dist_partition VALUES ('membership')")
        with pytest.raises(StoreRefusedError, match="distributes"):
            await store.require_schema()


async def test_a_read_only_server_is_waited_for(database: str, sql: asyncpg.Connection) -> None:
    name = database.rsplit("/", 1)[1]
    async with PostgresStoreUnderTest(database) as store:
        segment = (await store.resolve([a_group()]))[a_group().segment]
    await sql.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    async with PostgresStoreUnderTest(database) as store:
        with pytest.raises(StoreUnavailableError, match="25006"):
            await store.apply([(segment.id, a_group("u1"))])
        await sql.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = off")
        await store.apply([(segment.id, a_group("u1"))])
        assert await store.included_counts() == {"amplitude-beta": 1}


async def test_a_connection_that_the_server_ends_is_replaced(database: str, sql: asyncpg.Connection) -> None:
    async with PostgresStoreUnderTest(database) as store:
        segment = (await store.resolve([a_group()]))[a_group().segment]
        await sql.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name = 'cohort-sync'"
        )
        try:
            await store.apply([(segment.id, a_group("u1"))])
        except StoreUnavailableError:
            await store.apply([(segment.id, a_group("u1"))])
        assert await store.included_counts() == {"amplitude-beta": 1}


async def test_a_lock_that_is_held_too_long_is_an_error_that_passes(database: str, sql: asyncpg.Connection) -> None:
    async with PostgresStoreUnderTest(database) as store:
        segment = (await store.resolve([a_group()]))[a_group().segment]
        await store.apply([(segment.id, a_group("u1"))])
        async with sql.transaction():
            await sql.execute("SELECT * FROM segment FOR UPDATE")
            race = asyncio.create_task(store.apply([(segment.id, a_group("u2", version=a_version(offset=1)))]))
            await asyncio.sleep(0.3)
            pid = await sql.fetchval("SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
            await sql.execute("SELECT pg_cancel_backend($1)", pid)
            with pytest.raises(StoreUnavailableError, match="57014"):
                await race


async def test_a_wrong_password_or_database_stops_with_what_to_do(database: str) -> None:
    async with PostgresStoreUnderTest(database):
        pass
    wrong = database.rsplit("/", 1)[0] + "/does_not_exist"
    with pytest.raises(StoreRefusedError, match=r"postgres\.dsn"):
        await migrate(wrong)


async def test_a_topic_too_many_is_refused_with_what_to_do(database: str, sql: asyncpg.Connection) -> None:
    async with PostgresStoreUnderTest(database) as store:
        await sql.execute("INSERT INTO topic (id, name) SELECT n, 'topic-' || n FROM generate_series(1, 511) AS n")

        assert await store.topic_id("topic-511") == 511
        with pytest.raises(StoreRefusedError, match=r"511 topics.*several stores"):
            await store.topic_id("one-too-many")
