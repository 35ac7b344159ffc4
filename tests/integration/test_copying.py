"""An environment from one database into another: what arrives, what is left as it is, and who waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing

import asyncpg
import pytest

from deploy.local.servers import Postgres
from deploy.local.valkey import Valkey
from stores.postgres.change_feed import ChangeFeed
from stores.postgres.copying import BATCH_ROWS, CopiedSegment, EnvironmentCopy, environment_copy
from stores.postgres.erasing import postgres_erasures
from stores.postgres.migrating import migrate
from stores.postgres.writing import PostgresStore
from tests.builders import A_TIME_US, a_group, a_version
from tests.conftest import a_database
from tests.projection_ground import Ground, a_ground, refs
from tests.worker_process import eventually


class Store:
    """One cell's database."""

    def __init__(self, dsn: str, sql: asyncpg.Connection) -> None:
        self.dsn = dsn
        self.sql = sql

    async def put(
        self, *keys: str, segment: str = "beta", kind: str = "user", topic: str = "cohorts", later_us: int = 0
    ) -> None:
        async with PostgresStore(self.dsn, pool_max_size=2) as store:
            version = a_version(A_TIME_US + later_us, topic_id=await store.topic_id(topic))
            group = a_group(*keys, segment=f"amplitude-{segment}", context_kind=kind, version=version)
            found = await store.resolve([group])
            await store.apply([(found[group.segment].id, group)])

    async def erase(self, key: str) -> None:
        async with postgres_erasures(self.dsn) as erasures:
            await erasures.bar(key)
            await erasures.put_out(key)
            await erasures.delete(key)

    async def lift(self, key: str) -> bool:
        async with postgres_erasures(self.dsn) as erasures:
            return await erasures.lift(key)

    async def members(self, segment: str = "beta") -> set[str]:
        rows = await self.sql.fetch(
            "SELECT context_key FROM membership JOIN segment ON id = segment_id WHERE included AND key = $1",
            f"amplitude-{segment}",
        )
        return {key for (key,) in rows}

    async def generations(self) -> tuple[int, int | None]:
        row = await self.sql.fetchrow("SELECT generation, other_generation FROM segment")
        return row["generation"], row["other_generation"]

    async def edit(self, description: str) -> None:
        await self.sql.execute("UPDATE segment SET description = $1, description_edited_at = now()", description)


Cells = tuple[Store, Store]


@pytest.fixture
async def cells(postgres: Postgres) -> AsyncIterator[Cells]:
    """The old one and the new one."""
    async with AsyncExitStack() as stack:
        stores = []
        for _ in range(2):
            dsn = await stack.enter_async_context(a_database(postgres))
            await migrate(dsn)
            sql = await asyncpg.connect(dsn)
            stack.push_async_callback(sql.close)
            stores.append(Store(dsn, sql))
        yield stores[0], stores[1]


async def copy_all(old: Store, new: Store, *projections: str) -> list[CopiedSegment]:
    """What the command does once it has waited."""
    async with environment_copy("production", theirs=old.dsn, ours=new.dsn, projections=projections) as copy:
        await copy.begin()
        await copy.erasures()
        segments = await _all_of(copy)
        await copy.end()
        return segments


async def _all_of(copy: EnvironmentCopy) -> list[CopiedSegment]:
    return [each async for each in copy.segments()]


async def test_generations_are_after_each_copy_as_the_old_cell_has_them(cells: Cells) -> None:
    old, new = cells
    await old.put("u1")
    async with ChangeFeed(old.dsn) as feed:

        async def set_to(generation: int) -> None:
            await feed.set_generation(1, generation, [])

        for step in (
            set_to(5),
            set_to(2),
            feed.begin_generation("production", []),
            feed.finish_generation("production"),
            feed.forget_generation("production"),
        ):
            await step
            await copy_all(old, new)

            assert await new.generations() == await old.generations()


async def test_a_generation_that_was_set_here_since_stays(cells: Cells) -> None:
    old, new = cells
    await old.put("u1")
    async with ChangeFeed(old.dsn) as feed:
        await feed.set_generation(1, 5, [])
    await copy_all(old, new)
    async with ChangeFeed(new.dsn) as feed:
        await feed.set_generation(1, 7, [])
    await copy_all(old, new)
    assert await new.generations() == (7, None)

    await copy_all(new, old)  # as for an environment that moves back
    assert await old.generations() == (7, None)


async def test_the_newer_of_two_edits_counts(cells: Cells) -> None:
    old, new = cells
    await old.put("u1")
    await copy_all(old, new)
    await old.edit("there")
    await copy_all(old, new)
    assert await new.sql.fetchval("SELECT description FROM segment") == "there"

    await new.edit("here")
    await copy_all(old, new)
    assert await new.sql.fetchval("SELECT description FROM segment") == "here"


async def test_a_segment_of_another_kind_keeps_no_other_from_being_copied(cells: Cells) -> None:
    old, new = cells
    for segment in ("a", "b", "c"):
        await old.put(f"u-{segment}", segment=segment)
    await new.put("acme", segment="b", kind="account")

    copied = {each.key: (each.memberships, each.kind, each.their_kind) for each in await copy_all(old, new)}

    assert copied == {
        "amplitude-a": (1, "user", None),
        "amplitude-b": (0, "account", "user"),
        "amplitude-c": (1, "user", None),
    }
    assert await new.members("b") == {"acme"}
    assert await new.members("c") == {"u-c"}


async def test_a_topic_that_the_old_cell_met_after_the_copy_began_is_known(cells: Cells) -> None:
    old, new = cells
    await old.put("u1")
    async with environment_copy("production", theirs=old.dsn, ours=new.dsn) as copy:
        await copy.begin()
        async with aclosing(copy.segments()) as segments:
            await anext(segments)
        await old.put("u2", topic="cohorts-new")
        await _all_of(copy)

    assert await new.members() == {"u1", "u2"}


async def test_who_was_erased_there_and_is_lifted_here_stays_lifted(cells: Cells) -> None:
    old, new = cells
    await old.put("u1", "alan", "grace")
    for key in ("alan", "grace"):
        await old.erase(key)
    await copy_all(old, new)
    await new.put("alan", "grace", later_us=5)
    assert await new.members() == {"u1"}

    assert await new.lift("alan")
    await new.put("alan", "grace", later_us=6)
    await copy_all(old, new)
    assert await new.members() == {"u1", "alan"}
    assert not await new.lift("alan")

    await new.erase("alan")
    await copy_all(old, new)
    await new.put("alan", later_us=7)
    assert await new.members() == {"u1"}


async def test_whom_a_record_brought_in_here_first_is_out_wherever_in_the_table_the_rows_are(cells: Cells) -> None:
    old, new = cells
    erased = [f"erased{number}" for number in range(8)]
    await old.put("u1", *erased)
    for key in erased:
        await old.erase(key)
    for segment in ("a", "b"):
        await new.put(*(f"u{number}" for number in range(BATCH_ROWS)), *erased, segment=segment)

    await copy_all(old, new)

    rows = await new.sql.fetch("SELECT context_key FROM membership WHERE context_key LIKE 'erased%'")
    assert rows == []
    assert await new.sql.fetchval("SELECT count(*) FROM membership") == 2 * BATCH_ROWS + 1
    assert len(await new.members("a")) == BATCH_ROWS


class Moving:
    """Two cells, of which each has a projector for the same target."""

    def __init__(self, old: Ground, new: Ground, stores: Cells) -> None:
        self.old = old
        self.new = new
        self.stores = stores
        new.prefix = old.prefix

    async def run_old(self) -> asyncio.Task[None]:
        await self.old.stored()
        running = await self.old.project()
        await self.old.caught_up()
        return running

    async def hand_over(self, running: asyncio.Task[None]) -> None:
        """The old projector ends, the new one takes the target."""
        running.cancel()
        await asyncio.wait({running})
        await self.new.stored()
        await self.new.project()

    async def settled(self) -> None:
        """The new one has called the target whole."""
        before = await self.new.synchronized_on() or 0
        await self.new.stored()

        async def is_whole() -> bool:
            async with ChangeFeed(self.new.dsn) as feed:
                told = [state.synchronized_on for state in await feed.projections()]
            return any(told) and (await self.new.synchronized_on() or 0) > before

        await eventually(is_whole)


@pytest.fixture
async def moving(cells: Cells, valkey: Valkey) -> AsyncIterator[Moving]:
    old, new = cells
    await old.sql.execute("INSERT INTO topic (id, name) VALUES (1, 'cohorts')")
    async with a_ground(old.dsn, valkey) as one, a_ground(new.dsn, valkey) as other:
        yield Moving(one, other, cells)


async def test_a_target_is_not_begun_with_an_environment_whose_copy_was_interrupted(moving: Moving) -> None:
    for segment in ("a", "z"):
        await moving.old.put(f"u-{segment}", segment=segment)
    running = await moving.run_old()
    old, new = moving.stores
    async with environment_copy("production", theirs=old.dsn, ours=new.dsn) as copy:
        await copy.begin()
        async with aclosing(copy.segments()) as segments:
            await anext(segments)
    before = await moving.new.synchronized_on()
    await moving.hand_over(running)

    async def is_told() -> str | None:
        async with ChangeFeed(new.dsn) as feed:
            states = await feed.projections()
        return states[0].stopped if states else None

    assert "has not come to its end" in await eventually(is_told)
    await asyncio.sleep(3)
    assert await moving.new.members("amplitude-z") == refs("u-z")
    assert await moving.new.synchronized_on() == before

    await copy_all(old, new)
    await moving.settled()
    for segment in ("a", "z"):
        assert await moving.new.members(f"amplitude-{segment}") == refs(f"u-{segment}")
    assert await is_told() is None


async def test_a_target_keeps_the_generation_that_sdks_still_ask_for_when_it_moves(moving: Moving) -> None:
    await moving.old.put("u1", "u2")
    running = await moving.run_old()
    old, new = moving.stores
    async with ChangeFeed(old.dsn) as feed:
        await feed.begin_generation("production", ["sdk"])
        await moving.old.caught_up()
        await copy_all(old, new)
        await feed.finish_generation("production")
    await copy_all(old, new)
    await moving.hand_over(running)
    await moving.settled()

    for generation in (1, 2):
        assert await moving.new.members(generation=generation) == refs("u1", "u2")


async def test_a_generation_that_arrives_while_the_projector_runs_is_filled(moving: Moving) -> None:
    await moving.old.put("u1", "u2")
    running = await moving.run_old()
    old, new = moving.stores
    await copy_all(old, new)
    async with ChangeFeed(old.dsn) as feed:
        await feed.set_generation(1, 2, ["sdk"])
    await moving.hand_over(running)
    await moving.settled()
    await copy_all(old, new, "sdk")
    await moving.new.caught_up()

    assert await moving.new.members(generation=2) == refs("u1", "u2")


async def test_whom_the_copy_erases_is_swept_from_targets_that_are_kept_meanwhile(moving: Moving) -> None:
    old, new = moving.stores
    await old.put("u1", "gone")
    await old.erase("gone")
    await new.sql.execute("INSERT INTO topic (id, name) VALUES (1, 'cohorts')")
    await moving.new.put("u1", "gone")
    await moving.new.stored()
    await moving.new.project()
    await moving.new.caught_up()
    assert await moving.new.members() == refs("u1", "gone")

    await copy_all(old, new)
    await moving.settled()

    assert await moving.new.members() == refs("u1")
