"""Each tool's own way into the gateway, with the answers that it wants to read."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from pathlib import Path
from typing import Any

import pytest
from segment.analytics.client import Client

from tests.gateway import CLIENT_SIDE_ID, GatewayUnderTest, a_batch
from tests.node_clients import run_client
from worker.gateway.heap_signature import signature

GOLDEN = Path(__file__).parents[1] / "golden"
MANIFEST = (Path(__file__).parents[2] / "consumers" / "integrations" / "amplitude.json").read_text()
SECRET = "shared with heap"


def basic(user: str, password: str = "") -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def engage(**more: Any) -> dict[str, Any]:
    personas = {"computation_class": "audience", "computation_id": "aud_1", "computation_key": "beta"}
    return {"context": {"personas": personas}, "traits": {"beta": True}, **more}


class TestSegment:
    """The tracking API."""

    async def test_the_official_python_library_works_when_given_this_host(self, gateway: GatewayUnderTest) -> None:
        await gateway.start()
        key = await gateway.token("--feed", "engage")
        failed: list[object] = []

        def send() -> None:
            client = Client(key, host=gateway.url, on_error=lambda *problem: failed.append(problem), max_retries=0)
            for number in range(250):
                context = engage()["context"]
                client.identify(f"u{number}", {"beta": number % 2 == 0}, context=context)
                client.track(f"u{number}", "Order Completed", {"total": 12.5})
            client.page("u1", "Docs", "Start")
            client.flush()
            client.join()

        await asyncio.to_thread(send)

        assert failed == []
        topic = gateway.bench.segment_topic
        published = b"".join(record.value for record in await gateway.records(topic, 2))
        assert key.encode() not in published
        await gateway.bench.catch_up()
        members = await gateway.bench.members("segment-audiences-aud_1")
        assert members == {f"u{number}": number % 2 == 0 for number in range(250)}

    async def test_the_official_node_library_works_when_given_this_host(self, gateway: GatewayUnderTest) -> None:
        await gateway.start()
        key = await gateway.token("--feed", "engage")
        settings = {"SEGMENT_HOST": gateway.url, "SEGMENT_WRITE_KEY": key, "SEGMENT_USERS": "120"}

        ended = await asyncio.to_thread(run_client, "segment_node", "send.js", settings)

        assert (ended.returncode, ended.stderr) == (0, "")
        published = b"".join(record.value for record in await gateway.records(gateway.bench.segment_topic, 2))
        assert key.encode() not in published
        await gateway.bench.catch_up()
        members = await gateway.bench.members("segment-audiences-aud_1")
        # The last call is a track call, by which the first user leaves.
        assert members == {f"u{number}": number % 2 == 0 and number > 0 for number in range(120)}
        assert await gateway.bench.dead_letters() == []

    async def test_single_calls_may_leave_their_type_to_the_path(self, gateway: GatewayUnderTest) -> None:
        await gateway.start()
        key = basic(await gateway.token("--feed", "engage"))
        track = {**engage(userId="u2"), "event": "Audience Entered", "properties": {"beta": False}}
        del track["traits"]

        answers = [
            await gateway.post("/v1/identify", engage(userId="u1"), key),
            await gateway.post("/v1/track", track, key),
            *[
                await gateway.post(f"/v1/{kind}", {"userId": "u3"}, key)
                for kind in ("page", "screen", "group", "alias")
            ],
            await gateway.post("/v1/track", {"userId": "u4", "event": "Order Completed"}, key),
        ]

        assert [(each.status_code, each.json()) for each in answers] == [(200, {"success": True})] * 7
        await gateway.bench.catch_up()
        assert await gateway.bench.members("segment-audiences-aud_1") == {"u1": True, "u2": False}
        assert await gateway.bench.dead_letters() == []

    async def test_a_write_key_within_the_body_is_taken_and_not_published(self, gateway: GatewayUnderTest) -> None:
        await gateway.start()
        key = await gateway.token("--feed", "engage")
        call = engage(type="identify", userId=12345678901234567890123)

        answered = await gateway.post("/v1/batch", {"batch": [call], "writeKey": key})

        assert (answered.status_code, answered.json()) == (200, {"success": True})
        [record] = await gateway.records(gateway.bench.segment_topic, 2)
        assert json.loads(record.value) == {"batch": [call]}

    async def test_a_key_that_is_none_gets_one_answer(self, gateway: GatewayUnderTest) -> None:
        await gateway.start()
        without_feed = await gateway.token()
        keys = [None, basic("nobody"), basic(without_feed), "Bearer nobody"]
        answers = [await gateway.post("/v1/identify", engage(userId="u1"), key) for key in keys]
        answers += [await gateway.post("/v1/batch", {"batch": [], "writeKey": key}) for key in ("x", 1, None)]

        assert {each.status_code for each in answers} == {401}
        assert len({each.content for each in answers}) == 1
        assert answers[0].headers["www-authenticate"].startswith("Basic")

    async def test_the_connection_test_of_segments_destination_passes(self, gateway: GatewayUnderTest) -> None:
        await gateway.start()
        token = await gateway.token()

        assert (await gateway.client.head(f"/sdk/goals/{CLIENT_SIDE_ID}")).status_code == 200
        assert (await gateway.client.head("/sdk/goals/0123456789abcdef01234567")).status_code == 404
        headers = {"authorization": token, "LD-API-Version": "20240415"}
        assert (await gateway.client.get("/api/v2/versions", headers=headers)).status_code == 200
        assert (await gateway.client.get("/api/v2/versions")).status_code == 403


class TestLists:
    """Amplitude's list-based cohort destination."""

    NAME = "[Amplitude] Power users: 7khm89cz"

    async def test_a_list_is_made_once_and_changed(self, gateway: GatewayUnderTest) -> None:
        gateway.bench.settings["gateway"] = {"feed": "webhook"}
        await gateway.start()
        key = basic(await gateway.token())

        made = [await gateway.post("/lists", {"name": self.NAME}, key) for _ in range(2)]
        assert [(each.status_code, each.json()) for each in made] == [(200, {"listId": "7khm89cz"})] * 2
        added = await gateway.post("/lists/7khm89cz/add", {"userIds": ["u1", "u2", 3, None]}, key)
        assert (added.status_code, added.headers["x-cohort-sync-rejected"]) == (200, "1")
        assert (await gateway.post("/lists/7khm89cz/remove", {"userIds": ["u2"]}, key)).status_code == 200
        assert (await gateway.post("/lists/7khm89cz/add", {"userIds": []}, key)).status_code == 200
        marked = b'\xef\xbb\xbf{"userIds": ["u4"]}'
        assert (await gateway.post("/lists/7khm89cz/add", marked, key)).status_code == 200

        await gateway.bench.catch_up()
        assert await gateway.bench.members("amplitude-7khm89cz") == {"u1": True, "u2": False, "3": True, "u4": True}
        assert await gateway.bench.sql.fetchval("SELECT name FROM segment") == "Power users"

    async def test_a_name_without_an_id_gets_one_that_stays(self, gateway: GatewayUnderTest) -> None:
        gateway.bench.settings["gateway"] = {"feed": "webhook"}
        await gateway.start()
        key = basic(await gateway.token())

        ids = [(await gateway.post("/lists", {"name": "Über/users"}, key)).json()["listId"] for _ in range(2)]

        assert ids[0] == ids[1]
        assert ids[0].startswith("Uber-users--")
        assert (await gateway.post(f"/lists/{ids[0]}/add", {"userIds": ["u1"]}, key)).status_code == 200
        await gateway.bench.catch_up()
        assert await gateway.bench.sql.fetchval("SELECT name FROM segment") == "Über/users"

    async def test_wrong_bodies_and_keys_are_told(self, gateway: GatewayUnderTest) -> None:
        gateway.bench.settings["gateway"] = {"feed": "webhook"}
        await gateway.start()
        key = basic(await gateway.token())
        bad: list[tuple[str, object]] = [
            ("/lists", {}),
            ("/lists", {"name": 1}),
            ("/lists", b"{"),
            ("/lists", []),
            ("/lists/c1/add", {}),
            ("/lists/c1/add", {"userIds": "u1"}),
            ("/lists/c1/add", {"userIds": [None, 1.5]}),
            ("/lists/%20/add", {"userIds": ["u1"]}),
        ]

        answers = [await gateway.post(path, body, key) for path, body in bad]

        assert [each.status_code for each in answers] == [400] * len(bad)
        assert all(set(each.json()) == {"code", "message"} for each in answers)
        assert (await gateway.post("/lists", {"name": self.NAME}, basic("nobody"))).status_code == 401


class TestWebhooks:
    """A feed's own address."""

    async def test_amplitudes_webhook_is_taken(self, gateway: GatewayUnderTest) -> None:
        await gateway.start()
        token = await gateway.token()
        payload = golden("amplitude-webhook/sample")

        answered = await gateway.post("/webhooks/webhook", payload, f"Bearer {token}")

        assert answered.status_code == 200
        await gateway.bench.catch_up()
        assert await gateway.bench.included() == 2

    async def test_mixpanel_reads_its_action_and_the_status(self, gateway: GatewayUnderTest) -> None:
        await feed_of(gateway, "mixpanel")
        key = basic("anyone", await gateway.token())
        payload = golden("mixpanel/add-members")

        taken = await gateway.post("/webhooks/tool", payload, key)
        heartbeat = await gateway.post("/webhooks/tool", golden("mixpanel/heartbeat"), key)
        failed = await gateway.post("/webhooks/tool", payload | {"action": "frobnicate"}, key)

        assert (taken.status_code, taken.json()) == (200, {"action": "add_members", "status": "success"})
        assert heartbeat.json()["status"] == "success"
        assert failed.status_code == 400
        assert failed.json()["status"] == "failure"
        assert failed.json()["action"] == "frobnicate"
        assert failed.json()["error"]["code"] == 400
        assert "unknown_action" in failed.json()["error"]["message"]

    async def test_mparticle_reads_its_type_of_answer(self, gateway: GatewayUnderTest) -> None:
        await feed_of(gateway, "mparticle", context_key="mpid")
        token = await gateway.token()
        payload = golden("mparticle/mpid")

        said = (await gateway.post("/webhooks/tool", payload, token)).json()

        assert said.pop("timestamp_ms") > 1_600_000_000_000
        assert said == {
            "type": "audience_membership_change_response",
            "id": payload["id"],
            "firehose_version": payload["firehose_version"],
            "suspend_subscription": False,
        }

    async def test_heap_signs_the_raw_bytes_and_needs_no_token(self, gateway: GatewayUnderTest) -> None:
        await feed_of(gateway, "heap-inbound", webhook_secret=SECRET)
        body = json.dumps(golden("heap-inbound/raw-sync"), indent=3).encode()

        async def post(body: bytes, ts_ms: float, secret: str = SECRET) -> Any:
            ts = str(round(ts_ms))
            signed = f"ts:{ts},hmac:{signature(body, secret.encode(), ts)}"
            return await gateway.post("/webhooks/tool", body, headers={"heap-hash": signed})

        now_ms = time.time() * 1000
        answered = await post(body, now_ms)
        assert answered.status_code == 200
        assert answered.json()["status"] == "success"
        assert answered.json()["segmentId"] == "heap-inbound-1338065"
        failed = await post(b'{"action_type": "segment.users.sync", "data": {}}', now_ms)
        assert (failed.status_code, failed.json()["status"]) == (400, "failure")
        assert (await post(body, now_ms - 70_000)).status_code == 403
        assert (await post(body, now_ms, "guessed")).status_code == 403
        assert (await gateway.post("/webhooks/tool", body, await gateway.token())).status_code == 403
        await gateway.bench.catch_up()
        members = await gateway.bench.members("heap-inbound-1338065")
        assert members == {"user3@email.com": True, "user1@email.com": False}

    async def test_a_feed_that_is_none_or_not_the_tokens_is_refused(self, gateway: GatewayUnderTest) -> None:
        await gateway.start()
        token, of_engage = await gateway.token(), await gateway.token("--feed", "engage")

        assert (await gateway.post("/webhooks/nothing", {}, token)).status_code == 404
        assert (await gateway.post("/webhooks/nothing", {}, "nobody")).status_code == 403
        assert (
            await gateway.post("/webhooks/webhook", golden("amplitude-webhook/sample"), of_engage)
        ).status_code == 403
        assert (await gateway.post("/webhooks/any", {}, token)).status_code == 400


async def test_a_manifest_of_ones_own_is_an_integration_with_its_own_answer(gateway: GatewayUnderTest) -> None:
    folder = gateway.bench.folder / "manifests"
    folder.mkdir()
    amplitude = json.loads(MANIFEST)
    template = (
        '{"env": "{{requestBody.environmentId}}", "key": "{{environmentKey}}", "segment": "{{segmentKey}}", '
        '"url": "{{segmentUrl}}", {{#if errorMessage}}"error": "{{{errorMessage}}}", "status": {{statusCode}}'
        '{{else}}"ok": true{{/if}}}'
    )
    amplitude["capabilities"]["syncedSegment"]["jsonResponseBody"] = template
    (folder / "acme.json").write_text(json.dumps(amplitude))
    gateway.bench.settings["manifests_dir"] = str(folder)
    await gateway.start()
    token = await gateway.token()

    taken = await gateway.sync(a_batch("u1"), token, "Acme")
    failed = await gateway.sync(a_batch("u1", environmentId='"'), token, "acme")

    assert taken.status_code == 200
    assert taken.json() == {
        "env": CLIENT_SIDE_ID,
        "key": "production",
        "segment": "acme-c1",
        "url": f"{gateway.url}/api/v2/segments/web/production/acme-c1",
        "ok": True,
    }
    assert (failed.status_code, failed.json()["status"], failed.json()["env"]) == (400, 400, '"')


SAMPLES = sorted(str(path.relative_to(GOLDEN)) for path in GOLDEN.glob("*/*.json"))


async def test_every_sample_of_every_tool_becomes_through_http_what_it_should(gateway: GatewayUnderTest) -> None:
    cases = [json.loads((GOLDEN / name).read_text()) for name in SAMPLES]
    topics = {f"{gateway.topic}-{number}": 1 for number in range(len(cases))}
    gateway.bench.settings["environments"] = []
    gateway.bench.settings["feeds"] = [
        case["feed"] | {"environment": f"e{number}", "name": f"f{number}", "topics": [topic]}
        for number, (topic, case) in enumerate(zip(topics, cases, strict=True))
    ]
    await gateway.bench.create_topics(topics)
    await gateway.start()
    token = await gateway.token()

    expected: dict[tuple[str, str, str], bool] = {}
    for number, case in enumerate(cases):
        answered = await gateway.post(f"/webhooks/f{number}", case["payload"], token)
        usable = [each for each in case["expected"].get("members", []) if "rejected" not in each]
        is_taken = bool(usable) or "ignored" in case["expected"]
        assert (answered.status_code < 300) is is_taken, (SAMPLES[number], answered.text)
        published = await gateway.records(f"{gateway.topic}-{number}", 1)
        assert [json.loads(each.value) for each in published] == ([case["payload"]] if usable else [])
        if case["expected"].get("environment") == case["feed"].get("environment"):  # not one that the payload names
            changes = [each for each in usable if "context_key" in each]
            expected |= {(f"e{number}", each["segment"], each["context_key"]): each["included"] for each in changes}
    await gateway.bench.catch_up()
    rows = await gateway.bench.sql.fetch(
        "SELECT environment.key, segment.key, context_key, included "
        "FROM membership JOIN segment ON segment.id = segment_id JOIN environment ON environment.id = environment_id"
    )
    stored = {tuple(row)[:3]: row["included"] for row in rows}
    assert len(expected) > 50
    assert {key: stored.get(key) for key in expected} == expected


def golden(name: str) -> dict[str, Any]:
    payload: dict[str, Any] = json.loads((GOLDEN / f"{name}.json").read_text())["payload"]
    return payload


async def feed_of(gateway: GatewayUnderTest, form: str, **more: str) -> None:
    """Starts the gateway with one feed more, of this format."""
    feed = {"name": "tool", "topics": [f"{gateway.topic}-tool"], "format": form, "environment": "production", **more}
    gateway.bench.settings["feeds"].append(feed)
    await gateway.bench.create_topics({f"{gateway.topic}-tool": 1})
    await gateway.start()


@pytest.mark.parametrize("secret", [{"webhook_secret": "x"}])
async def test_a_secret_is_for_a_tool_that_signs(gateway: GatewayUnderTest, secret: dict[str, str]) -> None:
    gateway.bench.settings["feeds"][0].update(secret)

    done = await gateway.bench.run("config", "show")

    assert done.returncode == 2
    assert b"feeds[0].webhook_secret" in done.stderr
