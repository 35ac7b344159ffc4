"""The command line on real servers: what it shows, what it sends, and what a program can rely on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.worker_process import Bench, webhook


async def test_segments_are_shown_with_every_field_that_programs_rely_on(bench: Bench) -> None:
    await bench.publish(bench.webhook_topic, webhook("7khm89cz", "u1", "u2"))
    await bench.catch_up()

    (row,) = await bench.rows("segments")

    assert {name: row[name] for name in row if name not in ("created_at", "last_change_at")} == {
        "environment": "production",
        "segment": "amplitude-7khm89cz",
        "context_kind": "user",
        "integration": "amplitude",
        "cohort_id": "7khm89cz",
        "cohort_name": "Cohort 7khm89cz",
        "name": "Cohort 7khm89cz",
        "description": "",
        "tags": [],
        "generation": 1,
        "included_count": 2,
    }
    assert row["last_change_at"].endswith("Z")
    assert await bench.rows("segments", "--environment", "staging") == []


async def test_members_and_explain_name_the_record_that_decided(bench: Bench) -> None:
    await bench.publish(bench.webhook_topic, webhook("c1", "u1", "u2"), partition=2)
    (offset,) = await bench.publish(
        bench.webhook_topic, webhook("c1", "u2", in_cohort=False, at=1_692_206_764), partition=2
    )
    await bench.catch_up()

    decided = {"topic": bench.webhook_topic, "partition": 2}
    members = {row["context_key"]: row for row in await bench.rows("members", "amplitude-c1", "--all")}
    assert [row["context_key"] for row in await bench.rows("members", "amplitude-c1")] == ["u1"]
    assert members["u2"] == {
        "environment": "production",
        "segment": "amplitude-c1",
        "context_kind": "user",
        "context_key": "u2",
        "included": False,
        "event_time": "2023-08-16T17:26:04.000000Z",
        "offset": offset,
        **decided,
    }
    (explained,) = await bench.rows("explain", "amplitude-c1", "u2", "--record")
    assert explained["included"] is False
    assert {name: explained[name] for name in decided} == decided
    assert "exit" in json.dumps(explained) or "in_cohort" in json.dumps(explained)


async def test_a_segment_that_does_not_exist_is_answered_with_the_nearest_one(bench: Bench) -> None:
    await bench.publish(bench.webhook_topic, webhook("7khm89cz", "u1"))
    await bench.catch_up()

    done = await bench.run("members", "amplitude-7khm89c")

    assert done.returncode == 1
    assert "amplitude-7khm89cz" in done.stderr.decode()


async def test_a_replayed_dead_letter_keeps_its_first_version(bench: Bench) -> None:
    late: dict[str, Any] = {"batch": [{"userId": "u1", "cohortId": "c1", "cohortName": "C", "value": True}]}
    await bench.publish(bench.amplitude_topic, late | {"environmentId": "staging"}, partition=0, timestamp_ms=1_000_000)
    newer = [{"userId": "u1", "cohortId": "c1", "cohortName": "C", "value": False}]
    await bench.publish(bench.amplitude_topic, {"batch": newer}, partition=0, timestamp_ms=2_000_000)
    await bench.catch_up()
    assert await bench.members("amplitude-c1") == {"u1": False}

    bench.settings["environments"][0]["client_side_id"] = "staging"  # the cause is mended
    dry = await bench.run("dead-letters", "replay", "--dry-run")
    assert dry.returncode == 0
    sent = await bench.run("dead-letters", "replay", "--reason", "environment_unknown")
    assert sent.returncode == 0, sent.stderr
    await bench.catch_up()

    assert await bench.members("amplitude-c1") == {"u1": False}, "the older record must not win when it comes late"
    records = [record for number in range(2) for record in await bench.read_topic(bench.amplitude_topic, number)]
    (headers,) = ({name: value.decode() for name, value in record.headers} for record in records if record.headers)
    assert headers["cohort-sync-original-offset"] == "0"
    assert headers["cohort-sync-original-timestamp"] == "1000000"
    assert not any(name.startswith("dead-letter-") for name in headers)


async def test_a_forged_origin_is_rejected_and_gives_out_no_topic_id(bench: Bench) -> None:
    forged = [
        ("cohort-sync-original-topic", b"elsewhere"),
        ("cohort-sync-original-partition", b"0"),
        ("cohort-sync-original-offset", b"7"),
        ("cohort-sync-original-timestamp", b"1000000"),
    ]
    await bench.publish(bench.webhook_topic, webhook("c1", "u1"), partition=0, headers=forged)
    await bench.catch_up()

    (letter,) = await bench.dead_letters()
    assert (letter["reason"], letter["topic"], letter["offset"]) == ("origin_invalid", bench.webhook_topic, "0")
    assert await bench.sql.fetchval("SELECT count(*) FROM topic WHERE name = 'elsewhere'") == 0


async def test_dead_letters_are_counted_listed_and_shown(bench: Bench) -> None:
    await bench.publish(bench.webhook_topic, b"{", webhook("c1", "u1", None, "  "), partition=1)
    await bench.catch_up()

    listed = await bench.rows("dead-letters", "list")
    each = await bench.rows("dead-letters", "list", "--each")
    shown = await bench.run("dead-letters", "show", f"{bench.webhook_topic}:1:1")

    assert {row["reason"]: row["count"] for row in listed} == {
        "json_invalid": 1,
        "context_key_missing": 1,
        "context_key_blank": 1,
    }
    assert len(each) == 3
    assert shown.returncode == 0
    assert "/users/1/user_id" in shown.stdout.decode()


async def test_a_value_too_large_for_the_dead_letter_topic_is_cut_and_says_so(bench: Bench) -> None:
    await bench.publish(bench.webhook_topic, b'{"' + b"x" * 9_000_000)
    await bench.limit_topic(bench.dead_letter_topic, "max.message.bytes", "100000")

    await bench.catch_up()

    (letter,) = await bench.dead_letters()
    assert letter["reason"] == "record_too_large"
    assert json.loads(letter["truncated"])["bytes"] == 9_000_002
    assert len(letter["value"]) < 100_000


async def test_a_key_too_large_for_the_dead_letter_topic_holds_nobody(bench: Bench) -> None:
    await bench.limit_topic(bench.dead_letter_topic, "max.message.bytes", "100000")
    await bench.publish(bench.webhook_topic, b"{", partition=0, key=b"k" * 200_000)
    await bench.publish(bench.webhook_topic, webhook("c1", "u1"), partition=0)

    await bench.catch_up()

    assert await bench.members("amplitude-c1") == {"u1": True}
    (letter,) = await bench.dead_letters()
    assert (letter["reason"], letter["key"], letter["value"]) == ("json_invalid", None, b"{")
    assert json.loads(letter["truncated"])["key_bytes"] == 200_000


async def test_what_is_published_is_stored_and_told_by_status(bench: Bench, tmp_path: Path) -> None:
    lines = tmp_path / "records.jsonl"
    lines.write_text("".join(json.dumps(webhook("c1", f"u{number}")) + "\n" for number in range(50)))
    published = await bench.run("publish", "--feed", "webhook", str(lines))
    assert published.returncode == 0, published.stderr
    behind = [row for row in await bench.rows("status") if row["kind"] == "feed" and row["feed"] == "webhook"]
    assert behind[0]["lag_records"] == 50

    await bench.catch_up()

    now = [row for row in await bench.rows("status") if row["kind"] == "feed"]
    assert {row["lag_records"] for row in now} == {0}
    assert await bench.included() == 50


async def test_publish_tells_how_many_empty_lines_it_skipped(bench: Bench, tmp_path: Path) -> None:
    lines = tmp_path / "records.jsonl"
    lines.write_text(json.dumps(webhook("c1", "u1")) + "\n\n\r\n")

    assert await bench.rows("publish", "--feed", "webhook", str(lines)) == [
        {"topic": bench.webhook_topic, "acknowledged": 1, "skipped": 2}
    ]


async def test_config_check_names_what_is_missing(bench: Bench) -> None:
    assert (await bench.run("config", "check")).returncode == 0
    bench.settings["kafka"]["dead_letter_topic"] = "nowhere"

    done = await bench.run("config", "check")

    assert done.returncode == 1
    assert "nowhere" in (done.stdout + done.stderr).decode()


async def test_a_worker_without_its_schema_stops_and_says_what_to_do(bench: Bench) -> None:
    await bench.sql.execute("DELETE FROM schema_migration")
    worker = bench.start_worker()

    assert await worker.wait() == 1
    assert "cohort-sync migrate" in worker.log_file.read_text()


async def test_a_taken_port_stops_the_start_and_names_the_setting(bench: Bench) -> None:
    first = bench.start_worker()
    started = await first.logged("http_server_started")
    bench.settings["http"] = {"port": started["port"]}

    second = bench.start_worker()

    assert await second.wait() == 1
    assert "http.port" in second.log_file.read_text()
