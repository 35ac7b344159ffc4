"""The main job on real servers: what is published becomes memberships, what is bad becomes dead letters."""

from __future__ import annotations

import json
from typing import Any

from consumers.errors import Reason
from tests.worker_process import Bench, eventually, webhook

MANY = 10_000


def an_identify(user_id: str, *, included: bool = True) -> dict[str, Any]:
    return {
        "type": "identify",
        "userId": user_id,
        "traits": {"first_time_shopper": included},
        "timestamp": "2026-11-20T08:00:00.000Z",
        "context": {
            "personas": {
                "computation_class": "audience",
                "computation_id": "aud_1",
                "computation_key": "first_time_shopper",
            }
        },
    }


async def test_every_format_becomes_memberships(bench: Bench) -> None:
    await bench.publish(bench.webhook_topic, webhook("7khm89cz", "u1", "u2"))
    await bench.publish(bench.webhook_topic, webhook("7khm89cz", "u2", in_cohort=False, at=1_692_206_764))
    await bench.publish(bench.segment_topic, an_identify("u3"), an_identify("u4", included=False))
    await bench.publish(
        bench.amplitude_topic,
        {
            "environmentId": "61a0c0ffee0123456789abcd",
            "batch": [
                {"userId": "u5", "cohortId": "c9", "cohortName": "Nine", "value": True},
                {"userId": "u6", "cohortId": "c9", "cohortName": "Nine", "value": False},
            ],
        },
    )

    await bench.catch_up()

    assert await bench.members("amplitude-7khm89cz") == {"u1": True, "u2": False}
    assert await bench.members("segment-audiences-aud_1") == {"u3": True, "u4": False}
    assert await bench.members("amplitude-c9") == {"u5": True, "u6": False}
    assert await bench.dead_letters() == []


async def test_a_segment_is_created_on_first_sight_and_an_edited_name_is_never_overwritten(bench: Bench) -> None:
    await bench.publish(bench.webhook_topic, webhook("c1", "u1"))
    await bench.catch_up()
    await bench.sql.execute("UPDATE segment SET name = 'Ours', name_edited_at = now(), description = 'kept'")

    await bench.publish(bench.webhook_topic, webhook("c1", "u2", at=1_692_206_764) | {"cohort_name": "Theirs"})
    await bench.catch_up()

    segment = await bench.sql.fetchrow("SELECT name, description, cohort_name, included_count FROM segment")
    assert tuple(segment) == ("Ours", "kept", "Theirs", 2)


async def test_a_renamed_cohort_renames_a_segment_that_nobody_edited(bench: Bench) -> None:
    await bench.publish(bench.webhook_topic, webhook("c1", "u1"))
    await bench.publish(bench.webhook_topic, webhook("c1", "u2", at=1_692_206_764) | {"cohort_name": "New"})
    await bench.catch_up()

    assert await bench.sql.fetchval("SELECT name FROM segment") == "New"


BAD_RECORDS: dict[Reason, tuple[bytes | None, ...]] = {
    Reason.JSON_INVALID: (
        b"{",
        b'{"cohort_id":"c1","in_cohort":NaN,"users":[]}',
        b'{"cohort_id":"c1","in_cohort":true,"users":[{"user_id":"\\ud800"}]}',
        b"\xff\xfe",
    ),
    Reason.VALUE_EMPTY: (b"", None),
    Reason.JSON_TOO_DEEP: (b'{"cohort_id":' + b"[" * 2_000 + b"]" * 2_000 + b"}",),
    Reason.RECORD_TOO_LARGE: (b'{"cohort_id":"' + b"x" * 10_000_000 + b'"}',),
    Reason.PAYLOAD_INVALID: (b"42",),
}


async def test_a_bad_record_is_a_dead_letter_with_its_reason_and_its_neighbours_are_stored(bench: Bench) -> None:
    expected: dict[str, int] = {}
    for reason, values in BAD_RECORDS.items():
        for value in values:
            await bench.publish(bench.webhook_topic, webhook("c1", f"u{sum(expected.values())}"), partition=0)
            await bench.publish(bench.webhook_topic, value, partition=0)
            expected[reason] = expected.get(reason, 0) + 1
    await bench.publish(bench.webhook_topic, webhook("c1", "last"), partition=0)

    await bench.catch_up()

    found: dict[str, int] = {}
    for letter in await bench.dead_letters():
        found[letter["reason"]] = found.get(letter["reason"], 0) + 1
    assert found == expected
    assert await bench.included() == sum(expected.values()) + 1


async def test_a_bad_member_never_costs_its_neighbours(bench: Bench) -> None:
    bad: list[object] = [None, "", "  ", 4.2, True, {"a": 1}, ["u"], "a\0b", "x" * 513]
    users: list[object] = [f"u{number}" for number in range(MANY)]
    for place, value in enumerate(bad):
        users[place * 100] = value
    await bench.publish(bench.webhook_topic, webhook("c1", *users))

    await bench.catch_up()

    assert await bench.included() == MANY - len(bad)
    rejected = [place for letter in await bench.dead_letters() for place in json.loads(letter["member"])]
    assert sorted(rejected) == [place * 100 for place in range(len(bad))]


async def test_ids_of_thirty_digits_and_cohort_ids_that_are_no_segment_key_are_kept(bench: Bench) -> None:
    digits = 123_456_789_012_345_678_901_234_567_890
    await bench.publish(bench.webhook_topic, webhook("über cohort/1", digits))

    await bench.catch_up()

    key, cohort_id = await bench.sql.fetchrow("SELECT key, cohort_id FROM segment")
    assert cohort_id == "über cohort/1"
    assert await bench.members(key) == {str(digits): True}
    assert await bench.dead_letters() == []


async def test_a_context_kind_that_is_not_the_segments_is_a_dead_letter(bench: Bench) -> None:
    bench.settings["feeds"].append(
        {
            **bench.settings["feeds"][0],
            "name": "devices",
            "topics": [bench.webhook_topic + "-devices"],
            "context_kind": "device",
        }
    )
    await bench.create_topics({bench.webhook_topic + "-devices": 1})
    await bench.publish(bench.webhook_topic, webhook("c1", "u1"))
    await bench.catch_up()

    await bench.publish(bench.webhook_topic + "-devices", webhook("c1", "d1", "d2"))
    await bench.catch_up()

    assert await bench.members("amplitude-c1") == {"u1": True}
    letters = await bench.dead_letters()
    assert [(letter["reason"], letter["member"]) for letter in letters] == [("context_kind_mismatch", "[0, 1]")]
    noted = await bench.sql.fetch("SELECT reason, member FROM rejected_member ORDER BY place")
    assert [(each["reason"], json.loads(each["member"])) for each in noted] == [
        ("context_kind_mismatch", "d1"),
        ("context_kind_mismatch", "d2"),
    ]


async def test_a_delta_that_the_server_refuses_is_found_and_its_neighbours_are_stored(bench: Bench) -> None:
    await bench.sql.execute("ALTER TABLE membership ADD CHECK (context_key <> 'refused')")
    users = [f"u{number}" for number in range(2_000)]
    users[777] = "refused"
    await bench.publish(bench.webhook_topic, webhook("c1", *users))

    await bench.catch_up()

    assert await bench.included() == 1_999
    letters = await bench.dead_letters()
    assert [(letter["reason"], letter["member"]) for letter in letters] == [("store_rejected", "[777]")]
    assert "refused" not in letters[0]["detail"]


async def test_a_segment_that_the_server_refuses_costs_no_other(bench: Bench) -> None:
    await bench.sql.execute("ALTER TABLE segment ADD CHECK (cohort_id <> 'refused')")
    await bench.publish(bench.webhook_topic, webhook("refused", "u1", "u2"), webhook("c1", "u3"), partition=0)

    await bench.catch_up()

    assert await bench.members("amplitude-c1") == {"u3": True}
    letters = await bench.dead_letters()
    assert [(letter["reason"], letter["member"]) for letter in letters] == [("store_rejected", "[0, 1]")]


async def test_an_unknown_environment_is_rejected_or_skipped_as_configured(bench: Bench) -> None:
    record = {
        "environmentId": "elsewhere",
        "batch": [{"userId": "u", "cohortId": "c", "cohortName": "C", "value": True}],
    }
    await bench.publish(bench.amplitude_topic, record)
    await bench.catch_up()
    assert [letter["reason"] for letter in await bench.dead_letters()] == ["environment_unknown"]

    bench.settings["unknown_environment"] = "skip"
    await bench.publish(bench.amplitude_topic, record)
    await bench.catch_up()
    assert len(await bench.dead_letters()) == 1


async def test_a_source_clock_far_ahead_does_not_freeze_a_membership(bench: Bench) -> None:
    far_ahead = 4_102_444_800  # the year 2100
    await bench.publish(bench.webhook_topic, webhook("c1", "u1", at=far_ahead), partition=0)
    await bench.publish(bench.webhook_topic, webhook("c1", "u1", in_cohort=False, at=far_ahead + 1), partition=0)

    await bench.catch_up()

    assert await bench.members("amplitude-c1") == {"u1": False}
    assert await bench.sql.fetchval("SELECT max(event_time) FROM membership") < far_ahead * 1_000_000


async def test_nothing_personal_is_logged_labelled_or_told(bench: Bench) -> None:
    secret = "someone@example.com"
    await bench.sql.execute(f"ALTER TABLE membership ADD CHECK (context_key <> '{secret}')")
    worker = bench.start_worker()
    await bench.publish(bench.webhook_topic, webhook("c1", secret, "u1", {"email": secret}), b'{"' + secret.encode())

    async def two_letters() -> bool:
        return len(await bench.dead_letters()) == 3

    await eventually(two_letters)
    metrics = (await worker.get("/metrics")).text
    health = (await worker.get("/readyz")).text
    await worker.stop()

    assert secret not in worker.log_file.read_text() + metrics + health
    assert secret not in str([letter["detail"] for letter in await bench.dead_letters()])


async def test_metrics_say_what_happened(bench: Bench) -> None:
    worker = bench.start_worker()
    await bench.publish(
        bench.webhook_topic, webhook("c1", "u1", "u2", None), webhook("c1", "u1", in_cohort=False), b"{"
    )

    async def counted() -> str | None:
        text = (await worker.get("/metrics")).text
        return text if 'cohort_sync_records_total{feed="webhook"} 3.0' in text else None

    text = await eventually(counted)
    for line in (
        'cohort_sync_deltas_total{change="add",integration="amplitude"} 2.0',
        'cohort_sync_deltas_total{change="remove",integration="amplitude"} 1.0',
        f'cohort_sync_dead_letters_total{{reason="json_invalid",topic="{bench.webhook_topic}"}} 1.0',
        f'cohort_sync_dead_letters_total{{reason="context_key_missing",topic="{bench.webhook_topic}"}} 1.0',
        'cohort_sync_event_to_store_seconds_count{feed="webhook"} 3.0',
    ):
        assert line in text
    assert (await worker.get("/readyz")).status_code == 200
    assert (await worker.get("/healthz")).status_code == 200
