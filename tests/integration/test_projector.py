"""The projector on a real PostgreSQL and a real Valkey: what the SDKs read, and what they are told."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import asyncpg

from stores.postgres.change_feed import ChangeFeed, Cursor
from stores.target import context_reference
from tests.projection_ground import Ground, refs
from tests.worker_process import eventually
from worker.audit import Fault


async def test_changes_that_go_on_end_as_the_store_has_them(ground: Ground) -> None:
    await ground.put("a", "b", "c")
    await ground.project()
    await ground.put("b", included=False)
    await ground.put("d")
    await ground.put("b")
    await ground.put("c", included=False)
    await ground.caught_up()

    assert await ground.members() == refs("a", "b", "d")
    assert await ground.audit() == []


async def test_another_environment_is_none_of_its_business(ground: Ground) -> None:
    await ground.put("a")
    async with ChangeFeed(ground.dsn) as feed:
        page = await feed.page(Cursor(), "staging")

    assert page.changes == []
    assert page.cursor != Cursor()


async def test_what_the_sdks_are_told_is_as_old_as_what_is_stored(ground: Ground) -> None:
    await ground.put("a")
    await ground.stored(ago_s=7)
    await ground.project()

    said = await eventually(ground.synchronized_on)
    age_s = datetime.now(UTC).timestamp() - said / 1000
    assert 7 <= age_s < 12

    await ground.stored()

    async def newer() -> bool:
        return (await ground.synchronized_on() or 0) > said

    await eventually(newer)


async def test_nothing_is_told_while_no_worker_says_what_is_stored(ground: Ground) -> None:
    await ground.put("a")
    await ground.project()
    await ground.caught_up()
    await asyncio.sleep(1)

    assert await ground.members() == refs("a")
    assert await ground.synchronized_on() is None


async def test_what_is_told_is_not_newer_than_a_drain_whose_members_still_stand_there(ground: Ground) -> None:
    await ground.put("a", "b")
    await ground.stored()
    await ground.project()
    before = await eventually(ground.synchronized_on)
    await asyncio.sleep(1.5)
    await ground.clear()
    cleared_at_ms = datetime.now(UTC).timestamp() * 1000
    await asyncio.sleep(0.1)
    await ground.stored()
    await asyncio.sleep(3)

    assert before <= (await ground.synchronized_on() or 0) < cleared_at_ms
    assert await ground.members() == refs("a", "b")
    await ground.sweep()

    async def newer() -> bool:
        return (await ground.synchronized_on() or 0) >= cleared_at_ms

    await eventually(newer)
    assert await ground.members() == set()


async def test_the_audit_finds_and_mends_what_somebody_did_to_the_target(ground: Ground) -> None:
    await ground.put("a", "b", "leaver")
    await ground.put("leaver", included=False)
    await ground.project()
    await ground.caught_up()
    start = f"{ground.prefix}:big_segment_include:"
    await ground.redis.srem(start + context_reference("a"), "amplitude-beta.g1")
    await ground.redis.sadd(start + context_reference("leaver"), "amplitude-beta.g1")
    await ground.redis.sadd(start + context_reference("b"), "amplitude-beta.g7", "unknown.g1")
    await ground.redis.sadd(start + context_reference("stranger"), "amplitude-beta.g1")

    found = await ground.audit()
    assert sorted((each.fault, each.reference.segment, each.reference.generation) for each in found) == [
        (Fault.EXTRA, "amplitude-beta", 1),
        (Fault.EXTRA, "amplitude-beta", 1),
        (Fault.EXTRA, "amplitude-beta", 7),
        (Fault.EXTRA, "unknown", 1),
        (Fault.MISSING, "amplitude-beta", 1),
    ]
    assert len(await ground.repair()) == 5
    assert await ground.audit() == []
    assert await ground.members() == refs("a", "b")


async def test_a_new_generation_is_filled_beside_the_old_one(ground: Ground) -> None:
    await ground.put("a", "b")
    await ground.project()
    await ground.caught_up()
    async with ChangeFeed(ground.dsn) as feed:
        segments = await asyncpg.connect(ground.dsn)
        segment_id = await segments.fetchval("SELECT id FROM segment")
        await segments.close()
        await feed.set_generation(segment_id, 2, ["sdk"])
    await ground.caught_up()
    assert await ground.members(generation=1) == await ground.members(generation=2) == refs("a", "b")

    await ground.repair()

    assert await ground.members(generation=1) == set()
    assert await ground.members(generation=2) == refs("a", "b")
