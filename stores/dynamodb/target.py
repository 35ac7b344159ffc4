"""A target in DynamoDB.

Sources of the format: LaunchDarkly's `dynamodb_big_segment_store.py` (Python SDK) and `store_dynamodb.go` (Relay
Proxy). The items of contexts, and the one that tells of freshness, have the documented attributes and no others; our
marker is an item of its own beside them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Self, TypeVar

from stores.dynamodb.connection import CONNECTIONS, ConditionError, ItemTooLargeError, Table, WrongTypeError
from stores.errors import StoreUnavailableError
from stores.parts import in_parts
from stores.target import Change, Reference, TargetDamagedError, context_reference, reference_of, segment_reference

QUERY_ITEMS = 1_000
GET_ITEMS = 100
"""The most that one BatchGetItem takes."""

# In expressions by other names: some of DynamoDB's reserved words are like them.
_NAMESPACE = {"#n": "namespace"}
_KEY = {"#k": "key"}
_INCLUDED = {"#i": "included"}
_SYNCHRONIZED_ON = {"#s": "synchronizedOn"}
_MARKER = {"#m": "marker"}

T = TypeVar("T")


class DynamoTarget:
    """`AuditableTarget` in one table. Besides, every method raises `StoreRefusedError` where a person has to act."""

    def __init__(
        self, table: str, *, region: str | None = None, endpoint_url: str | None = None, prefix: str | None = None
    ) -> None:
        start = f"{prefix}:" if prefix else ""
        self._users = f"{start}big_segments_user"
        self._metadata_key = _key(f"{start}big_segments_metadata", f"{start}big_segments_metadata")
        self._marker_key = _key(f"{start}cohort_sync_marker", f"{start}cohort_sync_marker")
        self._table = Table(table, region=region, endpoint_url=endpoint_url)
        self._seen_marker: str | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._table.__aexit__(*exc)

    async def create_table(self) -> None:
        """Makes the table, billed by request, unless it is there. Returns when it can be used."""
        await self._table.create()

    async def apply(self, changes: Sequence[Change]) -> Sequence[Reference]:
        """See `Target.apply`. Each item gets what it ends with: at most one removal, then one addition.

        One expression may name a path only once, hence the two. What would make an item larger than 400 KB is given
        back.
        """
        refused: list[Reference] = []
        damaged: list[str] = []

        async def make_so(context: str, states: Mapping[Reference, bool]) -> None:
            joined = [reference for reference, included in states.items() if included]
            left = [reference for reference, included in states.items() if not included]
            try:
                await self._remove(context, left)
                await self._add(context, joined)
            except ItemTooLargeError:
                refused.extend(joined)
            except WrongTypeError:
                # Nobody can read it as it is, and which other segments should stand in it is not known here.
                await self._table.call("delete_item", Key=_key(self._users, context))
                damaged.append(context)

        await _in_lanes(_folded(changes).items(), lambda item: make_so(*item))
        if damaged:
            raise TargetDamagedError(f"{len(damaged)} items were of another type, and are removed")
        return refused

    async def settle(self) -> None:
        """See `Target.settle`. DynamoDB can't be told to end our connections, so this waits some seconds.

        A request that was given up may have reached a server which carries it out a little later; by then it has.
        """
        await self._table.settle()

    async def marker(self) -> str | None:
        """See `Target.marker`."""
        found = await self._table.call("get_item", Key=self._marker_key, ConsistentRead=True)
        self._seen_marker = found.get("Item", {}).get("marker", {}).get("S")
        return self._seen_marker

    async def mark(self, marker: str) -> None:
        """See `Target.mark`."""
        await self._table.call(
            "update_item",
            Key=self._metadata_key,
            UpdateExpression="REMOVE #s",
            ExpressionAttributeNames=_SYNCHRONIZED_ON,
        )
        await self._table.call(
            "update_item",
            Key=self._marker_key,
            UpdateExpression="SET #m = :m",
            ExpressionAttributeNames=_MARKER,
            ExpressionAttributeValues={":m": {"S": marker}},
        )
        self._seen_marker = marker

    async def synchronize(self, on_ms: int) -> bool:
        """See `Target.synchronize`. Only under the marker that was seen last: one that comes late tells nothing."""
        seen: Mapping[str, Any] = {"ConditionExpression": "attribute_exists(#m)"}
        if self._seen_marker is not None:
            seen = {
                "ConditionExpression": "#m = :m",
                "ExpressionAttributeValues": {":m": {"S": self._seen_marker}},
            }
        check = {"Key": self._marker_key, "ExpressionAttributeNames": _MARKER, **seen}
        update = {
            "Key": self._metadata_key,
            "UpdateExpression": "SET #s = :s",
            "ExpressionAttributeNames": _SYNCHRONIZED_ON,
            "ExpressionAttributeValues": {":s": {"N": str(on_ms)}},
        }
        table = {"TableName": self._table.name}
        try:
            await self._table.call_service(
                "transact_write_items", TransactItems=[{"ConditionCheck": table | check}, {"Update": table | update}]
            )
        except ConditionError:
            return False
        return True

    async def synchronized_on(self) -> int | None:
        """See `Target.synchronized_on`."""
        found = await self._table.call("get_item", Key=self._metadata_key, ConsistentRead=True)
        told = found.get("Item", {}).get("synchronizedOn", {}).get("N")
        return int(told) if told else None

    async def references(self) -> AsyncIterator[list[Reference]]:
        """See `AuditableTarget.references`. Members that no SDK would look for are left out."""
        start: Mapping[str, Any] = {}
        while True:
            answer = await self._table.call(
                "query",
                KeyConditionExpression="#n = :u",
                ProjectionExpression="#k, #i",
                ExpressionAttributeNames=_NAMESPACE | _KEY | _INCLUDED,
                ExpressionAttributeValues={":u": {"S": self._users}},
                ConsistentRead=True,
                Limit=QUERY_ITEMS,
                **start,
            )
            yield [
                reference
                for item in answer["Items"]
                for member in _members(item)
                if (reference := reference_of(member, item["key"]["S"]))
            ]
            if not answer.get("LastEvaluatedKey"):
                return
            start = {"ExclusiveStartKey": answer["LastEvaluatedKey"]}

    async def hold(self, references: Sequence[Reference]) -> list[bool]:
        """See `AuditableTarget.hold`."""
        found: dict[str, frozenset[str]] = {}

        async def look_up(contexts: Sequence[str]) -> None:
            for item in await self._items(contexts):
                found[item["key"]["S"]] = frozenset(_members(item))

        await _in_lanes(in_parts(dict.fromkeys(each.context for each in references), GET_ITEMS), look_up)
        return [_name(each) in found.get(each.context, ()) for each in references]

    async def remove(self, references: Sequence[Reference]) -> None:
        """See `AuditableTarget.remove`."""
        by_context: dict[str, list[Reference]] = {}
        for each in references:
            by_context.setdefault(each.context, []).append(each)
        try:
            await _in_lanes(by_context.items(), lambda item: self._remove(*item))
        except WrongTypeError:
            raise StoreUnavailableError("DynamoDB", "an item is of another type") from None

    async def forget(self, context: str) -> None:
        """See `AuditableTarget.forget`."""
        await self._table.call("delete_item", Key=_key(self._users, context))

    async def _add(self, context: str, references: Sequence[Reference]) -> None:
        if references:
            await self._update(context, references, UpdateExpression="ADD #i :r")

    async def _remove(self, context: str, references: Sequence[Reference]) -> None:
        """Where the item is not there, to remove from it would make it."""
        if not references:
            return
        with suppress(ConditionError):
            await self._update(
                context, references, UpdateExpression="DELETE #i :r", ConditionExpression="attribute_exists(#i)"
            )

    async def _update(self, context: str, references: Iterable[Reference], **expressions: str) -> None:
        await self._table.call(
            "update_item",
            Key=_key(self._users, context),
            ExpressionAttributeNames=_INCLUDED,
            ExpressionAttributeValues={":r": {"SS": list(map(_name, references))}},
            **expressions,
        )

    async def _items(self, contexts: Sequence[str]) -> list[Mapping[str, Any]]:
        """What stands at these, of those that are there."""
        asked: Mapping[str, Any] = {
            self._table.name: {
                "Keys": [_key(self._users, context) for context in contexts],
                "ProjectionExpression": "#k, #i",
                "ExpressionAttributeNames": _KEY | _INCLUDED,
                "ConsistentRead": True,
            }
        }
        found: list[Mapping[str, Any]] = []
        while asked:
            answer = await self._table.call_service("batch_get_item", RequestItems=asked)
            for items in answer["Responses"].values():
                found += items
            asked = answer.get("UnprocessedKeys") or {}
            if asked:
                self._table.pace.throttled("UnprocessedKeys")
        return found


def _key(namespace: str, key: str) -> dict[str, dict[str, str]]:
    return {"namespace": {"S": namespace}, "key": {"S": key}}


def _name(reference: Reference) -> str:
    return segment_reference(reference.segment, reference.generation)


def _members(item: Mapping[str, Any]) -> Sequence[str]:
    members: Sequence[str] = item.get("included", {}).get("SS", ())
    return members


def _folded(changes: Iterable[Change]) -> dict[str, dict[Reference, bool]]:
    """By context, whether it is in each of these in the end."""
    folded: dict[str, dict[Reference, bool]] = {}
    for segment, generation, context_key, included in changes:
        context = context_reference(context_key)
        folded.setdefault(context, {})[Reference(segment, generation, context)] = included
    return folded


async def _in_lanes(each: Iterable[T], do: Callable[[T], Awaitable[None]]) -> None:
    """All of these, some at a time. After the first error nothing new is begun; what was begun is waited for.

    A request that was cut off instead would leave its outcome in doubt.
    """
    rest = iter(each)
    errors: list[Exception] = []

    async def lane() -> None:
        try:
            for one in rest:
                if errors:
                    return
                await do(one)
        except Exception as exc:  # noqa: BLE001 - raised below
            errors.append(exc)

    async with asyncio.TaskGroup() as lanes:
        for _ in range(CONNECTIONS):
            lanes.create_task(lane())
    if errors:
        raise errors[0]
