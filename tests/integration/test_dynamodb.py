"""The target in DynamoDB, as moto has it: its exact format, and its bad days."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import pytest
from structlog.testing import capture_logs

from consumers.feeds import Feed
from deploy.local.dynamodb import REGION, DynamoDb
from deploy.local.processes import free_ports
from stores.dynamodb.connection import SETTLED_AFTER_S
from stores.dynamodb.target import DynamoTarget
from stores.errors import StoreRefusedError, StoreUnavailableError
from stores.postgres.change_feed import ChangeFeed
from stores.postgres.writing import PostgresStore
from stores.target import Change, Reference, TargetDamagedError, context_reference
from tests.builders import a_group, a_version
from tests.dynamodb_proxy import AT_FAULT, THROTTLED, TOO_LARGE, Answer, DynamoProxy, Request
from tests.faults.proxy import Proxy
from tests.targets import DynamoUnderTest, seen, synchronized_on
from tests.worker_process import Bench, eventually
from worker.health import Health
from worker.projection_metrics import ProjectionMetrics
from worker.projector import Projection, Projector, until_caught_up

HASH_OF_ABC = "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0="
FEEDS = [Feed(name="all", format="amplitude", topics=("cohorts",))]


@pytest.fixture
async def table(dynamodb: DynamoDb) -> AsyncIterator[DynamoUnderTest]:
    async with DynamoUnderTest(dynamodb) as own:
        yield own


@pytest.fixture
async def proxy(dynamodb: DynamoDb) -> AsyncIterator[DynamoProxy]:
    async with DynamoProxy(dynamodb.endpoint_url) as own:
        yield own


@asynccontextmanager
async def through(endpoint_url: str, table: DynamoUnderTest) -> AsyncIterator[DynamoTarget]:
    """The same table by another way."""
    async with DynamoTarget(table.table, region=REGION, endpoint_url=endpoint_url) as target:
        yield target


class Truth:
    """A database with memberships, and a projector from it."""

    def __init__(self, dsn: str, store: PostgresStore, stack: AsyncExitStack) -> None:
        self._dsn, self._store, self._stack = dsn, store, stack
        self._clock = 0
        self.metrics = ProjectionMetrics(["sdk"])

    async def put(self, *keys: str, included: bool = True) -> None:
        self._clock += 1
        group = a_group(*keys, segment="amplitude-beta", included=included, version=a_version(self._clock))
        refs = await self._store.resolve([group])
        await self._store.apply([(refs[group.segment].id, group)])

    async def project(self, target: DynamoTarget) -> asyncio.Task[None]:
        feed = await self._stack.enter_async_context(ChangeFeed(self._dsn))
        said = Projection("sdk", "production", FEEDS, freshness_s=30)
        projector = Projector(said, feed=feed, target=target, metrics=self.metrics, health=Health(()))
        running = asyncio.create_task(projector.run())
        self._stack.push_async_callback(_ended, running)
        return running

    def counted(self, what: str) -> float | None:
        return self.metrics.registry.get_sample_value(f"cohort_sync_projection_{what}_total", {"projection": "sdk"})

    async def caught_up(self) -> None:
        async with ChangeFeed(self._dsn) as feed, asyncio.timeout(60):
            await until_caught_up(feed, Health(()), ["sdk"])


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError, StoreRefusedError):
        await task


@pytest.fixture
async def truth(database: str) -> AsyncIterator[Truth]:
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(PostgresStore(database, pool_max_size=2))
        yield Truth(database, store, stack)


def joined(segment: str, *context_keys: str) -> list[Change]:
    return [Change(segment, 1, key, included=True) for key in context_keys]


def left(segment: str, *context_keys: str) -> list[Change]:
    return [Change(segment, 1, key, included=False) for key in context_keys]


async def members(table: DynamoUnderTest, segment: str = "amplitude-beta") -> set[str]:
    """The contexts in the segment, by their references."""
    pages = [page async for page in table.target.references()]
    return {each.context for page in pages for each in page if each.segment == segment}


def refs(*keys: str) -> set[str]:
    return set(map(context_reference, keys))


def by_key(items: list[dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    return {
        (item["namespace"]["S"], item["key"]["S"]): {name: item[name] for name in item.keys() - {"namespace", "key"}}
        for item in items
    }


@pytest.mark.parametrize("prefix", [None, "ours"])
async def test_items_have_the_documented_keys_and_attributes_and_no_others(
    dynamodb: DynamoDb, prefix: str | None
) -> None:
    start = f"{prefix}:" if prefix else ""
    async with DynamoUnderTest(dynamodb, prefix=prefix) as own:
        await own.target.mark("ours")
        await own.target.synchronize(1_700_000_000_000)
        await own.target.apply([*joined("beta", "abc"), *joined("trial", "abc"), *left("beta", "leaver")])

        found = by_key(await own.items())

    assert found.pop((f"{start}cohort_sync_marker",) * 2) == {"marker": {"S": "ours"}}
    assert found.pop((f"{start}big_segments_metadata",) * 2) == {"synchronizedOn": {"N": "1700000000000"}}
    user = found.pop((f"{start}big_segments_user", HASH_OF_ABC))
    assert user.keys() == {"included"}
    assert sorted(user["included"]["SS"]) == ["beta.g1", "trial.g1"]
    assert found == {}


async def test_an_item_gets_one_request_of_each_kind_at_most(table: DynamoUnderTest, proxy: DynamoProxy) -> None:
    async with through(proxy.endpoint_url, table) as target:
        await target.apply(
            [
                *joined("beta", "many", "one"),
                *left("beta", "many"),
                *joined("trial", "many"),
                *joined("old", "many"),
                *left("gone", "many"),
            ]
        )

    asked: dict[str, list[tuple[str, set[str]]]] = {}
    for request in proxy.requests:
        verb = request.body["UpdateExpression"].split()[0]
        values = set(request.body["ExpressionAttributeValues"][":r"]["SS"])
        asked.setdefault(request.body["Key"]["key"]["S"], []).append((verb, values))
    assert asked == {
        context_reference("many"): [("DELETE", {"beta.g1", "gone.g1"}), ("ADD", {"trial.g1", "old.g1"})],
        context_reference("one"): [("ADD", {"beta.g1"})],
    }


@pytest.mark.parametrize("trouble", [THROTTLED, AT_FAULT], ids=["throttled", "at fault"])
async def test_what_a_table_refuses_for_now_is_asked_again_and_nothing_is_lost(
    table: DynamoUnderTest, proxy: DynamoProxy, trouble: Answer
) -> None:
    chance = random.Random(7)

    async def some(request: Request) -> Answer | None:
        return trouble if request.operation == "UpdateItem" and chance.random() < 0.3 else None

    proxy.instead = some
    keys = [f"u{number}" for number in range(300)]
    async with through(proxy.endpoint_url, table) as target:
        await target.apply(joined("beta", *keys))
        await target.apply([*left("beta", *keys[::2]), *joined("trial", *keys[::2])])

    assert await members(table, "beta") == refs(*keys[1::2])
    assert await members(table, "trial") == refs(*keys[::2])


async def test_a_table_with_little_capacity_gets_what_it_bears_and_no_page_is_begun_again(
    table: DynamoUnderTest, proxy: DynamoProxy
) -> None:
    """A bucket of tokens, as DynamoDB has: 40 writes a second."""
    started, capacity = time.monotonic(), 40
    written = 0

    async def limited(request: Request) -> Answer | None:
        nonlocal written
        if written > (time.monotonic() - started) * capacity:
            return THROTTLED
        written += request.operation == "UpdateItem"
        return None

    proxy.instead = limited
    keys = [f"u{number}" for number in range(200)]
    async with through(proxy.endpoint_url, table) as target:
        await target.apply(joined("beta", *keys))
    took_s = time.monotonic() - started

    assert await members(table, "beta") == refs(*keys)
    assert written == len(keys)
    assert took_s < 4 * len(keys) / capacity


async def test_keys_that_were_not_looked_up_are_asked_for_again(table: DynamoUnderTest, proxy: DynamoProxy) -> None:
    async def a_few(request: Request) -> Answer | None:
        asked = request.body["RequestItems"][table.table]
        now, later = asked["Keys"][:40], asked["Keys"][40:]
        answer = await proxy.forward(
            Request(request.operation, {"RequestItems": {table.table: {**asked, "Keys": now}}})
        )
        unprocessed = {table.table: {**asked, "Keys": later}} if later else {}
        return Answer(answer.status, {**answer.body, "UnprocessedKeys": unprocessed})

    await table.target.apply(joined("beta", *(f"u{number}" for number in range(0, 150, 3))))
    proxy.instead = a_few
    async with through(proxy.endpoint_url, table) as target:
        held = await target.hold([Reference("beta", 1, context_reference(f"u{number}")) for number in range(150)])

    assert held == [number % 3 == 0 for number in range(150)]


async def test_what_was_given_up_and_is_done_late_does_not_undo_what_comes_after_it(
    table: DynamoUnderTest, proxy: DynamoProxy
) -> None:
    async def late(_request: Request) -> Answer | None:
        await asyncio.sleep(1)
        return None

    async with through(proxy.endpoint_url, table) as target:
        await target.apply(joined("beta", "ann"))
        proxy.instead = late
        sending = asyncio.create_task(target.apply(left("beta", "ann")))
        await asyncio.sleep(0.3)
        sending.cancel()
        with suppress(asyncio.CancelledError):
            await sending
        assert seen(table, "ann") == {"beta.g1"}

        started = time.monotonic()
        await target.settle()
        assert time.monotonic() - started > SETTLED_AFTER_S - 1
        assert seen(table, "ann") == set()
        await target.apply(joined("beta", "ann"))

    assert seen(table, "ann") == {"beta.g1"}


async def test_a_request_that_never_left_is_not_waited_for(table: DynamoUnderTest) -> None:
    (nobody,) = free_ports(1)
    async with through(f"http://127.0.0.1:{nobody}", table) as target:
        with pytest.raises(StoreUnavailableError, match="DynamoDB is not available: EndpointConnectionError"):
            await target.apply(joined("beta", "ann", "bob"))
        async with asyncio.timeout(1):
            await target.settle()


async def test_one_who_led_before_can_call_nothing_fresh(table: DynamoUnderTest, dynamodb: DynamoDb) -> None:
    async with through(dynamodb.endpoint_url, table) as old:
        await old.mark("old")
        await table.target.mark("new")

        assert not await old.synchronize(1_000)

    assert synchronized_on(table) is None


async def test_a_table_that_is_away_for_a_while_gets_everything_when_it_is_back(
    table: DynamoUnderTest, dynamodb: DynamoDb, truth: Truth
) -> None:
    (port,) = free_ports(1)
    async with Proxy(port, dynamodb.port) as network, through(f"http://127.0.0.1:{port}", table) as target:
        await truth.put("a", "b")
        await truth.project(target)
        await truth.caught_up()
        network.cut()
        await truth.put("c")
        await truth.put("a", included=False)
        await asyncio.sleep(1)
        assert await members(table) == refs("a", "b")

        network.heal()
        await truth.caught_up()
        assert await members(table) == refs("b", "c")


async def test_throttling_reaches_no_one_who_projects(table: DynamoUnderTest, proxy: DynamoProxy, truth: Truth) -> None:
    chance = random.Random(11)

    async def some(_request: Request) -> Answer | None:
        return THROTTLED if chance.random() < 0.3 else None

    proxy.instead = some
    keys = [f"u{number}" for number in range(400)]
    async with through(proxy.endpoint_url, table) as target:
        with capture_logs() as logs:
            await truth.put(*keys)
            await truth.project(target)
            await truth.put(*keys[:100], included=False)
            await truth.caught_up()

        assert await members(table) == refs(*keys[100:])
        assert [line for line in logs if line["log_level"] != "info"] == []


async def test_items_that_somebody_deleted_come_back(table: DynamoUnderTest, truth: Truth) -> None:
    await truth.put("a", "b")
    await truth.project(table.target)
    await truth.caught_up()
    for item in await table.items():
        await table.client.delete_item(TableName=table.table, Key={name: item[name] for name in ("namespace", "key")})

    async def whole() -> bool:
        return await members(table) == refs("a", "b")

    await eventually(whole)


async def test_an_item_that_is_full_is_refused_alone_and_told_by_its_reference_only(
    table: DynamoUnderTest, proxy: DynamoProxy, truth: Truth
) -> None:
    """The refusal is the proxy's: moto does not count what ADD makes of an item."""

    async def full(request: Request) -> Answer | None:
        is_full = request.body.get("Key", {}).get("key") == {"S": context_reference("in-everything")}
        return TOO_LARGE if is_full and request.body["UpdateExpression"].startswith("ADD") else None

    proxy.instead = full
    async with through(proxy.endpoint_url, table) as target:
        await truth.put("a", "in-everything", "b")
        with capture_logs() as logs:
            await truth.project(target)
            await truth.caught_up()
            await truth.put("c")
            await truth.put("in-everything", included=False)
            await truth.caught_up()

    assert await members(table) == refs("a", "b", "c")
    assert [line for line in logs if line["log_level"] == "error"] == [
        {
            "event": "projection_item_too_large",
            "log_level": "error",
            "projection": "sdk",
            "segment": "amplitude-beta",
            "generation": 1,
            "context": context_reference("in-everything"),
        }
    ]
    assert truth.counted("refused") == 1
    assert truth.counted("applied") == 4


@pytest.mark.parametrize("included", [{"S": "x"}, {"N": "1"}, {"NS": ["1"]}, {"L": []}, {"NULL": True}], ids=str)
async def test_an_attribute_of_any_other_type_is_told_and_taken_out(
    table: DynamoUnderTest, included: dict[str, Any]
) -> None:
    for changes in (joined("beta", "ann"), left("beta", "ann")):
        await table.put("ann", included)
        with pytest.raises(TargetDamagedError):
            await table.target.apply(changes)

        assert await table.items() == []


async def test_a_table_that_is_gone_ends_the_projector(table: DynamoUnderTest, truth: Truth) -> None:
    await truth.put("a")
    running = await truth.project(table.target)
    await truth.caught_up()
    await table.client.delete_table(TableName=table.table)

    with pytest.raises(StoreRefusedError, match=f"no table {table.table}: run `cohort-sync project --create-table`"):
        await asyncio.wait_for(running, timeout=30)


async def test_a_table_with_other_keys_is_refused(table: DynamoUnderTest) -> None:
    name = f"other-{uuid.uuid4().hex[:8]}"
    await table.client.create_table(
        TableName=name,
        BillingMode="PAY_PER_REQUEST",
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
    )
    table.table = name
    async with through(table.client.meta.endpoint_url, table) as target:
        for refused in (target.marker, target.create_table, lambda: target.apply(joined("beta", "ann"))):
            with pytest.raises(StoreRefusedError, match="partition key `namespace`"):
                await refused()


@pytest.mark.parametrize(
    ("missing", "said"),
    [("AWS_SECRET_ACCESS_KEY", "without AWS credentials"), ("AWS_ACCESS_KEY_ID", "without AWS credentials")],
)
async def test_missing_credentials_are_told(
    table: DynamoUnderTest, dynamodb: DynamoDb, monkeypatch: pytest.MonkeyPatch, missing: str, said: str
) -> None:
    monkeypatch.delenv(missing)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    async with through(dynamodb.endpoint_url, table) as target:
        with pytest.raises(StoreRefusedError, match=said):
            await target.marker()


@pytest.mark.usefixtures("dynamodb")
async def test_a_missing_region_and_an_endpoint_that_is_no_url_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    async with DynamoTarget("table") as nowhere, DynamoTarget("table", region=REGION, endpoint_url="no url") as odd:
        with pytest.raises(StoreRefusedError, match="AWS_DEFAULT_REGION"):
            await nowhere.marker()
        with pytest.raises(StoreRefusedError, match="endpoint_url"):
            await odd.marker()


async def test_a_missing_table_is_told_with_what_to_do_and_made_where_that_is_asked_for(
    bench: Bench, dynamodb: DynamoDb
) -> None:
    table = f"test-{uuid.uuid4().hex[:8]}"
    bench.settings["projections"] = [
        {
            "name": "sdk",
            "type": "dynamodb",
            "environment": "production",
            "table": table,
            "region": REGION,
            "endpoint_url": dynamodb.endpoint_url,
        }
    ]
    sentence = f"DynamoDB has no table {table}: run `cohort-sync project --create-table`"
    refused = await bench.run("project", "--until-caught-up")
    assert refused.returncode == 1
    assert (
        Counter(line.startswith(f"cohort-sync: {sentence}") for line in refused.stderr.decode().splitlines())[True] == 1
    )
    checked = await bench.run("config", "check")
    assert checked.returncode == 1
    assert sentence.encode() in checked.stdout

    for _ in range(2):
        made = await bench.run("project", "--create-table", "--until-caught-up")
        assert made.returncode == 0, made.stderr.decode()
    assert (await bench.run("config", "check")).returncode == 0


def test_only_a_target_in_dynamodb_needs_botocore() -> None:
    program = "import sys, worker.projecting; sys.exit('botocore' in sys.modules or 'aiohttp' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
