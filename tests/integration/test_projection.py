"""What the official SDK sees of what stands in PostgreSQL, through a real Valkey."""

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
from redis.asyncio import Redis

from deploy.local.sdk import Sdk, sdk
from deploy.local.valkey import Valkey
from stores.target import context_reference
from tests.worker_process import Bench, CommandProcess, ServiceProcess, eventually, webhook


class Projected:
    """A bench with a projection of its own, and what an application sees of it."""

    def __init__(self, bench: Bench, valkey: Valkey) -> None:
        self.bench = bench
        self.prefix = f"test-{uuid.uuid4().hex[:8]}"
        self.url = valkey.url
        self.redis: Redis = Redis.from_url(valkey.url, decode_responses=True)
        bench.settings["projections"] = [
            {"name": "sdk", "type": "redis", "environment": "production", "url": valkey.url, "prefix": self.prefix}
        ]
        self._processes: list[CommandProcess] = []

    async def catch_up(self) -> None:
        """Everything that was published is stored, and in the target."""
        await self.bench.catch_up()
        await self.project()

    async def project(self) -> None:
        done = await self.bench.run("project", "--until-caught-up")
        assert done.returncode == 0, done.stderr.decode()

    def start(self) -> CommandProcess:
        """A projector that goes on."""
        log = self.bench.folder / f"projector-{len(self._processes)}.log"
        self._processes.append(CommandProcess("project", config=self.bench.config, log=log))
        return self._processes[-1]

    async def sdk_data(self) -> dict[str, Any]:
        done = await self.bench.run("sdk-data")
        assert done.returncode == 0, done.stderr.decode()
        data: dict[str, Any] = json.loads(done.stdout)
        return data

    @asynccontextmanager
    async def application(self) -> AsyncIterator[Sdk]:
        with sdk(await self.sdk_data(), self.url, self.bench.folder, prefix=self.prefix) as running:
            yield running

    async def references(self, key: str) -> set[str]:
        """What stands in the target of a context."""
        found: set[Any] = await self.redis.smembers(f"{self.prefix}:big_segment_include:{context_reference(key)}")
        return found

    async def close(self) -> None:
        for process in self._processes:
            process.kill()
        await self.redis.aclose()


@pytest.fixture
async def projected(bench: Bench, valkey: Valkey) -> AsyncIterator[Projected]:
    own = Projected(bench, valkey)
    yield own
    await own.close()


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


async def test_keys_and_values_are_the_documented_ones(projected: Projected) -> None:
    bench = projected.bench
    await bench.publish(bench.webhook_topic, webhook("beta", "abc"))
    await projected.catch_up()

    documented = f"{projected.prefix}:big_segment_include:ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0="
    assert await projected.redis.smembers(documented) == {"amplitude-beta.g1"}


async def test_a_set_that_nobody_needs_is_gone(projected: Projected) -> None:
    bench = projected.bench
    await bench.publish(bench.webhook_topic, webhook("beta", "abc"))
    await projected.catch_up()
    await bench.publish(bench.webhook_topic, webhook("beta", "abc", in_cohort=False, at=1_692_206_764))
    await projected.catch_up()

    assert [key async for key in projected.redis.scan_iter(f"{projected.prefix}:big_segment_include:*")] == []


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


async def test_a_projector_that_waits_for_its_turn_or_its_target_stays_alive(
    projected: Projected, tmp_path: Path
) -> None:
    bench = projected.bench
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
