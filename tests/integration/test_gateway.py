"""The gateway on real servers: LaunchDarkly's endpoint in, Kafka and memberships out."""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncIterator

import pytest

from tests.gateway import CLIENT_SIDE_ID, GatewayUnderTest, a_batch
from tests.worker_process import eventually


async def test_a_batch_becomes_memberships_and_is_published_as_it_came(gateway: GatewayUnderTest) -> None:
    await gateway.start()
    token = await gateway.token()
    body = json.dumps(a_batch("u1", "u2"), indent=2).encode()

    answered = await gateway.sync(body, token)

    assert (answered.status_code, answered.content) == (204, b"")
    [record] = await gateway.records()
    assert record.value == body
    assert dict(record.headers) == {"integration": b"amplitude", "environment": b"production"}
    assert record.key == b"production/amplitude-c1"
    await gateway.bench.catch_up()
    assert await gateway.bench.members("amplitude-c1") == {"u1": True, "u2": True}


async def test_an_integration_is_found_without_case_and_gzip_is_unpacked(gateway: GatewayUnderTest) -> None:
    await gateway.start()
    token = await gateway.token()
    await gateway.sync(a_batch("u1"), token)
    packed = gzip.compress(json.dumps(a_batch("u2")).encode())

    answered = await gateway.post("/api/v2/segment-target/AMPLITUDE", packed, token, {"content-encoding": "gzip"})

    assert answered.status_code == 204
    assert {dict(each.headers)["integration"] for each in await gateway.records()} == {b"amplitude"}
    await gateway.bench.catch_up()
    assert await gateway.bench.members("amplitude-c1") == {"u1": True, "u2": True}


async def test_a_bad_member_is_told_and_becomes_a_dead_letter(gateway: GatewayUnderTest) -> None:
    await gateway.start()
    token = await gateway.token()
    body = a_batch("u1", "u2", "u3")
    body["batch"][1]["userId"] = {"no": "id"}  # type: ignore[index]

    answered = await gateway.sync(body, token)

    assert answered.status_code == 204
    assert answered.headers["x-cohort-sync-rejected"] == "1"
    await gateway.bench.catch_up()
    assert await gateway.bench.members("amplitude-c1") == {"u1": True, "u3": True}
    assert [letter["reason"] for letter in await gateway.bench.dead_letters()] == ["context_key_invalid"]


BAD_BODIES: list[tuple[object, str]] = [
    (b"", "value_empty"),
    (b"{", "json_invalid"),
    (b"\xff\xfe", "json_invalid"),
    (b'{"batch":[{"userId":"\\ud800","value":true}]}', ""),
    (b'{"a":' + b"[" * 500 + b"]" * 500 + b"}", "json_too_deep"),
    (42, ""),
    (a_batch("u1", environmentId="nowhere"), "environment_unknown"),
    ({"environmentId": CLIENT_SIDE_ID}, "no_members_field"),
    (a_batch("u1", value="perhaps"), "value_invalid"),
    ({"batch": [{"userId": "u1", "cohortId": "c1", "value": True}]}, "environment_missing"),
]


async def test_what_cannot_be_used_is_answered_with_reasons_and_never_published(gateway: GatewayUnderTest) -> None:
    await gateway.start()
    token = await gateway.token()
    await gateway.sync({"environmentId": CLIENT_SIDE_ID, "batch": []}, token)

    for body, reason in BAD_BODIES:
        answered = await gateway.sync(body, token)
        assert answered.status_code == 400, body
        assert answered.json()["code"] == "invalid_request"
        assert reason in answered.json()["message"]
    packed = await gateway.post("/api/v2/segment-targets/amplitude", b"no gzip", token, {"content-encoding": "gzip"})
    assert packed.status_code == 400
    assert await gateway.records() == []


async def test_every_wrong_token_gets_the_same_answer(gateway: GatewayUnderTest) -> None:
    await gateway.start()
    staging_only = {"effect": "allow", "resources": ["proj/web:env/staging:segment/*"], "actions": ["*"]}
    other_project = {"effect": "allow", "resources": ["proj/other:env/*:segment/*"], "actions": ["*"]}
    without_create = {"effect": "allow", "resources": ["proj/*:env/*:segment/*"], "actions": ["updateIncluded"]}
    good = await gateway.token()
    tokens = [None, "", "no token", "cs_aaaaaaaaaaaaaaaa_bbbb", good[:-1]]
    tokens += [await gateway.token(policy=[each]) for each in (staging_only, other_project, without_create)]
    tokens += [await gateway.token("--feed", "engage")]
    await gateway.sync(a_batch("u1"), good)

    answers = [await gateway.sync(a_batch("u2"), token) for token in tokens]
    # Whoever may not sync everywhere is not told either which environments there are.
    answers += [await gateway.sync(a_batch("u2", environmentId="nowhere"), token) for token in tokens]

    assert {each.status_code for each in answers} == {403}
    assert len({each.content for each in answers}) == 1
    assert answers[0].json() == {"code": "forbidden", "message": "Access to the requested resource was denied"}
    assert len(await gateway.records()) == 1


async def test_a_policy_is_held_against_every_segment_of_a_body_and_its_tags(gateway: GatewayUnderTest) -> None:
    await gateway.start()
    c1 = {"effect": "allow", "resources": ["proj/web:env/production:segment/*c1"], "actions": ["*"]}
    tagged = {"effect": "allow", "resources": ["proj/*:env/*:segment/*;eu"], "actions": ["*"]}
    only_c1, only_tagged = await gateway.token(policy=[c1]), await gateway.token(policy=[tagged])
    both = a_batch("u1")
    both["batch"] += a_batch("u1", cohort_id="c2")["batch"]  # type: ignore[operator]
    assert (await gateway.sync(a_batch("u1"), only_c1)).status_code == 204

    assert (await gateway.sync(both, only_c1)).status_code == 403
    assert (await gateway.sync(a_batch("u2"), only_tagged)).status_code == 403
    await gateway.bench.catch_up()
    await gateway.bench.sql.execute("UPDATE segment SET tags = '{eu}'")

    async def is_allowed() -> bool:
        return (await gateway.sync(a_batch("u2"), only_tagged)).status_code == 204

    await eventually(is_allowed, 5)


async def test_a_revoked_token_is_refused_by_all_replicas_within_two_seconds_and_its_last_use_is_known(
    gateway: GatewayUnderTest,
) -> None:
    second = gateway.bench.start_gateway()
    urls = [await second.ready()]
    process = await gateway.start()
    urls.append(gateway.url)
    token = await gateway.token()

    async def answers() -> set[int]:
        path = "/api/v2/segment-targets/amplitude"
        return {(await gateway.post(url + path, a_batch("u1"), token)).status_code for url in urls}

    async def is_known() -> bool:
        return await answers() == {204}

    await eventually(is_known, 5)
    [row] = await gateway.bench.rows("tokens", "list")
    assert (row["name"], row["role"], row["revoked_at"]) == ("a tool", "writer", None)
    assert token not in json.dumps(row)

    assert (await gateway.bench.run("tokens", "revoke", row["id"])).returncode == 0

    async def is_refused() -> bool:
        return await answers() == {403}

    await eventually(is_refused, 2)
    assert await process.stop() == 0
    [row] = await gateway.bench.rows("tokens", "list")
    assert row["revoked_at"]
    assert row["last_used_at"]
    assert (await gateway.bench.run("tokens", "revoke", "nobody")).returncode == 1


async def test_a_body_that_lists_too_many_members_is_refused_whole(gateway: GatewayUnderTest) -> None:
    gateway.bench.settings["gateway"] = {"max_members": 3, "feed": "webhook"}
    await gateway.start()
    token = await gateway.token()

    said = await gateway.sync(a_batch("u1", "u2", "u3", "u4"), token)

    assert said.status_code == 413
    assert said.json() == {"code": "request_too_large", "message": "The body lists more than 3 members"}
    listed = {"userIds": ["u1", "u2", "u3", "u4"]}
    assert (await gateway.post("/lists/c1/add", listed, f"Bearer {token}")).status_code == 413
    assert await gateway.records(gateway.bench.webhook_topic) == []
    assert (await gateway.sync(a_batch("u1", "u2", "u3"), token)).status_code == 204


async def test_what_is_too_large_or_of_another_kind_is_refused_before_it_is_read(gateway: GatewayUnderTest) -> None:
    gateway.bench.settings["gateway"] = {"max_body_bytes": 2_000}
    await gateway.start()
    token = await gateway.token()
    await gateway.sync(a_batch("u1"), token)
    path = "/api/v2/segment-targets/amplitude"
    large = json.dumps(a_batch(*map(str, range(1_000)))).encode()

    async def chunks() -> AsyncIterator[bytes]:
        yield large

    streamed = await gateway.client.post(path, content=chunks(), headers={"authorization": token})
    assert streamed.status_code == 413
    assert (await gateway.post(path, large, token)).status_code == 413
    assert (await gateway.post(path, gzip.compress(large), token, {"content-encoding": "gzip"})).status_code == 413
    assert (await gateway.post(path, b"{}", token, {"content-encoding": "br"})).status_code == 415
    assert (await gateway.post(path, b"{}", token, {"content-type": "text/html"})).status_code == 415
    assert (await gateway.post("/api/v2/segment-targets/unheard-of", b"{}", token)).status_code == 404
    wrong_method = await gateway.client.get(path)
    assert wrong_method.status_code == 405
    assert wrong_method.headers["x-request-id"]
    assert (await gateway.post(f"{path}/", b"{}", token)).status_code == 404
    assert (await gateway.client.get("/nothing/here")).json() == {
        "code": "not_found",
        "message": "There is nothing here",
    }


async def test_a_token_that_sends_too_much_is_told_when_to_come_back(gateway: GatewayUnderTest) -> None:
    gateway.bench.settings["gateway"] = {"token_requests_per_s": 5}
    await gateway.start()
    token, other = await gateway.token(), await gateway.token()
    await gateway.sync(a_batch("u1"), other)

    answers = [await gateway.sync(a_batch("u1"), token) for _ in range(30)]

    limited = [each for each in answers if each.status_code == 429]
    assert limited
    assert int(limited[0].headers["retry-after"]) >= 1
    assert int(limited[0].headers["x-ratelimit-reset"]) > 1_600_000_000_000
    assert (await gateway.sync(a_batch("u1"), other)).status_code == 204


async def test_metrics_count_by_route_and_code_and_nothing_personal_is_logged(gateway: GatewayUnderTest) -> None:
    process = await gateway.start()
    token = await gateway.token()
    await gateway.sync(a_batch("alan@example.com"), token)
    await gateway.sync(b"{secret payload", token)
    await gateway.client.get("/nothing")

    metrics = (await process.get("/metrics")).text

    assert 'cohort_sync_gateway_requests_total{code="204",route="segment-targets"} 1.0' in metrics
    assert 'cohort_sync_gateway_requests_total{code="400",route="segment-targets"} 1.0' in metrics
    assert 'cohort_sync_gateway_requests_total{code="404",route="other"} 1.0' in metrics
    assert 'cohort_sync_gateway_request_seconds_count{route="segment-targets"}' in metrics
    said = process.log_file.read_text() + metrics
    assert not [each for each in ("alan", "secret payload", token) if each in said]


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
async def test_the_gateway_answers_probes(gateway: GatewayUnderTest, path: str) -> None:
    process = await gateway.start()

    assert (await process.get(path)).status_code == 200
