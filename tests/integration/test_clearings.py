"""Drains and replace sessions from Kafka to what the commands show, also across partitions and restarts."""

from __future__ import annotations

from typing import Any

import pytest

from tests.worker_process import Bench, eventually

ADD, ALL = "add_members", "members"


class Tools:
    """Publishes what the tools send to a topic whose records say their format themselves."""

    def __init__(self, bench: Bench, topic: str) -> None:
        self._bench = bench
        self._topic = topic

    async def mixpanel(self, action: str, *keys: object, session: str = "s1", partition: int = 0, **page: int) -> None:
        parameters: dict[str, Any] = {
            "mixpanel_project_id": "3131",
            "mixpanel_cohort_id": "9",
            "mixpanel_cohort_name": "Nine",
            "mixpanel_session_id": session,
            "members": [{"mixpanel_distinct_id": key} for key in keys],
        }
        if page:
            parameters["page_info"] = {"total_pages": page["of"], "page_count": page["number"]}
        await self.publish("mixpanel", {"action": action, "parameters": parameters}, partition)

    async def heap(self, action: str, partition: int = 0, **lists: object) -> None:
        data = {"segment": {"id": 1338065, "name": "Free Customers"}, **lists}
        await self.publish("heap-inbound", {"action_type": action, "data": data}, partition)

    async def publish(self, integration: str, payload: object, partition: int = 0) -> None:
        header = ("integration", integration.encode())
        await self._bench.publish(self._topic, payload, partition=partition, headers=[header])


@pytest.fixture
async def tools(bench: Bench) -> Tools:
    topic = f"any-{bench.group_id}"
    await bench.create_topics({topic: 4})
    bench.settings["feeds"].append({"name": "any", "topics": [topic], "format": "header", "environment": "production"})
    return Tools(bench, topic)


async def included(bench: Bench, segment: str) -> set[str]:
    return {row["context_key"] for row in await bench.rows("members", segment)}


async def test_one_topic_carries_records_of_many_integrations(bench: Bench, tools: Tools) -> None:
    await tools.mixpanel(ADD, "u1", 2)
    await tools.heap("segment.users.sync", add=[{"id": "u3"}])
    await tools.publish("Segment", {"type": "page", "userId": "u4"})
    await tools.publish("no-such-tool", {})

    await bench.catch_up()

    assert await included(bench, "mixpanel-9") == {"u1", "2"}
    assert await included(bench, "heap-inbound-1338065") == {"u3"}
    assert [letter["reason"] for letter in await bench.dead_letters()] == ["integration_unknown"]


async def test_a_drain_empties_its_segment_and_explain_names_its_record(bench: Bench, tools: Tools) -> None:
    await tools.heap("segment.users.sync", add=[{"id": "u1"}, {"id": "u2"}])
    await tools.heap("segment.users.drain")
    await tools.heap("segment.users.sync", add=[{"id": "u2"}])

    await bench.catch_up()

    assert await included(bench, "heap-inbound-1338065") == {"u2"}
    (segment,) = await bench.rows("segments")
    assert segment["included_count"] == 1
    (explained,) = await bench.rows("explain", "heap-inbound-1338065", "u1")
    assert (explained["included"], explained["partition"], explained["offset"]) == (False, 0, 1)
    assert await bench.members("heap-inbound-1338065") == {"u1": False, "u2": True}  # swept


async def test_a_session_replaces_once_its_last_page_is_stored_by_whichever_worker(bench: Bench, tools: Tools) -> None:
    await tools.mixpanel(ADD, "leaver", "u1")
    await bench.catch_up()
    await tools.mixpanel(ALL, "u3", partition=3, number=3, of=3)
    await tools.mixpanel(ALL, "u1", partition=1, number=1, of=3)
    await bench.catch_up()

    assert await included(bench, "mixpanel-9") == {"leaver", "u1", "u3"}
    (segment,) = await bench.rows("segments")
    assert (segment["replacing"]["stored_pages"], segment["replacing"]["pages"]) == (2, 3)
    shown = (await bench.run("segments")).stdout.decode()
    assert "2 of 3 pages of replace session 's1' are stored" in shown
    (told,) = [row for row in await bench.rows("status") if row["kind"] == "replace_session"]
    assert (told["segment"], told["session"], told["stored_pages"]) == ("mixpanel-9", "s1", 2)

    await tools.mixpanel(ALL, "u2", partition=2, number=2, of=3)
    await bench.catch_up()

    assert await included(bench, "mixpanel-9") == {"u1", "u2", "u3"}
    (segment,) = await bench.rows("segments")
    assert segment["included_count"] == 3
    assert "replacing" not in segment


async def test_a_page_with_a_bad_member_removes_nobody_and_says_so(bench: Bench, tools: Tools) -> None:
    await tools.mixpanel(ADD, "stays")
    await tools.mixpanel(ALL, "u1", 4.2, number=1, of=1)

    await bench.catch_up()

    assert await included(bench, "mixpanel-9") == {"stays", "u1"}
    letters = await bench.dead_letters()
    assert [(letter["reason"], letter.get("member")) for letter in letters] == [
        ("context_key_invalid", "[1]"),
        ("replace_incomplete", None),
    ]


async def test_a_page_of_which_the_server_refuses_a_member_removes_nobody(bench: Bench, tools: Tools) -> None:
    await bench.sql.execute(
        """
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$;
        CREATE TRIGGER refuse BEFORE INSERT ON membership FOR EACH ROW WHEN (NEW.context_key = 'refused')
        EXECUTE FUNCTION refuse();
        """
    )
    await tools.mixpanel(ADD, "stays")
    await tools.mixpanel(ALL, "u1", "refused", number=1, of=1)

    await bench.catch_up()

    assert await included(bench, "mixpanel-9") == {"stays", "u1"}
    assert [letter["reason"] for letter in await bench.dead_letters()] == ["store_rejected"]


async def test_a_drain_of_another_context_kind_is_a_dead_letter(bench: Bench, tools: Tools) -> None:
    await tools.heap("segment.users.sync", add=[{"id": "u1"}])
    await bench.catch_up()
    bench.settings["feeds"][-1]["context_kind"] = "account"
    await tools.heap("segment.users.drain")
    await bench.catch_up()

    assert await included(bench, "heap-inbound-1338065") == {"u1"}
    assert [letter["reason"] for letter in await bench.dead_letters()] == ["context_kind_mismatch"]


async def test_a_running_worker_sweeps_and_counts_operations(bench: Bench, tools: Tools) -> None:
    keys = [f"u{number}" for number in range(25_000)]
    await tools.heap("segment.users.sync", add=[{"id": key} for key in keys])
    await tools.mixpanel(ALL, "u1", number=1, of=2)
    await tools.heap("segment.users.drain")
    worker = bench.start_worker()

    async def swept() -> bool:
        count: int = await bench.sql.fetchval("SELECT count(*) FROM membership WHERE NOT included")
        return count == len(keys)

    await eventually(swept)

    async def reported() -> bool:
        return "cohort_sync_open_replace_sessions 1.0" in (await worker.get("/metrics")).text

    await eventually(reported)
    text = (await worker.get("/metrics")).text
    assert 'cohort_sync_operations_total{integration="heap-inbound",operation="drain"} 1.0' in text
    assert 'cohort_sync_operations_total{integration="mixpanel",operation="replace"} 1.0' in text
    assert await worker.stop() == 0
    counts = {row["segment"]: row["included_count"] for row in await bench.rows("segments")}
    assert counts == {"heap-inbound-1338065": 0, "mixpanel-9": 1}
