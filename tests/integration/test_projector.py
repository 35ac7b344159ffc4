"""The projector on a real PostgreSQL and a real Valkey, through good days and bad ones."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import pytest
import redis
from redis.asyncio import Redis

from consumers.feeds import Feed
from deploy.local.processes import HOST, free_ports
from deploy.local.valkey import Valkey, ValkeyCluster
from stores.errors import StoreError
from stores.postgres.change_feed import ChangeFeed, Cursor, LeadLostError
from stores.postgres.erasing import postgres_erasures
from stores.postgres.writing import PostgresStore
from stores.redis.target import RedisTarget
from stores.target import Change, Reference, context_reference
from tests.builders import a_clearing, a_group, a_version
from tests.faults.proxy import Proxy
from tests.targets import ClusterStore
from tests.worker_process import eventually
from worker.audit import Audit, Difference, Fault
from worker.health import Health
from worker.projection_metrics import ProjectionMetrics
from worker.projector import Projection, Projector, until_caught_up
from worker.sweeper import finish_sweeps

FEEDS = [Feed(name="all", format="amplitude", topics=("cohorts",))]
SYNCHRONIZED = "big_segments_synchronized_on"


class Ground:
    """A database with memberships, a Valkey, and projectors between the two."""

    def __init__(self, dsn: str, valkey: Valkey, store: PostgresStore, stack: AsyncExitStack) -> None:
        self.dsn, self.valkey, self.url = dsn, valkey, valkey.url
        self.prefix = f"test-{uuid.uuid4().hex[:8]}"
        self.name = "sdk"
        self._store = store
        self._stack = stack
        self._clock = 0
        self._running: list[asyncio.Task[None]] = []
        self.redis: Redis = Redis.from_url(valkey.url, decode_responses=True)

    async def put(self, *keys: str, included: bool = True, segment: str = "beta") -> None:
        """One more change of these contexts."""
        self._clock += 1
        group = a_group(*keys, segment=f"amplitude-{segment}", included=included, version=a_version(self._clock))
        refs = await self._store.resolve([group])
        await self._store.apply([(refs[group.segment].id, group)])

    async def clear(self, segment: str = "beta") -> None:
        """Drains the segment; the sweep is somebody else's."""
        self._clock += 1
        clearing = a_clearing(segment=f"amplitude-{segment}", drain=True, version=a_version(self._clock))
        refs = await self._store.resolve([clearing])
        await self._store.clear([(refs[clearing.segment].id, clearing)])

    async def sweep(self) -> None:
        await finish_sweeps(self._store)

    async def erase(self, key: str) -> None:
        """What the command does, beside projectors that run."""
        async with postgres_erasures(self.dsn) as erasures, self.target() as target:
            await erasures.bar(key)
            await erasures.put_out(key)
            await self.caught_up()
            await target.forget(context_reference(key))
            await erasures.delete(key)

    async def stored(self, ago_s: float = 0.0) -> None:
        """All that had arrived by then is stored."""
        await self._store.note_ingestion([("cohorts", 0, datetime.now(UTC) - timedelta(seconds=ago_s))])

    async def project(self, target: RedisTarget | None = None) -> asyncio.Task[None]:
        """A projector with connections of its own, which goes on."""
        feed = await self._stack.enter_async_context(ChangeFeed(self.dsn))
        target = await self._stack.enter_async_context(target or self.target())
        said = Projection(self.name, "production", FEEDS, freshness_s=30)
        projector = Projector(said, feed=feed, target=target, metrics=ProjectionMetrics([self.name]), health=Health(()))
        self._running.append(asyncio.create_task(projector.run()))
        return self._running[-1]

    def target(self) -> RedisTarget:
        return RedisTarget(self.url, prefix=self.prefix)

    async def caught_up(self) -> None:
        async with ChangeFeed(self.dsn) as feed, asyncio.timeout(60):
            await until_caught_up(feed, Health(()), [self.name])

    async def members(self, segment: str = "amplitude-beta", generation: int = 1) -> set[str]:
        """The contexts that stand in the target, by their references."""
        start = f"{self.prefix}:big_segment_include:"
        keys = [key async for key in self.redis.scan_iter(f"{start}*", count=1_000)]
        async with self.redis.pipeline(transaction=False) as pipeline:
            for key in keys:
                pipeline.sismember(key, f"{segment}.g{generation}")
            held = await pipeline.execute()
        return {key.removeprefix(start) for key, is_held in zip(keys, held, strict=True) if is_held}

    async def synchronized_on(self) -> int | None:
        said = await self.redis.get(f"{self.prefix}:{SYNCHRONIZED}")
        return int(said) if said else None

    async def audit(self) -> list[Difference]:
        async with ChangeFeed(self.dsn) as feed, self.target() as target:
            audit = Audit(feed, target, "production", self.caught_up)
            return [each async for page in audit.differences() for each in page]

    async def repair(self) -> list[Difference]:
        async with ChangeFeed(self.dsn) as feed, self.target() as target:
            audit = Audit(feed, target, "production", self.caught_up)
            found = []
            async for page in audit.differences():
                found += page
                await audit.repair(page)
            await self.caught_up()
            return found

    async def close(self) -> None:
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        await self.redis.aclose()


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


def refs(*keys: str) -> set[str]:
    return set(map(context_reference, keys))


@asynccontextmanager
async def a_ground(dsn: str, valkey: Valkey) -> AsyncIterator[Ground]:
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(PostgresStore(dsn, pool_max_size=2))
        ground = Ground(dsn, valkey, store, stack)
        try:
            yield ground
        finally:
            await ground.close()


@pytest.fixture
async def ground(database: str, valkey: Valkey) -> AsyncIterator[Ground]:
    async with a_ground(database, valkey) as own:
        yield own


@pytest.fixture
async def alone(database: str, tmp_path: Path) -> AsyncIterator[Ground]:
    """With a Valkey of its own, to break."""
    with Valkey(tmp_path).start() as own_valkey:
        async with a_ground(database, own_valkey) as own:
            yield own


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


async def test_a_target_that_was_flushed_is_filled_again_and_not_called_fresh_before(alone: Ground) -> None:
    await alone.put(*(f"u{number}" for number in range(12_000)))
    await alone.stored()
    await alone.project()
    await eventually(alone.synchronized_on)
    for _ in range(3):
        await alone.redis.flushall()

        async def is_called_fresh() -> bool:
            return await alone.synchronized_on() is not None

        await eventually(is_called_fresh)
        assert len(await alone.members()) == 12_000


async def test_who_was_erased_does_not_stay_in_a_target_that_came_back_from_an_older_dump(alone: Ground) -> None:
    await alone.put("alan", "grace", "leaver")
    projector = await alone.project()
    await alone.caught_up()
    await alone.redis.save()
    await alone.put("leaver", included=False)
    await alone.erase("alan")
    assert await alone.members() == refs("grace")

    projector.cancel()
    await asyncio.wait({projector})
    alone.valkey.kill()
    alone.valkey.restart()
    await alone.redis.connection_pool.disconnect()
    assert await alone.members() == refs("alan", "grace", "leaver")
    await alone.stored()
    await alone.project()
    await eventually(alone.synchronized_on)

    assert await alone.members() == refs("grace")


async def test_a_target_is_not_called_whole_before_what_belongs_to_nobody_is_out(ground: Ground) -> None:
    await ground.put("a")
    await ground.stored()
    foreign = Change("amplitude-gone", 1, "nobody", included=True)
    async with ground.target() as target:
        await target.apply([foreign, *(Change("amplitude-beta", 9, f"u{n}", included=True) for n in range(3_000))])
    await ground.project()
    await ground.caught_up()

    assert await ground.members() == refs("a")
    assert await ground.members(generation=9) == set()
    assert await ground.members("amplitude-gone") == set()


async def test_a_target_that_was_restored_from_a_backup_is_begun_anew_although_it_holds_our_mark(
    ground: Ground,
) -> None:
    await ground.put("a", "b")
    await ground.stored(ago_s=5)
    first = await ground.project()
    backup = await eventually(ground.synchronized_on)
    await ground.put("b", included=False)
    await ground.put("c")
    await ground.stored()

    async def newer() -> bool:
        return (await ground.synchronized_on() or 0) > backup

    await eventually(newer)
    first.cancel()
    await asyncio.wait({first})
    async with ground.target() as target:  # as it was
        await target.apply([Change("amplitude-beta", 1, key, included=key != "c") for key in ("a", "b", "c")])
    await ground.redis.set(f"{ground.prefix}:{SYNCHRONIZED}", backup)
    await ground.project()
    await eventually(newer)

    assert await ground.members() == refs("a", "c")


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


async def test_a_cluster_of_which_one_server_was_flushed_is_filled_again_and_not_called_fresh_before(
    database: str, tmp_path: Path
) -> None:
    keys = [f"u{number}" for number in range(5_000)]
    with ValkeyCluster(tmp_path).start() as cluster:
        async with a_ground(database, cluster.nodes[0]) as ground:
            sdk = ClusterStore(cluster, ground.prefix)
            await ground.put(*keys)
            await ground.stored()
            await ground.project()

            async def is_called_fresh() -> bool:
                return sdk.get_metadata().last_up_to_date is not None

            await eventually(is_called_fresh)
            for node in cluster.nodes:
                with node.client() as client:
                    client.flushall()
                    assert client.dbsize() < len(keys) / 4

                    async def is_filled_again(client: redis.Redis = client) -> bool:
                        return bool(client.dbsize() > len(keys) / 4)

                    await eventually(is_filled_again)
                await eventually(is_called_fresh)
                assert await ground.audit() == []
            sdk.stop()


async def test_a_server_of_a_cluster_that_is_down_is_waited_for(database: str, tmp_path: Path) -> None:
    with ValkeyCluster(tmp_path).start() as cluster:
        async with a_ground(database, cluster.nodes[0]) as ground:
            await ground.put(*(f"before{number}" for number in range(100)))
            await ground.project()
            await ground.caught_up()
            cluster.nodes[1].stop()
            await ground.put(*(f"meanwhile{number}" for number in range(100)))
            await ground.put("before7", included=False)
            await asyncio.sleep(1)
            cluster.nodes[1].restart()
            await ground.caught_up()

            assert await ground.audit() == []


async def test_a_key_of_another_type_is_replaced_and_nobody_is_lost(ground: Ground) -> None:
    await ground.put("a", "b")
    await ground.put("a", segment="other")
    await ground.project()
    await ground.caught_up()
    key = f"{ground.prefix}:big_segment_include:{context_reference('a')}"
    await ground.redis.set(key, "not a set")

    await ground.put("a", included=False)
    await ground.put("a")

    async def mended() -> bool:
        return await ground.redis.type(key) == "set" and len(await ground.redis.smembers(key)) == 2

    await eventually(mended)
    assert await ground.members() == refs("a", "b")


async def test_a_target_that_is_down_is_waited_for(alone: Ground) -> None:
    await alone.put("a")
    await alone.project()
    await alone.caught_up()
    alone.valkey.stop()
    await alone.put("b")
    await alone.put("a", included=False)
    await asyncio.sleep(1)
    alone.valkey.restart()
    await alone.caught_up()

    assert await alone.members() == refs("b")


async def test_a_target_that_takes_no_more_is_waited_for(alone: Ground) -> None:
    await alone.put("a")
    await alone.project()
    await alone.caught_up()
    for setting, bad, good in (("maxmemory", "1", "0"), ("min-replicas-to-write", "1", "0")):
        await alone.redis.config_set(setting, bad)
        await alone.put(setting)
        await asyncio.sleep(1)
        assert refs(setting) & await alone.members() == set()
        await alone.redis.config_set(setting, good)
        await alone.caught_up()

    assert await alone.members() == refs("a", "maxmemory", "min-replicas-to-write")


async def test_a_target_that_froze_is_waited_for(alone: Ground) -> None:
    await alone.put("a")
    await alone.project()
    await alone.caught_up()
    alone.valkey.suspend()
    await alone.put("b")
    await asyncio.sleep(2)
    alone.valkey.resume()
    await alone.caught_up()

    assert await alone.members() == refs("a", "b")


async def test_a_slow_target_is_told_to_be_as_old_as_it_is_and_holds_up_no_writer(ground: Ground) -> None:
    (port,) = free_ports(1)
    async with Proxy(port, ground.valkey.port) as slow:
        ground.url = f"redis://{HOST}:{port}/0"
        await ground.put(*(f"u{number}" for number in range(2_000)))
        await ground.stored()
        slow.delay_s = 0.2
        await ground.project()
        started = asyncio.get_running_loop().time()
        for number in range(5):
            await ground.put(f"u{number}", included=False)
        written_s = asyncio.get_running_loop().time() - started
        assert written_s < 2
        assert await ground.synchronized_on() is None
        await ground.caught_up()
        said = await eventually(ground.synchronized_on)

    assert said <= datetime.now(UTC).timestamp() * 1000
    assert await ground.members() == refs(*(f"u{number}" for number in range(5, 2_000)))


async def test_what_was_sent_to_a_frozen_target_does_not_arrive_after_what_is_sent_later(alone: Ground) -> None:
    async with alone.target() as target:
        await target.apply([Change("beta", 1, "a", included=True)])
        alone.valkey.suspend()
        sending = asyncio.create_task(target.apply([Change("beta", 1, "a", included=False)]))
        await asyncio.sleep(0.2)
        sending.cancel()
        with suppress(asyncio.CancelledError):
            await sending
        alone.valkey.resume()

        await target.settle()
        await target.apply([Change("beta", 1, "a", included=True)])
        await asyncio.sleep(0.2)

        assert await alone.members("beta") == refs("a")
        ours = [each for each in await alone.redis.client_list() if each["name"].startswith("cohort-sync")]
        assert len(ours) == 1


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
