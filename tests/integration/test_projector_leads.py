"""Who may write to a target: one leads, and whoever led before puts in nothing old for good."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

import asyncpg
import pytest

from stores.errors import StoreError
from stores.postgres.change_feed import ChangeFeed, LeadLostError
from stores.redis.target import RedisTarget
from stores.target import Change, Reference
from tests.projection_ground import Ground, refs
from tests.worker_process import eventually


class Held(RedisTarget):
    """A target whose first write waits until it is released."""

    def __init__(self, url: str, *, prefix: str) -> None:
        super().__init__(url, prefix=prefix)
        self.reached, self.released, self.applied = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def apply(self, changes: Sequence[Change]) -> Sequence[Reference]:
        self.reached.set()
        await self.released.wait()
        try:
            return await super().apply(changes)
        finally:
            self.applied.set()


async def test_one_leads_and_another_takes_over_when_it_is_gone(ground: Ground) -> None:
    first = await ground.project()
    await ground.put("a")
    await ground.caught_up()
    await ground.project()
    await asyncio.sleep(0.5)
    first.cancel()
    with suppress(asyncio.CancelledError):
        await first
    await ground.put("b")
    started = asyncio.get_running_loop().time()
    await ground.caught_up()

    assert asyncio.get_running_loop().time() - started < 10
    assert await ground.members() == refs("a", "b")


async def test_a_projector_that_is_stopped_while_it_loses_its_lead_stops(ground: Ground) -> None:
    lost = asyncio.Event()

    async def lead(feed: ChangeFeed) -> None:
        with suppress(LeadLostError):
            async with feed.leading("sdk"):
                lost.set()
                raise LeadLostError

    async with ChangeFeed(ground.dsn) as feed:
        leading = asyncio.create_task(lead(feed))
        await lost.wait()
        leading.cancel()
        await asyncio.wait({leading})

    assert leading.cancelled()


async def test_a_session_that_is_silent_loses_the_lead(ground: Ground) -> None:
    async with ChangeFeed(ground.dsn) as feed, feed.leading("sdk") as lead:
        assert lead is not None
        async with feed.leading("sdk") as other:
            assert other is None
        sessions = await asyncpg.connect(ground.dsn)
        timeouts = await sessions.fetch(
            "SELECT 1 FROM pg_stat_activity WHERE application_name = 'cohort-sync' AND query = 'SELECT'"
        )
        await sessions.close()

    assert timeouts


async def test_old_state_of_one_who_led_before_is_mended_by_the_next(ground: Ground) -> None:
    """What a leader wrote after it froze: the state of its page, over what the next one wrote since."""
    await ground.put("a")
    async with ChangeFeed(ground.dsn) as feed:
        async with feed.leading("sdk") as frozen:
            assert frozen is not None
            page = await feed.page(frozen.cursor, "production")
            epoch, cursor = frozen.epoch, frozen.cursor
        await ground.put("a", included=False)
        await ground.project()
        await ground.caught_up()
        assert await ground.members() == set()

        async with ground.target() as target:
            await target.apply(page.changes)
        with pytest.raises(StoreError):
            await frozen.save(page.cursor)
        await feed.rewind("sdk", epoch, cursor)
        assert await ground.members() == refs("a")

    async def mended() -> bool:
        return await ground.members() == set()

    await eventually(mended)


async def test_a_leader_that_froze_while_it_wrote_does_not_bring_back_who_was_erased_since(ground: Ground) -> None:
    """Its write is held exactly there where the kernel may hold it; no row says any more that the person is out."""
    await ground.put("alan", "grace")
    await ground.stored()
    frozen = Held(ground.url, prefix=ground.prefix)
    await ground.project(frozen)
    await frozen.reached.wait()
    session = await asyncpg.connect(ground.dsn)
    await session.execute("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted")
    await session.close()
    await ground.project()
    await ground.caught_up()
    await ground.erase("alan")
    assert await ground.members() == refs("grace")

    frozen.released.set()
    await frozen.applied.wait()

    async def mended() -> bool:
        return await ground.members() == refs("grace")

    assert not await mended()
    await eventually(mended)


async def test_a_projector_that_dies_between_applying_and_saving_repeats_it_harmlessly(ground: Ground) -> None:
    await ground.put("a", "b")
    await ground.put("b", included=False)
    async with ChangeFeed(ground.dsn) as feed, feed.leading("sdk") as lead, ground.target() as target:
        assert lead is not None
        await target.apply((await feed.page(lead.cursor, "production")).changes)
    await ground.project()
    await ground.caught_up()

    assert await ground.members() == refs("a")
