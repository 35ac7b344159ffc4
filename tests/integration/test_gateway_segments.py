"""Segments over REST, in LaunchDarkly's shapes."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

from tests.gateway import GatewayUnderTest, a_batch
from tests.worker_process import eventually

ROOT = "/api/v2/segments/web/production"
SEMANTIC = "application/json; domain-model=launchdarkly.semanticpatch"


async def started(gateway: GatewayUnderTest) -> str:
    """A gateway with three segments, and the token of a writer."""
    await gateway.start()
    token = await gateway.token()
    for cohort_id in ("c1", "c2", "c3"):
        assert (await gateway.sync(a_batch("u1", cohort_id, cohort_id=cohort_id), token)).status_code == 204
    await gateway.bench.catch_up()
    return token


async def got(gateway: GatewayUnderTest, path: str, token: str, **parameters: str) -> Any:
    answered = await gateway.client.get(ROOT + path, params=parameters, headers={"authorization": token})
    assert answered.status_code == 200, answered.text
    return answered.json()


async def patched(gateway: GatewayUnderTest, patch: object, token: str, kind: str = "application/json") -> Any:
    headers = {"authorization": token, "content-type": kind}
    return await gateway.client.patch(f"{ROOT}/amplitude-c1", json=patch, headers=headers)


async def test_segments_are_listed_found_and_filtered(gateway: GatewayUnderTest) -> None:
    token = await started(gateway)

    everything = await got(gateway, "", token, sort="name")
    assert [each["key"] for each in everything["items"]] == ["amplitude-c1", "amplitude-c2", "amplitude-c3"]
    assert everything["totalCount"] == 3
    page = await got(gateway, "", token, sort="-name", limit="1", offset="1")
    assert [each["key"] for each in page["items"]] == ["amplitude-c2"]
    assert set(page["_links"]) == {"self", "first", "prev", "next"}
    assert (await got(gateway, "", token, offset="9"))["totalCount"] == 3
    odd = {"authorization": token, "host": "[::1"}
    assert (await gateway.client.get(ROOT, headers=odd)).status_code == 200
    for text, keys in (
        ('query equals "cohort C3"', ["amplitude-c3"]),
        ('includedKeys anyOf ["c2", "nobody"]', ["amplitude-c2"]),
        ('tags anyOf ["none"]', []),
        ("unbounded equals false", []),
    ):
        found = await got(gateway, "", token, filter=text)
        assert [each["key"] for each in found["items"]] == keys
        assert found["totalCount"] == len(keys)


async def test_a_segment_has_launchdarklys_shape(gateway: GatewayUnderTest) -> None:
    token = await started(gateway)

    segment = await got(gateway, "/amplitude-c1", token)

    assert segment["name"] == "Cohort c1"
    assert segment["unbounded"] is True
    assert (segment["generation"], segment["version"], segment["_external"]) == (1, 1, "amplitude")
    assert segment["_unboundedMetadata"]["includedCount"] == 2
    assert segment["included"] == segment["rules"] == []
    assert segment["creationDate"] > 1_600_000_000_000
    assert segment["_links"]["self"]["href"] == f"{ROOT}/amplitude-c1"


async def test_it_is_told_who_is_in(gateway: GatewayUnderTest) -> None:
    token = await started(gateway)
    await gateway.sync(a_batch("u1", "a/b?c", cohort_id="c1", value=False), token)
    await gateway.sync(a_batch("a/b?c", cohort_id="c2"), token)
    await gateway.bench.catch_up()

    async def is_in(key: str, segment: str) -> bool:
        told = await got(gateway, f"/{segment}/contexts/{key}", token)
        assert told["excluded"] is False
        return bool(told["included"])

    assert [await is_in("u1", "amplitude-c1"), await is_in("u1", "amplitude-c2")] == [False, True]
    assert [await is_in("c1", "amplitude-c1"), await is_in("nobody", "amplitude-c1")] == [True, False]
    assert await is_in("a%2Fb%3Fc", "amplitude-c2")


async def test_what_a_person_edited_survives_every_later_sync(gateway: GatewayUnderTest) -> None:
    token = await started(gateway)
    both = [
        {"op": "replace", "path": "/name", "value": "Ours"},
        {"op": "replace", "path": "/description", "value": "kept"},
    ]

    dry = await gateway.client.patch(
        f"{ROOT}/amplitude-c1", params={"dryRun": "true"}, json=both, headers={"authorization": token}
    )
    assert (dry.status_code, dry.json()["name"]) == (200, "Ours")
    assert (await got(gateway, "/amplitude-c1", token))["name"] == "Cohort c1"
    assert (await patched(gateway, both, token)).json()["version"] == 2
    tags = {"instructions": [{"kind": "addTags", "values": ["eu"]}]}
    assert (await patched(gateway, tags, token, SEMANTIC)).json()["tags"] == ["eu"]
    renamed = a_batch("u9", cohort_id="c1")
    renamed["batch"][0]["cohortName"] = "Theirs"  # type: ignore[index]
    await gateway.sync(renamed, token)
    await gateway.bench.catch_up()

    segment = await got(gateway, "/amplitude-c1", token)
    assert (segment["name"], segment["description"], segment["tags"]) == ("Ours", "kept", ["eu"])
    assert segment["version"] == 3
    assert await gateway.bench.sql.fetchval("SELECT cohort_name FROM segment WHERE key = 'amplitude-c1'") == "Theirs"
    assert (await got(gateway, "", token, filter='tags anyOf ["eu"]'))["totalCount"] == 1


async def test_key_and_members_are_not_edited_here_and_a_version_that_passed_is_a_conflict(
    gateway: GatewayUnderTest,
) -> None:
    token = await started(gateway)

    assert (await patched(gateway, [{"op": "replace", "path": "/key", "value": "x"}], token)).status_code == 400
    assert (await patched(gateway, [{"op": "add", "path": "/included/-", "value": "x"}], token)).status_code == 400
    stale = [{"op": "test", "path": "/version", "value": 7}, {"op": "replace", "path": "/name", "value": "x"}]
    assert (await patched(gateway, stale, token)).status_code == 409
    assert (await got(gateway, "/amplitude-c1", token))["version"] == 1


async def test_looking_and_editing_need_their_own_actions(gateway: GatewayUnderTest) -> None:
    writer = await started(gateway)
    segments = {
        "effect": "allow",
        "resources": ["proj/*:env/*:segment/*"],
        "actions": ["createSegment", "updateIncluded"],
    }
    viewer = {"effect": "allow", "resources": ["proj/web"], "actions": ["viewProject"]}
    namer = {"effect": "allow", "resources": ["proj/*:env/*:segment/*;eu"], "actions": ["updateName"]}
    syncs, views, names = [await gateway.token(policy=[each]) for each in (segments, viewer, namer)]
    sends = await gateway.token("--feed", "engage")
    rename = [{"op": "replace", "path": "/name", "value": "Ours"}]

    async def status(path: str, token: str) -> int:
        return (await gateway.client.get(path, headers={"authorization": token})).status_code

    for path in (ROOT, f"{ROOT}/amplitude-c1", f"{ROOT}/amplitude-c1/contexts/u1"):
        assert [await status(path, each) for each in (writer, views)] == [200] * 2
        assert [await status(path, each) for each in (syncs, sends, "nobody")] == [403] * 3
    assert await status(f"{ROOT}/nothing", writer) == 404
    assert await status("/api/v2/segments/web/staging", writer) == 404
    assert await status("/api/v2/segments/other/production", writer) == 404
    assert [(await patched(gateway, rename, each)).status_code for each in (syncs, views, names, sends)] == [403] * 4
    tags = [{"op": "add", "path": "/tags/-", "value": "eu"}]
    assert (await patched(gateway, tags, writer)).status_code == 200
    assert (await patched(gateway, rename, names)).status_code == 200
    assert (await patched(gateway, tags, names)).status_code == 403


async def test_who_is_missing_is_told_as_json_and_as_csv_until_they_are_erased(gateway: GatewayUnderTest) -> None:
    token = await started(gateway)
    body = a_batch("u1", "alan@example.com", "u3", cohort_id="c1")
    body["batch"][0]["userId"] = None  # type: ignore[index]
    body["batch"][1]["value"] = "perhaps"  # type: ignore[index]
    for _ in range(2):
        assert (await gateway.sync(body, token)).headers["x-cohort-sync-rejected"] == "2"
    await gateway.bench.catch_up()

    report = await got(gateway, "/amplitude-c1/rejected", token)
    assert report["byReason"] == {"context_key_missing": 2, "value_invalid": 2}
    newest = report["items"][0]
    assert newest["reason"] == "context_key_missing"
    assert (newest["topic"], newest["place"]) == (gateway.topic, 0)
    assert json.loads(newest["member"])["cohortId"] == "c1"
    only = await got(gateway, "/amplitude-c1/rejected", token, reason="value_invalid")
    assert only["totalCount"] == 2
    assert (await got(gateway, "/amplitude-c2/rejected", token))["items"] == []
    answered = await gateway.client.get(
        f"{ROOT}/amplitude-c1/rejected", params={"format": "csv"}, headers={"authorization": token}
    )
    assert answered.headers["content-type"].startswith("text/csv")
    rows = list(csv.DictReader(io.StringIO(answered.text)))
    assert [each["reason"] for each in rows] == ["context_key_missing", "value_invalid"] * 2

    assert (await gateway.bench.run("erase", "alan@example.com")).returncode == 0
    assert (await got(gateway, "/amplitude-c1/rejected", token))["byReason"] == {"context_key_missing": 2}


async def test_who_is_missing_is_told_too_where_a_record_has_nobody_else_or_is_about_several_segments(
    gateway: GatewayUnderTest,
) -> None:
    token = await started(gateway)
    bench = gateway.bench
    body = a_batch("", "u2", cohort_id="c1")
    body["batch"][1] |= {"cohortId": "c2", "value": "perhaps"}  # type: ignore[index]
    await bench.publish(gateway.topic, body | {"environmentId": "production"}, headers=[("integration", b"amplitude")])
    await bench.catch_up()

    assert (await got(gateway, "/amplitude-c1/rejected", token))["byReason"] == {"context_key_blank": 1}
    assert (await got(gateway, "/amplitude-c2/rejected", token))["byReason"] == {"value_invalid": 1}


async def test_a_rejected_member_is_forgotten_after_a_month(gateway: GatewayUnderTest) -> None:
    token = await started(gateway)
    bench = gateway.bench
    for cohort in ("c1", "c2"):
        body = a_batch("u1", "u2", cohort_id=cohort)
        body["batch"][0]["userId"] = None  # type: ignore[index]
        await gateway.sync(body, token)
    await bench.catch_up()
    await bench.sql.execute(
        "UPDATE rejected_member SET rejected_at = now() - interval '31 days' FROM segment "
        "WHERE segment.id = segment_id AND segment.key = 'amplitude-c1'"
    )
    worker = bench.start_worker()

    async def is_gone() -> bool:
        return [
            row[0]
            for row in await bench.sql.fetch("SELECT key FROM rejected_member JOIN segment ON segment.id = segment_id")
        ] == ["amplitude-c2"]

    await eventually(is_gone)
    await worker.stop()


async def test_the_index_of_rejects_is_bounded(gateway: GatewayUnderTest) -> None:
    token = await started(gateway)
    bad = [{"userId": None, "cohortId": "c1", "value": True}] * 150
    for _ in range(8):
        body = a_batch("u1", cohort_id="c1")
        body["batch"] += bad  # type: ignore[operator]
        await gateway.sync(body, token)
    gateway.bench.settings["dead_letters"] = {"max_ratio": 1}
    await gateway.bench.catch_up()

    assert (await got(gateway, "/amplitude-c1/rejected", token))["totalCount"] == 1_000
