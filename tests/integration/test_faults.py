"""Nothing is lost when processes and servers fail, and nothing is committed that is not durable."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from deploy.local.servers import Kafka, Postgres
from deploy.local.valkey import Valkey
from tests.worker_process import Bench, ServiceProcess, eventually, webhook

BATCHES = 60
MEMBERS = 500


async def publish_batches(bench: Bench, *, start: int = 0, count: int = BATCHES) -> None:
    for number in range(start, start + count):
        users = [f"u{number}-{member}" for member in range(MEMBERS)]
        await bench.publish(bench.webhook_topic, webhook(f"c{number % 3}", *users), partition=number % 4)


async def all_included(bench: Bench, expected: int) -> None:
    async def enough() -> bool:
        return await bench.included() >= expected

    await eventually(enough)
    assert await bench.included() == expected


async def test_two_workers_share_the_partitions_and_lose_nothing_when_one_leaves(bench: Bench) -> None:
    first = bench.start_worker()
    await first.logged("partitions_assigned")
    await publish_batches(bench, count=20)
    second = bench.start_worker()
    await publish_batches(bench, start=20, count=20)
    await second.logged("partitions_assigned")
    await publish_batches(bench, start=40, count=20)

    assert await first.stop() == 0
    await all_included(bench, BATCHES * MEMBERS)
    assert await second.stop() == 0
    assert await bench.committed(bench.webhook_topic) == dict.fromkeys(range(4), BATCHES // 4)


async def test_a_worker_killed_between_write_and_commit_writes_again_and_changes_nothing(
    bench: Bench, kafka: Kafka
) -> None:
    worker = bench.start_worker()
    await worker.logged("partitions_assigned")
    async with bench.sql.transaction():
        await bench.sql.execute("LOCK TABLE membership IN EXCLUSIVE MODE")
        await publish_batches(bench, count=4)
        await eventually(bench.writer_waits)
        kafka.kill()  # from now on no commit can succeed
    await all_included(bench, 4 * MEMBERS)
    worker.kill()
    kafka.restart()
    assert not any((await bench.committed(bench.webhook_topic)).values())

    await bench.catch_up()

    assert await bench.included() == 4 * MEMBERS
    assert await bench.sql.fetchval("SELECT sum(included_count)::int FROM segment") == 4 * MEMBERS


async def test_workers_killed_at_any_moment_lose_nothing_and_commit_nothing_early(bench: Bench) -> None:
    publishing = asyncio.create_task(publish_batches(bench))
    for pause_s in (1.2, 1.5, 1.8):
        worker = bench.start_worker()
        await asyncio.sleep(pause_s)
        committed = await bench.committed(bench.webhook_topic)
        stored = await bench.included()
        assert sum(committed.values()) * MEMBERS <= stored
        worker.kill()
    await publishing

    await bench.catch_up()

    assert await bench.included() == BATCHES * MEMBERS


async def test_sigterm_during_a_batch_makes_it_durable_and_exits_with_zero(bench: Bench) -> None:
    bench.settings["batch"] = {"max_wait_s": 30}
    worker = bench.start_worker()
    await worker.logged("partitions_assigned")
    await publish_batches(bench, count=4)
    await asyncio.sleep(1)
    assert await bench.included() == 0

    assert await worker.stop() == 0

    assert await bench.included() == 4 * MEMBERS
    assert sum((await bench.committed(bench.webhook_topic)).values()) == 4


async def test_a_dead_letter_that_is_not_acknowledged_holds_the_offset(bench: Bench) -> None:
    await bench.delete_topic(bench.dead_letter_topic)
    worker = bench.start_worker()
    await bench.publish(bench.webhook_topic, webhook("c1", "u1"), b"{", webhook("c1", "u2"), partition=0)
    await worker.logged("dependency_awaited")
    assert await bench.committed(bench.webhook_topic) == {}
    assert (await worker.get("/readyz")).status_code == 503
    assert (await worker.dependencies())["dead_letter_topic"] is False
    assert (await worker.get("/healthz")).status_code == 200

    await bench.create_topics({bench.dead_letter_topic: 1})
    await all_included(bench, 2)

    async def passed() -> bool:
        return (await bench.committed(bench.webhook_topic)).get(0) == 3

    await eventually(passed)

    async def all_answer() -> bool:
        return all((await worker.dependencies()).values())

    await eventually(all_answer)
    assert [letter["reason"] for letter in await bench.dead_letters()] == ["json_invalid"]
    assert await worker.stop() == 0


async def test_a_topic_that_mostly_yields_dead_letters_is_held_and_others_go_on(bench: Bench) -> None:
    bench.settings["dead_letters"] = {"window_records": 10}
    worker = bench.start_worker()
    await bench.publish(bench.amplitude_topic, *[b"{"] * 500, partition=0)
    await worker.logged("topic_held")

    await bench.publish(bench.webhook_topic, webhook("c1", "u1"))
    await all_included(bench, 1)

    async def few() -> bool:
        return 10 <= len(await bench.dead_letters()) < 500

    await eventually(few)
    await asyncio.sleep(3)  # also an idle worker commits nothing behind what it holds
    committed = (await bench.committed(bench.amplitude_topic)).get(0, 0)
    assert committed == len(await bench.dead_letters())
    await worker.stop()

    again = bench.start_worker("--until-caught-up")
    assert await again.wait() == 1
    assert "is held" in again.log_file.read_text()


async def test_a_topic_is_held_too_when_it_is_the_store_that_rejects_it(bench: Bench) -> None:
    bench.settings["dead_letters"] = {"window_records": 10}
    bench.settings["batch"] = {"max_deltas": 20}
    await bench.publish(bench.webhook_topic, webhook("c1", "u1"))
    await bench.catch_up()

    bench.settings["feeds"][0]["context_kind"] = "device"  # as a wrong deploy would have it
    await bench.publish(bench.webhook_topic, *[webhook("c1", f"u{number}") for number in range(500)], partition=0)
    worker = bench.start_worker()
    await worker.logged("topic_held")
    await asyncio.sleep(3)
    await worker.stop()

    letters = await bench.dead_letters()
    assert {letter["reason"] for letter in letters} == {"context_kind_mismatch"}
    assert 10 <= len(letters) < 500


async def test_a_restarted_postgres_is_waited_for(kafka: Kafka, own_postgres: Postgres, tmp_path: Path) -> None:
    async with Bench(kafka.bootstrap_servers, own_postgres.dsn, tmp_path) as bench:
        worker = bench.start_worker()
        await worker.logged("partitions_assigned")
        await publish_batches(bench, count=10)
        own_postgres.kill()
        await publish_batches(bench, start=10, count=10)
        await worker.logged("dependency_awaited")

        async def not_ready() -> bool:
            return (await worker.get("/readyz")).status_code == 503

        await eventually(not_ready)
        assert (await worker.get("/healthz")).status_code == 200

        own_postgres.restart()
        await bench.reconnect()
        await all_included(bench, 20 * MEMBERS)
        assert await worker.stop() == 0


async def test_readiness_and_metrics_tell_of_a_broker_that_is_away_and_of_one_that_is_back(
    bench: Bench, kafka: Kafka
) -> None:
    worker = bench.start_worker()
    await worker.logged("partitions_assigned")

    async def kafka_is(ok: bool) -> bool:
        answer = await worker.get("/readyz")
        exported = (await worker.dependencies()).get("kafka")
        return answer.json()["checks"]["kafka"]["ok"] is ok and answer.is_success is ok and exported is ok

    await eventually(lambda: kafka_is(ok=True))
    kafka.kill()
    await eventually(lambda: kafka_is(ok=False))
    assert (await worker.get("/healthz")).status_code == 200
    kafka.restart()
    await eventually(lambda: kafka_is(ok=True))
    await bench.publish(bench.webhook_topic, webhook("c1", "u1"))
    await all_included(bench, 1)
    assert await worker.stop() == 0


async def test_readiness_names_a_topic_that_is_missing(bench: Bench) -> None:
    bench.settings["feeds"][0]["topics"].append("nowhere")
    worker = bench.start_worker()

    async def named() -> bool:
        return "nowhere" in (await worker.get("/readyz")).json()["checks"].get("topics", {}).get("why", "")

    await eventually(named)
    await worker.stop()


async def test_servers_that_are_down_at_the_start_are_waited_for(bench: Bench) -> None:
    bench.settings["postgres"] = {"dsn": "postgresql://cohort_sync@127.0.0.1:9/cohort_sync"}
    worker = bench.start_worker()
    await worker.logged("dependency_awaited")
    assert (await worker.get("/readyz")).status_code == 503
    assert await worker.dependencies() == {"postgres": False}  # Kafka was not asked yet, so it is not to blame
    assert (await worker.get("/healthz")).status_code == 200

    worker.send(signal.SIGTERM)

    assert await worker.wait() == 0


async def test_a_worker_that_froze_past_its_session_changes_nothing_newer(bench: Bench) -> None:
    frozen = bench.start_worker()
    await frozen.logged("partitions_assigned")
    await bench.publish(bench.webhook_topic, webhook("c1", "u1"), partition=0)
    await all_included(bench, 1)
    frozen.send(signal.SIGSTOP)
    await bench.publish(bench.webhook_topic, webhook("c1", "u1", in_cohort=False, at=1_692_206_764), partition=0)
    await bench.catch_up()
    assert await bench.included() == 0

    frozen.send(signal.SIGCONT)
    await bench.publish(bench.webhook_topic, webhook("c2", "u2"), partition=0)

    await all_included(bench, 1)
    assert await bench.members("amplitude-c1") == {"u1": False}


async def test_while_postgres_is_frozen_the_lag_tells_how_much_waits(bench: Bench, postgres: Postgres) -> None:
    worker = bench.start_worker()
    await bench.publish(bench.webhook_topic, webhook("c1", "first"))
    await all_included(bench, 1)

    async def waiting() -> float:
        """Over all partitions, as Prometheus would see it."""
        families = text_string_to_metric_families((await worker.get("/metrics")).text)
        return sum(
            sample.value
            for family in families
            for sample in family.samples
            if sample.name == "cohort_sync_consumer_lag_records"
        )

    async def enough() -> bool:
        return await waiting() >= 50

    async def none() -> bool:
        return await waiting() == 0

    postgres.suspend()
    try:
        for user in ("in flight", "in the open batch"):  # what these two hold counts as read
            await bench.publish(bench.webhook_topic, webhook("c1", user))
            await asyncio.sleep(2)
        for number in range(50):
            await bench.publish(bench.webhook_topic, webhook("c1", f"u{number}"))
        await eventually(enough)
    finally:
        postgres.resume()
    await eventually(none)
    assert await bench.included() == 53


async def test_a_projector_says_in_its_metrics_when_postgres_is_away_and_when_it_is_back(
    kafka: Kafka, own_postgres: Postgres, valkey: Valkey, tmp_path: Path
) -> None:
    async with Bench(kafka.bootstrap_servers, own_postgres.dsn, tmp_path) as bench:
        sdk = {"name": "sdk", "type": "redis", "environment": "production", "url": valkey.url}
        bench.settings["projections"] = [sdk]
        projector = ServiceProcess("project", config=bench.config, log=bench.folder / "projector.log")
        try:

            async def postgres_is(up: bool) -> bool:
                return (await projector.dependencies()).get("postgres") is up

            await eventually(lambda: postgres_is(up=True))
            own_postgres.kill()
            await eventually(lambda: postgres_is(up=False))
            own_postgres.restart()
            await eventually(lambda: postgres_is(up=True))
        finally:
            projector.kill()
