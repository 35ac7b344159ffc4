"""Two cells on one Kafka: a database and a consumer group each, and environments that move from one to the other."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from deploy.local.servers import Kafka, Postgres
from deploy.local.valkey import Valkey
from stores.postgres.migrating import migrate
from stores.postgres.writing import PostgresStore
from tests.builders import a_clearing, a_group, a_version
from tests.conftest import a_database
from tests.integration.test_projection import InRedis
from tests.runbook import commands
from tests.worker_process import Bench, CommandProcess, eventually, webhook

PARTITIONS = 4


class Cell(Bench):
    """A release of its own, on topics that all cells read."""

    def __init__(self, kafka: Kafka, dsn: str, folder: Path, topic: str) -> None:
        folder.mkdir()
        super().__init__(kafka.bootstrap_servers, dsn, folder)
        self.topic = topic
        self.settings["feeds"] = [{"name": "all", "topics": [topic], "format": "header"}]
        self.settings["unknown_environment"] = "skip"

    def serve(self, *environments: str) -> None:
        self.settings["environments"] = [{"key": key} for key in environments]

    async def restart(self) -> None:
        """The worker, with the settings of now."""
        for worker in self._workers:
            if worker.returncode is None:
                assert await worker.stop() == 0
        await self.start_worker().logged("worker_started")

    async def send(self, environment: str, value: object, integration: str = "amplitude-webhook") -> None:
        headers = [("environment", environment.encode()), ("integration", integration.encode())]
        await self.publish(self.topic, value, key=uuid.uuid4().bytes, headers=headers)

    async def everything(self, environment: str) -> set[tuple[Any, ...]]:
        """Who is in which segment or out of it, and by which record."""
        rows = await self.sql.fetch(
            "SELECT segment.key, context_key, included, event_time, topic.name, "
            "position & 18014398509481983 AS place, generation, description "
            "FROM membership_in_force JOIN segment ON segment.id = segment_id "
            "JOIN environment ON environment.id = environment_id JOIN topic ON topic.id = position >> 54 "
            "WHERE environment.key = $1",
            environment,
        )
        return {tuple(row) for row in rows}


@pytest.fixture
async def cells(kafka: Kafka, postgres: Postgres, tmp_path: Path) -> AsyncIterator[tuple[Cell, Cell]]:
    topic = f"all-{uuid.uuid4().hex[:8]}"
    async with a_database(postgres) as one, a_database(postgres) as two:
        for dsn in (one, two):
            await migrate(dsn)
        async with (
            Cell(kafka, one, tmp_path / "one", topic) as first,
            Cell(kafka, two, tmp_path / "two", topic) as other,
        ):
            await first.create_topics({topic: PARTITIONS})
            yield first, other


async def test_each_cell_takes_its_own_environments_and_skips_the_others(cells: tuple[Cell, Cell]) -> None:
    first, second = cells
    first.serve("production")
    second.serve("staging", "test")
    workers = [cell.start_worker() for cell in cells]
    for environment in ("production", "staging", "test"):
        await first.send(environment, webhook("c1", f"u-{environment}"))

    async def both_have_theirs() -> bool:
        return [await first.included(), await second.included()] == [1, 2]

    await eventually(both_have_theirs)
    for worker, cell in zip(workers, cells, strict=True):
        await worker.stop()
        assert await cell.dead_letters() == []
        assert sum((await cell.committed(cell.topic)).values()) == 3
    assert await first.members("amplitude-c1") == {"u-production": True}
    assert {each["environment"] for each in await second.rows("segments")} == {"staging", "test"}


async def test_what_can_not_be_read_is_a_dead_letter_of_the_cell_whose_environment_its_header_names(
    cells: tuple[Cell, Cell],
) -> None:
    first, second = cells
    first.serve("production")
    second.serve("staging")
    workers = [cell.start_worker() for cell in cells]
    origin = [("environment", b"production"), ("cohort-sync-original-topic", b"?")]
    for _ in range(4):
        await first.send("production", b"{")
        await first.send("production", None)
        await first.send("production", {}, "unheard-of")
        await first.publish(first.topic, webhook("c1", "u1"), headers=origin)
    await first.publish(first.topic, b"{")  # of which nobody can say whose it is
    await second.send("staging", webhook("c1", "u1"))
    await first.send("nobody", webhook("c1", "lost"))

    async def both_have_read() -> bool:
        return [sum((await cell.committed(cell.topic)).values()) for cell in cells] == [19, 19]

    await eventually(both_have_read)
    assert len(await first.dead_letters()) == 17
    assert len(await second.dead_letters()) == 1
    skipped = [{each["environment"] for each in worker.events() if each["event"] == SKIPPED} for worker in workers]
    assert skipped == [{"staging", "nobody"}, {"production", "nobody"}]


SKIPPED = "environment_skipped"


async def test_an_environment_that_moves_to_another_cell_loses_nothing(
    cells: tuple[Cell, Cell], valkey: Valkey
) -> None:
    first, second = cells
    first.serve("production", "staging")
    second.serve("test")
    before = InRedis(first, valkey)
    await _a_long_history(first)
    await _forget_what_kafka_holds(first)
    # The other cell has met other topics first, so ids of topics differ.
    await second.sql.execute("INSERT INTO topic (id, name) VALUES (1, 'met-before')")
    for cell in cells:
        cell.start_worker()
    old_projector = before.start()
    await first.send("production", webhook("c1", "u5"))
    await eventually(lambda: before.references("u5"))

    moving = asyncio.create_task(_keep_changing(first))
    second.serve("test", "production")
    await second.restart()
    copied = await second.rows("copy", "production", "--from", str(first.config))
    assert {each["segment"] for each in copied} >= {"amplitude-c1", "amplitude-erased", "heap-inbound-h1"}
    again = await second.rows("copy", "production", "--from", str(first.config))
    assert len(again) == len(copied)
    await moving

    async def are_the_same() -> bool:
        found = await first.everything("production")
        return found == await second.everything("production") and any(row[1] == "last" for row in found)

    await eventually(are_the_same)
    assert await second.everything("staging") == set()
    assert await first.sql.fetch(COUNTS) == await second.sql.fetch(COUNTS)

    assert await old_projector.stop() == 0
    del first.settings["projections"]
    await second.send("production", webhook("c1", "u5", in_cohort=False, at=1_700_000_000))
    after = InRedis(second, valkey)
    second.settings["projections"][0]["prefix"] = before.prefix
    new_projector = after.start()

    async def has_left() -> bool:
        return not await before.references("u5")

    await eventually(has_left)
    in_force = {(row[0], row[1]) for row in await second.everything("production") if row[2]}
    for key in {row[1] for row in await second.everything("production")}:
        assert await before.references(key) == {
            f"{segment}.g3" if segment == "amplitude-c1" else f"{segment}.g1"
            for segment, member in in_force
            if member == key
        }
    assert await before.references("gone") == set()
    await new_projector.stop()


COUNTS = """
SELECT segment.key, included_count FROM segment JOIN environment ON environment.id = environment_id
WHERE environment.key = 'production' ORDER BY segment.key
"""


async def _a_long_history(cell: Cell) -> None:
    """Members, leavers, a drain, somebody who was erased, and what people have edited."""
    await cell.send("production", webhook("c1", "u1", "u2", "u3"))
    await cell.send("production", webhook("c1", "u2", in_cohort=False, at=1_692_206_999))
    await cell.send("staging", webhook("c1", "s1"))
    await cell.send("production", webhook("erased", "gone", "stays"))
    await cell.send("production", _heap("sync", "h1", add=[{"id": "u1"}]), "heap-inbound")
    await cell.catch_up()
    await cell.send("production", _heap("drain", "h1"), "heap-inbound")
    await cell.catch_up()
    await cell.send("production", _heap("sync", "h1", add=[{"id": "u4"}]), "heap-inbound")
    await cell.catch_up()
    done = await cell.run("segments", "set-generation", "amplitude-c1", "3", "--environment", "production")
    assert done.returncode == 0, done.stderr
    await cell.sql.execute("UPDATE segment SET description = 'ours', description_edited_at = now()")
    assert (await cell.run("project", "--until-caught-up")).returncode == 0
    await cell.rows("erase", "gone")


def _heap(action: str, segment: str, **lists: object) -> dict[str, object]:
    return {"action_type": f"segment.users.{action}", "data": {"segment": {"id": segment, "name": "H"}, **lists}}


async def _forget_what_kafka_holds(cell: Cell) -> None:
    """As retention does: what was stored long ago can't be read again."""
    admin = AIOKafkaAdminClient(bootstrap_servers=cell.bootstrap_servers)
    await admin.start()
    ends = {TopicPartition(cell.topic, number): RecordsToDelete(-1) for number in range(PARTITIONS)}
    await admin.delete_records(ends)
    await admin.close()


async def _keep_changing(cell: Cell) -> None:
    """While both cells run: people come and go, and one of them was erased."""
    for number in range(200):
        await cell.send(
            "production", webhook("c1", f"n{number % 50}", in_cohort=number % 3 > 0, at=1_692_300_000 + number)
        )
        await cell.send("production", webhook(f"new-{number % 7}", f"n{number}", "gone"))
        await asyncio.sleep(0.05)
    await cell.send("production", webhook("c1", "last"))


async def test_a_cell_copies_from_no_store_that_is_its_own_whatever_the_environment_of_the_command_says(
    cells: tuple[Cell, Cell], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = cells
    first.serve("production")
    second.serve("production")
    first.start_worker()
    await first.send("production", webhook("c1", "u1"))
    await eventually(lambda: _has(first, "u1"))

    from_itself = await second.run("copy", "production", "--from", str(second.config))
    monkeypatch.setenv("COHORT_SYNC_POSTGRES__DSN", second.dsn)
    copied = await second.run("copy", "production", "--from", str(first.config))

    assert from_itself.returncode == 2
    assert b"this cell's own database" in from_itself.stderr
    assert copied.returncode == 0, copied.stderr
    assert await second.members("amplitude-c1") == {"u1": True}


async def _has(cell: Cell, context_key: str) -> bool:
    return await cell.members("amplitude-c1") == {context_key: True}


async def test_a_copy_waits_for_the_last_worker_that_skips_the_environment(cells: tuple[Cell, Cell]) -> None:
    first, second = cells
    first.serve("production", "staging")
    second.serve("staging")
    first.start_worker()
    skips = second.start_worker()
    await skips.logged("worker_started")
    second.serve("staging", "production")
    takes = second.start_worker()
    await takes.logged("worker_started")

    async def share_the_partitions() -> bool:
        metrics = [(await worker.get("/metrics")).text for worker in (skips, takes)]
        return all("cohort_sync_assigned_partitions 2.0" in text for text in metrics)

    await eventually(share_the_partitions)
    log = second.folder / "copy.log"
    copy = CommandProcess("copy", "production", "--from", str(first.config), config=second.config, log=log)

    async def waits() -> bool:
        return "workers of the group" in log.read_text()

    await eventually(waits)
    people = {f"n{number}" for number in range(40)}
    for context_key in people:
        await first.send("production", webhook("c1", context_key))

    async def is_read() -> bool:
        return sum((await second.committed(second.topic)).values()) == len(people)

    await eventually(is_read)
    assert await second.members("amplitude-c1") != dict.fromkeys(people, True)
    assert copy.returncode is None

    assert await skips.stop() == 0
    assert await copy.wait() == 0, log.read_text()
    assert await second.members("amplitude-c1") == dict.fromkeys(people, True)


async def test_a_copy_of_what_the_other_cell_has_not_is_refused_and_says_what_it_has(cells: tuple[Cell, Cell]) -> None:
    first, second = cells
    first.serve("production", "empty")
    second.serve("prod", "empty")
    await first.send("production", webhook("c1", "u1"))
    await first.catch_up()

    refused = await second.run("copy", "prod", "--from", str(first.config))
    empty = await second.run("copy", "empty", "--from", str(first.config))

    assert refused.returncode == 2
    assert b"no environment 'prod'; it has empty, production" in refused.stderr
    assert empty.returncode == 0, empty.stderr


def _taken_out(segment: str) -> str:
    """The statement of the runbook."""
    (line,) = (each.line for each in commands(("psql",)) if "DELETE FROM segment" in each.line)
    return line.split('"')[3].replace("amplitude-7khm89cz", segment)


async def test_a_segment_of_another_kind_is_named_and_copied_once_the_wrong_one_is_gone(
    cells: tuple[Cell, Cell],
) -> None:
    first, second = cells
    first.serve("production")
    second.serve("production")
    for cohort in ("a", "b", "c"):
        await first.send("production", webhook(cohort, f"u-{cohort}"))
    await first.catch_up()
    await _forget_what_kafka_holds(first)
    async with PostgresStore(second.dsn, pool_max_size=1) as store:
        topic_id = await store.topic_id(second.topic)
        group = a_group("acme", segment="amplitude-b", context_kind="account", version=a_version(topic_id=topic_id))
        segment = (await store.resolve([group]))[group.segment]
        await store.apply([(segment.id, group)])
        await store.clear([(segment.id, a_clearing(drain=True, version=a_version(0)))])

    refused = await second.run("copy", "production", "--from", str(first.config))
    assert refused.returncode == 1
    assert b"amplitude-b is of kind 'user' there and 'account' here" in refused.stderr
    assert await second.members("amplitude-c") == {"u-c": True}

    await second.sql.execute(_taken_out("amplitude-b"))
    again = await second.rows("copy", "production", "--from", str(first.config))
    assert [each["memberships"] for each in again] == [1, 1, 1]
    assert await second.members("amplitude-b") == {"u-b": True}
