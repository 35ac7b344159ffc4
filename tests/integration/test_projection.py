"""What the official SDK sees of what stands in PostgreSQL, through a real Valkey and through moto's DynamoDB."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from ldclient.interfaces import BigSegmentStore
from redis.asyncio import Redis

from deploy.local.dynamodb import REGION, DynamoDb
from deploy.local.sdk import STALE_AFTER_S, Sdk, dynamodb_store, redis_store, sdk
from deploy.local.valkey import Valkey
from stores.dynamodb.target import DynamoTarget
from stores.target import context_reference
from tests.worker_process import Bench, ServiceProcess, eventually, webhook

STALE_SOON_S = 5.0


class Projected:
    """A bench with a projection of its own, and what an application sees of it."""

    def __init__(self, bench: Bench, store: BigSegmentStore, **where: str) -> None:
        self.bench = bench
        bench.settings["projections"] = [{"name": "sdk", "environment": "production", **where}]
        self._store = store
        self._processes: list[ServiceProcess] = []

    async def catch_up(self) -> None:
        """Everything that was published is stored, and in the target."""
        await self.bench.catch_up()
        await self.project()

    async def project(self) -> None:
        done = await self.bench.run("project", "--until-caught-up", "--create-table")
        assert done.returncode == 0, done.stderr.decode()

    def start(self) -> ServiceProcess:
        """A projector that goes on."""
        log = self.bench.folder / f"projector-{len(self._processes)}.log"
        self._processes.append(ServiceProcess("project", config=self.bench.config, log=log))
        return self._processes[-1]

    async def sdk_data(self) -> dict[str, Any]:
        done = await self.bench.run("sdk-data")
        assert done.returncode == 0, done.stderr.decode()
        data: dict[str, Any] = json.loads(done.stdout)
        return data

    @asynccontextmanager
    async def application(self, *, stale_after_s: float = STALE_AFTER_S) -> AsyncIterator[Sdk]:
        with sdk(await self.sdk_data(), self._store, self.bench.folder, stale_after_s=stale_after_s) as running:
            yield running

    async def references(self, key: str) -> set[str]:
        """What stands in the target of a context."""
        return set(await asyncio.to_thread(self._store.get_membership, context_reference(key)) or ())

    def close(self) -> None:
        for process in self._processes:
            process.kill()


class InRedis(Projected):
    """With a Valkey as its target."""

    def __init__(self, bench: Bench, valkey: Valkey) -> None:
        self.prefix = f"test-{uuid.uuid4().hex[:8]}"
        self.redis: Redis = Redis.from_url(valkey.url, decode_responses=True)
        store = redis_store(valkey.url, prefix=self.prefix)
        super().__init__(bench, store, type="redis", url=valkey.url, prefix=self.prefix)


class InDynamoDb(Projected):
    """With a table of DynamoDB as its target."""

    def __init__(self, bench: Bench, dynamodb: DynamoDb, *, prefix: str) -> None:
        self.table = f"test-{uuid.uuid4().hex[:8]}"
        self.prefix = prefix
        self.where = {"region": REGION, "endpoint_url": dynamodb.endpoint_url, "prefix": prefix}
        store = dynamodb_store(self.table, **self.where)
        super().__init__(bench, store, type="dynamodb", table=self.table, **self.where)

    async def create_table(self) -> None:
        async with DynamoTarget(self.table, **self.where) as target:
            await target.create_table()


@pytest.fixture(params=["redis", "dynamodb"])
async def projected(
    request: pytest.FixtureRequest, bench: Bench, valkey: Valkey, dynamodb: DynamoDb
) -> AsyncIterator[Projected]:
    """Each kind of target in turn."""
    if request.param == "redis":
        own: Projected = InRedis(bench, valkey)
    else:
        own = in_dynamodb = InDynamoDb(bench, dynamodb, prefix="ours")
        await in_dynamodb.create_table()
    yield own
    own.close()


@pytest.fixture
async def in_redis(bench: Bench, valkey: Valkey) -> AsyncIterator[InRedis]:
    own = InRedis(bench, valkey)
    yield own
    own.close()
    await own.redis.aclose()


async def test_the_sdk_sees_members_leavers_and_strangers_as_they_are(projected: Projected) -> None:
    bench = projected.bench
    await bench.publish(bench.webhook_topic, webhook("beta", "in", "leaver"), webhook("other", "elsewhere"))
    await projected.catch_up()
    async with projected.application() as app:
        assert app.is_in("amplitude-beta", "in")
        assert app.is_in("amplitude-beta", "leaver")
        assert not app.is_in("amplitude-beta", "elsewhere")
        assert not app.is_in("amplitude-beta", "nobody")

        await bench.publish(bench.webhook_topic, webhook("beta", "leaver", in_cohort=False, at=1_692_206_764))
        await projected.catch_up()

        assert app.is_in("amplitude-beta", "in")
        assert not app.is_in("amplitude-beta", "leaver")


async def test_two_kinds_with_the_same_key_are_two_contexts(projected: Projected) -> None:
    bench = projected.bench
    bench.settings["feeds"][1]["context_kind"] = "device"
    member = {"userId": "same", "cohortId": "devices", "cohortName": "Devices", "value": True}
    await bench.publish(bench.amplitude_topic, {"batch": [member]})
    await bench.publish(bench.webhook_topic, webhook("people", "other"))
    await projected.catch_up()

    async with projected.application() as app:
        assert app.is_in("amplitude-devices", "same", kind="device")
        assert not app.is_in("amplitude-devices", "same", kind="user")
        assert not app.is_in("amplitude-people", "same", kind="user")


async def test_keys_and_values_are_the_documented_ones(in_redis: InRedis) -> None:
    bench = in_redis.bench
    await bench.publish(bench.webhook_topic, webhook("beta", "abc"))
    await in_redis.catch_up()

    documented = f"{in_redis.prefix}:big_segment_include:ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0="
    assert await in_redis.redis.smembers(documented) == {"amplitude-beta.g1"}


async def test_a_set_that_nobody_needs_is_gone(in_redis: InRedis) -> None:
    bench = in_redis.bench
    await bench.publish(bench.webhook_topic, webhook("beta", "abc"))
    await in_redis.catch_up()
    await bench.publish(bench.webhook_topic, webhook("beta", "abc", in_cohort=False, at=1_692_206_764))
    await in_redis.catch_up()

    assert [key async for key in in_redis.redis.scan_iter(f"{in_redis.prefix}:big_segment_include:*")] == []


async def test_the_sdk_calls_the_store_healthy_while_a_worker_and_a_projector_run(projected: Projected) -> None:
    bench = projected.bench
    await bench.publish(bench.webhook_topic, webhook("beta", "in"))
    bench.start_worker()
    projected.start()

    async def member() -> set[str]:
        return await projected.references("in")

    await eventually(member)
    async with projected.application() as app:

        async def healthy() -> bool:
            return await asyncio.to_thread(app.status_of, "amplitude-beta", "in") == "HEALTHY"

        await eventually(healthy)


@pytest.mark.parametrize("stopped", ["worker", "projector"])
async def test_the_sdk_calls_the_store_stale_once_a_worker_or_its_projector_is_gone(
    projected: Projected, stopped: str
) -> None:
    bench = projected.bench
    await bench.publish(bench.webhook_topic, webhook("beta", "in"))
    running = {"worker": bench.start_worker(), "projector": projected.start()}

    async def member() -> set[str]:
        return await projected.references("in")

    await eventually(member)
    async with projected.application(stale_after_s=STALE_SOON_S) as app:

        async def is_called(status: str) -> bool:
            return await asyncio.to_thread(app.status_of, "amplitude-beta", "in") == status

        await eventually(lambda: is_called("HEALTHY"))
        await running[stopped].stop()
        await eventually(lambda: is_called("STALE"))
        await asyncio.sleep(1)

        assert await is_called("STALE")
        assert app.is_in("amplitude-beta", "in")


async def test_a_projector_that_waits_for_its_turn_or_its_target_stays_alive(in_redis: InRedis, tmp_path: Path) -> None:
    bench = in_redis.bench
    with Valkey(tmp_path / "own").start() as own:
        bench.settings["projections"][0]["url"] = own.url
        log = bench.folder / "projector-alive.log"
        process = ServiceProcess("project", config=bench.config, log=log)
        try:

            async def ready() -> bool:
                return (await process.get("/readyz")).status_code == HTTPStatus.OK

            await eventually(ready)
            own.stop()

            async def unready() -> bool:
                return not await ready()

            await eventually(unready)
            alive = (await process.get("/healthz")).json()
            await asyncio.sleep(3)
            later = (await process.get("/healthz")).json()
        finally:
            process.kill()

    assert alive["live"]
    assert later["seconds_since_progress"] < 2


async def test_sdks_see_the_old_generation_or_the_new_one_until_the_old_is_swept(in_redis: InRedis) -> None:
    bench = in_redis.bench
    await bench.publish(bench.webhook_topic, webhook("beta", "in", "leaver"))
    await in_redis.catch_up()
    async with in_redis.application() as old:
        filled = await bench.run("rebuild", "sdk", "--generation")
        assert filled.returncode == 0, filled.stderr.decode()
        data = json.loads(filled.stdout)
        assert data == await in_redis.sdk_data()
        assert data["segments"]["amplitude-beta"]["generation"] == 2
        await bench.publish(bench.webhook_topic, webhook("beta", "leaver", in_cohort=False, at=1_692_206_764))
        await bench.publish(bench.webhook_topic, webhook("beta", "later"))
        await in_redis.catch_up()
        async with in_redis.application() as new:
            for app in (old, new):
                assert app.is_in("amplitude-beta", "in")
                assert app.is_in("amplitude-beta", "later")
                assert not app.is_in("amplitude-beta", "leaver")
            again = await bench.run("rebuild", "sdk", "--generation")
            assert (again.returncode, again.stdout) == (1, b"")
            assert await in_redis.references("in") == {"amplitude-beta.g1", "amplitude-beta.g2"}
            assert await bench.rows("audit", "sdk") == []

            swept = await bench.run("rebuild", "sdk", "--sweep")

            assert swept.returncode == 0, swept.stderr.decode()
            assert new.is_in("amplitude-beta", "in")
            assert await in_redis.references("in") == {"amplitude-beta.g2"}
            assert await bench.rows("audit", "sdk") == []


async def test_where_there_are_no_segments_there_is_no_generation_to_fill(in_redis: InRedis) -> None:
    refused = await in_redis.bench.run("rebuild", "sdk", "--generation")

    assert (refused.returncode, refused.stdout) == (1, b"")
    assert b"there are no segments in 'production' yet" in refused.stderr


async def test_nothing_is_said_of_a_target_that_nobody_keeps(in_redis: InRedis, tmp_path: Path) -> None:
    """Somebody who has another URL for the same projection is told so, instead of that all is well."""
    bench = in_redis.bench
    await bench.publish(bench.webhook_topic, webhook("beta", "in"))
    await bench.catch_up()
    leader = ServiceProcess("project", config=bench.config, log=bench.folder / "leader.log")
    try:

        async def member() -> set[str]:
            return await in_redis.references("in")

        await eventually(member)
        with Valkey(tmp_path / "another").start() as another:
            bench.settings["projections"][0]["url"] = another.url
            refused = await bench.run("project", "--until-caught-up")
            not_erased = await bench.run("erase", "in", "--json")
    finally:
        leader.kill()

    for each in (refused, not_erased):
        assert each.returncode == 1
        assert b"projection sdk: another process keeps another target" in each.stderr


async def test_a_rebuild_puts_back_what_is_missing_and_sweeps_what_belongs_to_nobody(in_redis: InRedis) -> None:
    bench = in_redis.bench
    await bench.publish(bench.webhook_topic, webhook("beta", "in", "lost"))
    await in_redis.catch_up()
    start = f"{in_redis.prefix}:big_segment_include:"
    await in_redis.redis.delete(start + context_reference("lost"))
    await in_redis.redis.sadd(start + context_reference("stranger"), "amplitude-beta.g1", "gone.g3")

    done = await bench.run("rebuild", "sdk")

    assert done.returncode == 0, done.stderr.decode()
    assert await in_redis.references("lost") == {"amplitude-beta.g1"}
    assert await in_redis.references("stranger") == set()


async def test_a_projection_whose_target_is_away_or_unfit_stops_no_other(in_redis: InRedis, dynamodb: DynamoDb) -> None:
    bench = in_redis.bench
    away = {"name": "away", "type": "redis", "environment": "production", "url": "redis://127.0.0.1:1/0"}
    unfit = {"name": "unfit", "type": "dynamodb", "environment": "production", "table": "is-not-there"}
    unfit |= {"region": REGION, "endpoint_url": dynamodb.endpoint_url}
    bench.settings["projections"] += [away, unfit]
    await bench.publish(bench.webhook_topic, webhook("beta", "in"))
    await bench.catch_up()
    process = ServiceProcess("project", config=bench.config, log=bench.folder / "projector-three.log")
    try:

        async def member() -> set[str]:
            return await in_redis.references("in")

        assert await eventually(member) == {"amplitude-beta.g1"}

        async def unready() -> dict[str, Any]:
            checks: dict[str, Any] = (await process.get("/readyz")).json()["checks"]
            return {} if checks["projection sdk"] != {"ok": True} else checks

        checks = await eventually(unready)
        assert "Redis is not available" in checks["projection away"]["why"]
        assert "--create-table" in checks["projection unfit"]["why"]
        said = {"postgres": True, "projection sdk": True, "projection away": False, "projection unfit": False}
        assert await process.dependencies() == said
    finally:
        process.kill()
