"""The official LaunchDarkly Python SDK, as an application uses it: flag data from a file, memberships from a store."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ldclient import Config, Context, LDClient
from ldclient.config import BigSegmentsConfig
from ldclient.integrations import DynamoDB, Files, Redis
from ldclient.interfaces import BigSegmentStore

STALE_AFTER_S = 120


class Sdk:
    """Evaluates flags."""

    def __init__(self, client: LDClient) -> None:
        self._client = client

    def is_in(self, segment: str, key: str, kind: str = "user") -> bool:
        """Whether the flag on this segment is on for the context."""
        return bool(self._client.variation(f"flag-{segment}", Context.builder(key).kind(kind).build(), default=False))

    def status_of(self, segment: str, key: str) -> str:
        """What the evaluation says of the store: HEALTHY, STALE, STORE_ERROR or NOT_CONFIGURED."""
        detail = self._client.variation_detail(f"flag-{segment}", Context.create(key), default=False)
        return str(detail.reason.get("bigSegmentsStatus"))


def redis_store(url: str, *, prefix: str) -> BigSegmentStore:
    """The SDK's own reader of a target in Redis."""
    store: BigSegmentStore = Redis.new_big_segment_store(url=url, prefix=prefix)
    return store


def dynamodb_store(table: str, *, region: str, endpoint_url: str, prefix: str | None = None) -> BigSegmentStore:
    """The SDK's own reader of a target in DynamoDB."""
    options = {"region_name": region, "endpoint_url": endpoint_url}
    store: BigSegmentStore = DynamoDB.new_big_segment_store(table, prefix=prefix, dynamodb_opts=options)
    return store


@contextmanager
def sdk(
    data: dict[str, Any], store: BigSegmentStore, folder: Path, *, stale_after_s: float = STALE_AFTER_S
) -> Iterator[Sdk]:
    """An SDK with a flag for each segment of `cohort-sync sdk-data`. It remembers nobody, so it sees each change."""
    file = folder / "sdk-data.json"
    file.write_text(
        json.dumps({**data, "flags": {f"flag-{key}": _flag(segment) for key, segment in data["segments"].items()}})
    )
    big_segments = BigSegmentsConfig(
        store=store, context_cache_size=1, context_cache_time=0.01, status_poll_interval=0.1, stale_after=stale_after_s
    )
    config = Config(
        "sdk-key",
        update_processor_class=Files.new_data_source(paths=[str(file)]),
        send_events=False,
        diagnostic_opt_out=True,
        big_segments=big_segments,
    )
    client = LDClient(config)
    try:
        if not client.is_initialized():
            message = "the SDK did not read its data file"
            raise RuntimeError(message)
        yield Sdk(client)
    finally:
        client.close()  # type: ignore[no-untyped-call]


def _flag(segment: dict[str, Any]) -> dict[str, Any]:
    clause = {
        "contextKind": segment["unboundedContextKind"],
        "attribute": "",
        "op": "segmentMatch",
        "values": [segment["key"]],
    }
    return {
        "key": f"flag-{segment['key']}",
        "version": 1,
        "on": True,
        "variations": [True, False],
        "fallthrough": {"variation": 1},
        "offVariation": 1,
        "rules": [{"id": "members", "variation": 0, "clauses": [clause]}],
        "prerequisites": [],
        "targets": [],
        "salt": "",
        "deleted": False,
    }
