"""What the contract suite needs of a target beyond its promises: to be looked into, emptied and damaged."""

from __future__ import annotations

import uuid
from typing import Any, Protocol, Self

from aiobotocore.session import get_session
from ldclient.interfaces import BigSegmentStore, BigSegmentStoreMetadata
from redis.asyncio import Redis
from redis.cluster import RedisCluster

from deploy.local.dynamodb import REGION, DynamoDb
from deploy.local.sdk import dynamodb_store, redis_store
from deploy.local.valkey import Valkey, ValkeyCluster
from stores.dynamodb.target import DynamoTarget
from stores.redis.target import RedisTarget
from stores.target import AuditableTarget, context_reference


class TargetUnderTest(Protocol):
    """A target of one test's own."""

    @property
    def target(self) -> AuditableTarget: ...

    @property
    def sdk(self) -> BigSegmentStore:
        """What the official SDK reads it with."""

    async def empty(self) -> None:
        """As whoever owns the server might."""

    async def damage(self, context_key: str) -> None:
        """Puts something else where the memberships of this context are."""


def seen(under_test: TargetUnderTest, context_key: str) -> set[str]:
    """The segments that the SDK sees the context in."""
    membership = under_test.sdk.get_membership(context_reference(context_key)) or {}
    return {name for name, included in membership.items() if included}


def synchronized_on(under_test: TargetUnderTest) -> int | None:
    """What the SDK is told of the freshness."""
    return under_test.sdk.get_metadata().last_up_to_date


class RedisUnderTest:
    """Under a prefix that nobody else uses."""

    def __init__(self, valkey: Valkey) -> None:
        self._prefix = f"test-{uuid.uuid4().hex[:8]}"
        self.target = RedisTarget(valkey.url, prefix=self._prefix)
        self.sdk = redis_store(valkey.url, prefix=self._prefix)
        self._redis: Redis = Redis.from_url(valkey.url)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.target.__aexit__(*exc)
        self.sdk.stop()  # type: ignore[no-untyped-call]
        await self._redis.aclose()

    async def empty(self) -> None:
        keys = [key async for key in self._redis.scan_iter(f"*{self._prefix}:*", count=1_000)]
        await self._redis.delete(*keys)

    async def damage(self, context_key: str) -> None:
        await self._redis.set(f"{self._prefix}:big_segment_include:{context_reference(context_key)}", "not a set")


class ClusterStore(BigSegmentStore):
    """Reads a cluster as the SDKs do that can; the Python SDK's own store knows single servers only."""

    def __init__(self, cluster: ValkeyCluster, prefix: str) -> None:
        self._redis = RedisCluster.from_url(cluster.url, decode_responses=True)
        self._prefix = prefix

    def get_metadata(self) -> BigSegmentStoreMetadata:
        said = self._redis.get(f"{self._prefix}:big_segments_synchronized_on")
        return BigSegmentStoreMetadata(int(said) if said else None)

    def get_membership(self, context_hash: str) -> dict[str, bool] | None:
        included = self._redis.smembers(f"{self._prefix}:big_segment_include:{context_hash}")
        return dict.fromkeys(map(str, included), True) or None

    def stop(self) -> None:
        self._redis.close()


class ClusterUnderTest:
    """Under a prefix that nobody else uses, in a cluster."""

    def __init__(self, cluster: ValkeyCluster) -> None:
        self._prefix = f"test-{uuid.uuid4().hex[:8]}"
        self._cluster = cluster
        self.target = RedisTarget(cluster.url, prefix=self._prefix)
        self.sdk = ClusterStore(cluster, self._prefix)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.target.__aexit__(*exc)
        self.sdk.stop()

    async def empty(self) -> None:
        for node in self._cluster.nodes:
            with node.client() as client:
                client.flushall()

    async def damage(self, context_key: str) -> None:
        with RedisCluster.from_url(self._cluster.url) as client:
            client.set(f"{self._prefix}:big_segment_include:{context_reference(context_key)}", "not a set")


class DynamoUnderTest:
    """A table that nobody else uses."""

    def __init__(self, dynamodb: DynamoDb, *, prefix: str | None = None) -> None:
        self.table = f"test-{uuid.uuid4().hex[:8]}"
        self._users = f"{prefix}:big_segments_user" if prefix else "big_segments_user"
        self.target = DynamoTarget(self.table, region=REGION, endpoint_url=dynamodb.endpoint_url, prefix=prefix)
        self.sdk = dynamodb_store(self.table, region=REGION, endpoint_url=dynamodb.endpoint_url, prefix=prefix)
        self._opening = get_session().create_client("dynamodb", region_name=REGION, endpoint_url=dynamodb.endpoint_url)

    async def __aenter__(self) -> Self:
        self.client: Any = await self._opening.__aenter__()
        await self.target.create_table()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.target.__aexit__(*exc)
        await self._opening.__aexit__(*exc)
        self.sdk.stop()  # type: ignore[no-untyped-call]

    async def empty(self) -> None:
        await self.client.delete_table(TableName=self.table)
        await self.target.create_table()

    async def damage(self, context_key: str) -> None:
        await self.put(context_key, {"S": "not a set"})

    async def put(self, context_key: str, included: dict[str, Any]) -> None:
        key = {"namespace": {"S": self._users}, "key": {"S": context_reference(context_key)}}
        await self.client.put_item(TableName=self.table, Item={**key, "included": included})

    async def items(self) -> list[dict[str, Any]]:
        """All that stands in the table."""
        answer = await self.client.scan(TableName=self.table, ConsistentRead=True)
        items: list[dict[str, Any]] = answer["Items"]
        return items
