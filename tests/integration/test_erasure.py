"""A person who was erased: nowhere left, and brought back by nothing."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from redis.asyncio import Redis

from deploy.local.valkey import Valkey
from stores.postgres.erasing import postgres_erasures
from stores.postgres.writing import PostgresStore
from stores.target import context_reference
from tests.builders import a_group, a_version
from tests.worker_process import Bench, CommandProcess, eventually, webhook

ALAN, GRACE = "alan@example.com", "grace@example.com"
LATER = 1_692_206_999


@pytest.fixture
async def target(bench: Bench, valkey: Valkey) -> AsyncIterator[Redis]:
    """The Valkey that the bench projects to."""
    prefix = f"test-{uuid.uuid4().hex[:8]}"
    bench.settings["projections"] = [
        {"name": "sdk", "type": "redis", "environment": "production", "url": valkey.url, "prefix": prefix}
    ]
    redis: Redis = Redis.from_url(valkey.url, decode_responses=True)
    yield redis
    await redis.aclose()


async def references(bench: Bench, target: Redis, key: str) -> set[Any]:
    prefix = bench.settings["projections"][0]["prefix"]
    found: set[Any] = await target.smembers(f"{prefix}:big_segment_include:{context_reference(key)}")
    return found


async def everything_stored(sql: asyncpg.Connection) -> str:
    """All rows of all our tables, as text."""
    tables = await sql.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    rows = [str(row) for table in tables for row in await sql.fetch(f'SELECT t::text FROM "{table[0]}" AS t')]
    return "\n".join(rows)


async def noted(bench: Bench) -> set[str]:
    """Of whom the index of rejects tells."""
    members = await bench.sql.fetch("SELECT member FROM rejected_member")
    return {json.loads(row["member"])["user_id"]["is"] for row in members}


async def test_nothing_of_the_person_is_left_in_any_store(bench: Bench, target: Redis) -> None:
    await bench.publish(bench.webhook_topic, webhook("beta", ALAN, GRACE), webhook("old", ALAN, at=1_692_200_000))
    await bench.publish(bench.webhook_topic, webhook("old", ALAN, in_cohort=False))
    await bench.catch_up()
    assert (await bench.run("project", "--until-caught-up")).returncode == 0
    assert await references(bench, target, ALAN) == {"amplitude-beta.g1"}

    evidence = await bench.rows("erase", ALAN)

    assert ALAN not in await everything_stored(bench.sql)
    assert await references(bench, target, ALAN) == set()
    assert await references(bench, target, GRACE) == {"amplitude-beta.g1"}
    counts = {row["segment"]: row["included_count"] for row in await bench.rows("segments")}
    assert counts == {"amplitude-beta": 1, "amplitude-old": 0}
    assert [row for row in evidence if row["kind"] == "membership"] == [
        {
            "kind": "membership",
            "environment": "production",
            "segment": f"amplitude-{segment}",
            "context_kind": "user",
            "included": included,
        }
        for segment, included in (("beta", True), ("old", False))
    ]
    assert {"kind": "projection", "projection": "sdk", "left": None} in evidence
    assert {row["topic"] for row in evidence if row["kind"] == "topic"} == {
        bench.webhook_topic,
        bench.amplitude_topic,
        bench.segment_topic,
        bench.dead_letter_topic,
    }
    assert ALAN not in json.dumps(evidence)
    assert await bench.rows("audit", "sdk") == []


async def test_no_replay_and_no_new_record_brings_the_person_back(bench: Bench) -> None:
    await bench.publish(bench.webhook_topic, webhook("beta", ALAN, GRACE))
    await bench.catch_up()
    await bench.rows("erase", ALAN)
    await bench.publish(bench.webhook_topic, webhook("beta", ALAN, GRACE), webhook("new", ALAN, "ada", at=LATER))
    bench.settings["kafka"]["group_id"] += "-again"  # which reads every topic from its start
    await bench.catch_up()

    assert await bench.members("amplitude-beta") == {GRACE: True}
    assert await bench.members("amplitude-new") == {"ada": True}
    (explained,) = await bench.rows("explain", "amplitude-beta", ALAN)
    assert explained["included"] is False
    assert explained["erased_at"]


@pytest.mark.parametrize("person", [ALAN, 'al"an\\ \u00e9'])
async def test_what_is_rejected_of_the_person_later_is_not_noted(bench: Bench, person: str) -> None:
    def batch(at: int) -> dict[str, Any]:
        odd = [{"user_id": {"is": key, "and": ["a b", 7]}} for key in (person, "ada@example.com")]
        sent = webhook("beta", GRACE, at=at)
        return {**sent, "users": [*sent["users"], *odd]}

    await bench.publish(bench.webhook_topic, batch(1))
    await bench.catch_up()
    assert await noted(bench) == {person, "ada@example.com"}
    await bench.rows("erase", person)
    assert await noted(bench) == {"ada@example.com"}
    await bench.publish(bench.webhook_topic, batch(2))
    await bench.catch_up()

    assert await noted(bench) == {"ada@example.com"}
    assert await bench.sql.fetchval("SELECT count(*) FROM rejected_member") == 2


async def test_a_person_whose_erasure_is_lifted_comes_in_again(bench: Bench) -> None:
    await bench.rows("erase", ALAN)
    assert (await bench.run("erase", ALAN, "--lift")).returncode == 0
    await bench.publish(bench.webhook_topic, webhook("beta", ALAN))
    await bench.catch_up()

    assert await bench.members("amplitude-beta") == {ALAN: True}


async def test_a_writer_that_is_under_way_does_not_bring_the_person_back(database: str) -> None:
    group = a_group(ALAN, GRACE)
    async with PostgresStore(database, pool_max_size=2) as store:
        refs = await store.resolve([group])
        segment_id = refs[group.segment].id
        # Somebody holds the segment's row, so the writer has merged and waits to count.
        blocker = await asyncpg.connect(database)
        held = blocker.transaction()
        await held.start()
        await blocker.execute("SELECT FROM segment FOR UPDATE")
        writing = asyncio.create_task(store.apply([(segment_id, group)]))

        async def waits() -> bool:
            found: bool = await blocker.fetchval(
                "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' "
                "AND datname = current_database())"
            )
            return found

        await eventually(waits)

        async def erase() -> None:
            async with postgres_erasures(database) as erasures:
                await erasures.bar(ALAN)
                await erasures.put_out(ALAN)
                await erasures.delete(ALAN)

        erasing = asyncio.create_task(erase())
        await asyncio.sleep(0.5)
        assert not erasing.done()
        await held.rollback()
        await asyncio.gather(writing, erasing)
        again = a_group(ALAN, version=a_version(offset=1))
        applied = await store.apply([(segment_id, again)])
        rows = await blocker.fetch("SELECT context_key FROM membership")
        count = await blocker.fetchval("SELECT included_count FROM segment")
        await blocker.close()

    assert [row["context_key"] for row in rows] == [GRACE]
    assert count == 1
    assert applied.stale == {segment_id: 1}


async def test_a_target_that_is_away_is_waited_for(bench: Bench, target: Redis, tmp_path: Path) -> None:
    await bench.publish(bench.webhook_topic, webhook("beta", ALAN))
    await bench.catch_up()
    with Valkey(tmp_path / "own").start() as own:
        bench.settings["projections"][0]["url"] = own.url
        target.connection_pool.connection_kwargs["port"] = own.port
        assert (await bench.run("project", "--until-caught-up")).returncode == 0
        own.suspend()
        erasing = CommandProcess("erase", ALAN, config=bench.config, log=tmp_path / "erase.log")

        async def is_out() -> bool:
            return await bench.members("amplitude-beta") == {ALAN: False}

        await eventually(is_out)
        assert erasing.returncode is None
        own.resume()
        assert await erasing.wait() == 0
        assert await references(bench, target, ALAN) == set()
    assert ALAN not in await everything_stored(bench.sql)


@pytest.mark.usefixtures("target")
async def test_the_evidence_says_what_was_not_reached_until_that_is_forgotten(bench: Bench) -> None:
    await bench.publish(bench.webhook_topic, webhook("beta", ALAN))
    await bench.catch_up()
    assert (await bench.run("project", "--until-caught-up")).returncode == 0
    still_there = await bench.run("project", "--forget", "sdk")
    bench.settings["projections"][0]["name"] = "renamed"
    bench.settings["kafka"]["bootstrap_servers"] = "127.0.0.1:1"

    erased = await bench.run("erase", ALAN, "--json")
    told = [json.loads(line) for line in erased.stdout.splitlines()]
    printed = (await bench.run("erase", ALAN)).stdout
    forgotten = await bench.run("project", "--forget", "sdk")
    again = await bench.run("erase", ALAN, "--json")

    assert (still_there.returncode, forgotten.returncode) == (2, 0)
    assert (erased.returncode, again.returncode) == (1, 1)  # Kafka is away
    assert [each["kind"] for each in told] == ["erasure", "membership", "projection", "projection", "topic"]
    assert {each["projection"]: each["left"] for each in told if each["kind"] == "projection"} == {
        "renamed": None,
        "sdk": "unknown",
    }
    assert told[-1] == {"kind": "topic", "topic": None, "cleanup_policy": None, "until": "unknown"}
    assert b"cohort-sync project --forget sdk" in erased.stderr
    assert b"projection sdk was not reached" in printed
    assert b"until when it does is not known" in printed
    assert b"sdk" not in again.stdout
    assert (await bench.run("project", "--forget", "sdk")).returncode == 1


@pytest.mark.usefixtures("target")
async def test_an_erasure_that_is_interrupted_has_told_what_it_found(bench: Bench, tmp_path: Path) -> None:
    await bench.publish(bench.webhook_topic, webhook("beta", ALAN))
    await bench.catch_up()
    with Valkey(tmp_path / "own").start() as own:
        bench.settings["projections"][0]["url"] = own.url
        assert (await bench.run("project", "--until-caught-up")).returncode == 0
        own.suspend()
        log = tmp_path / "erase.log"
        erasing = CommandProcess("erase", ALAN, "--json", config=bench.config, log=log)

        async def is_told() -> bool:
            told = log.read_text()
            return '"kind":"membership"' in told and "waiting until projection sdk has applied it" in told

        await eventually(is_told)
        erasing.kill()
        own.resume()

    told = [json.loads(line) for line in log.read_text().splitlines() if '"kind"' in line]
    assert [each["kind"] for each in told] == ["erasure", "membership"]
    assert (told[1]["segment"], told[1]["included"]) == ("amplitude-beta", True)


async def test_dead_letters_are_not_shown_and_not_replayed_for_the_person(bench: Bench) -> None:
    unknown = {**webhook("beta", ALAN, GRACE), "computed_time": "never"}
    await bench.publish(bench.webhook_topic, {**unknown, "cohort_id": None}, partition=0, key=b"production/x")
    await bench.publish(bench.webhook_topic, b'{"users": [' + ALAN.encode(), partition=1)
    await bench.publish(bench.segment_topic, {"type": "identify", "userId": ALAN, "traits": {"a": True}}, partition=0)
    await bench.catch_up()
    letters = await bench.rows("dead-letters", "list", "--each")
    assert letters

    await bench.rows("erase", ALAN)

    for letter in letters:
        for row in await bench.rows("dead-letters", "show", letter["position"]):
            assert ALAN not in json.dumps(row)
    (shown,) = await bench.rows("dead-letters", "show", f"{bench.webhook_topic}:0:0")
    assert GRACE in shown["value"]
    (withheld,) = await bench.rows("dead-letters", "show", f"{bench.webhook_topic}:1:0")
    assert withheld["withheld"] is True
    (replayed,) = await bench.rows("dead-letters", "replay")
    assert replayed["replayed"] == 1
    assert replayed["erased"] == len({letter["position"] for letter in letters}) - 1
    for partition in range(4):
        for record in (await bench.read_topic(bench.webhook_topic, partition))[1:]:
            assert ALAN.encode() not in record.value


async def test_the_record_that_decided_for_others_is_shown_without_the_person(bench: Bench) -> None:
    await bench.publish(bench.webhook_topic, webhook("beta", ALAN, GRACE))
    await bench.catch_up()
    await bench.rows("erase", ALAN)

    (explained,) = await bench.rows("explain", "amplitude-beta", GRACE, "--record")

    assert GRACE in explained["record"]["value"]
    assert ALAN not in json.dumps(explained)


async def test_a_dry_run_and_a_blank_key_erase_nobody(bench: Bench) -> None:
    await bench.publish(bench.webhook_topic, webhook("beta", ALAN))
    await bench.catch_up()

    (row,) = await bench.rows("erase", ALAN, "--dry-run")
    blank = await bench.run("erase", "-", stdin=b"\n")

    assert (row["segment"], row["included"]) == ("amplitude-beta", True)
    assert blank.returncode == 2
    assert await bench.members("amplitude-beta") == {ALAN: True}
