"""Targets on bad days: lost, restored, down, frozen, slow, full and broken."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import redis

from deploy.local.processes import HOST, free_ports
from deploy.local.valkey import ValkeyCluster
from stores.target import Change, context_reference
from tests.faults.proxy import Proxy
from tests.projection_ground import SYNCHRONIZED, Ground, a_ground, refs
from tests.targets import ClusterStore
from tests.worker_process import eventually


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
