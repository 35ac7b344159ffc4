"""Members a second of each format, decoded in memory: no Kafka, no database."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from consumers.feeds import Environments, Feed, Limits
from consumers.normalize import Normalizer
from consumers.record import Record, origin_of
from tests.benchmarks.ground import MEMBERS_A_BATCH, Ground
from tests.benchmarks.tables import console, spread, table

MEMBERS = 100_000

Make = Callable[[int], dict[str, Any]]


def _keys(number: int) -> list[str]:
    return [f"user-{number}-{place}@example.com" for place in range(MEMBERS_A_BATCH)]


def _webhook(number: int) -> dict[str, Any]:
    return {
        "cohort_name": "Bench",
        "cohort_id": "b1",
        "in_cohort": True,
        "computed_time": "1692206763",
        "users": [{"user_id": key} for key in _keys(number)],
    }


def _batch(user: str, cohort: str, name: str) -> Make:
    """One boolean at each member, which names its cohort too."""

    def make(number: int) -> dict[str, Any]:
        return {"batch": [{user: key, cohort: "b1", name: "Bench", "value": True} for key in _keys(number)]}

    return make


def _top(member: str, **others: Any) -> Make:
    """One action for all members, with the cohort at the top."""

    def make(number: int) -> dict[str, Any]:
        members = [{member: key} for key in _keys(number)]
        return {"cohortId": "b1", "cohortName": "Bench", "action": "add", "members": members, **others}

    return make


def _parameters(prefix: str, member: str, action: str, **others: Any) -> Make:
    """Mixpanel's protocol, which others speak too."""

    def make(number: int) -> dict[str, Any]:
        members = [{member: key, "first_name": "First", "email": key} for key in _keys(number)]
        cohort = {f"{prefix}_cohort_id": "b1", f"{prefix}_cohort_name": "Bench"}
        return {"action": action, "parameters": {**cohort, **others, "members": members}}

    return make


def _lists(name: str) -> Make:
    """A list to add and one to remove."""

    def make(number: int) -> dict[str, Any]:
        half = MEMBERS_A_BATCH // 2
        members = [{"id": key} for key in _keys(number)]
        return {"cohortId": "b1", "cohortName": "Bench", name: {"add": members[:half], "remove": members[half:]}}

    return make


def _heap(number: int) -> dict[str, Any]:
    half = MEMBERS_A_BATCH // 2
    members = [{"id": key} for key in _keys(number)]
    data = {"segment": {"id": 1, "name": "Bench"}, "add": members[:half], "remove": members[half:]}
    return {"parameters": {"environment_id": "production"}, "heap": {"action_type": "segment.users.sync", "data": data}}


def _heap_raw(number: int) -> dict[str, Any]:
    workspace = {"field_id": "workspace", "value": {"id": "workspace_1"}}
    return {"customer_config": {"fields": [workspace]}, **_heap(number)["heap"]}


def _identify(number: int) -> dict[str, Any]:
    return {
        "type": "identify",
        "userId": f"user-{number}@example.com",
        "timestamp": "2026-11-20T08:00:00.000Z",
        "traits": {"first_time_shopper": True},
        "context": {
            "personas": {
                "computation_class": "audience",
                "computation_id": "aud_1",
                "computation_key": "first_time_shopper",
            }
        },
    }


def _rudderstack_event(number: int) -> dict[str, Any]:
    half = MEMBERS_A_BATCH // 2
    members = [{"identifier": key} for key in _keys(number)]
    return {
        "type": "audiencelist",
        "userId": "u1",
        "properties": {"listData": {"add": members[:half], "remove": members[half:]}},
        "timestamp": "2026-11-20T08:00:00.000Z",
    }


def _mparticle(number: int) -> dict[str, Any]:
    return {
        "type": "audience_membership_change_request",
        "id": "1317071d-3342-4e1e-a691-84bd7e762bda",
        "timestamp_ms": 1_692_206_763_000,
        "user_profiles": [
            {
                "user_identities": [{"type": "customer", "encoding": "raw", "value": key}],
                "audiences": [{"audience_id": 456, "audience_name": "Bench", "action": "add"}],
                "mpid": "12345",
            }
            for key in _keys(number)
        ],
    }


SHAPES: dict[str, tuple[str, Make, int]] = {
    "amplitude": ("amplitude", _batch("userId", "cohortId", "cohortName"), MEMBERS_A_BATCH),
    "amplitude-webhook": ("amplitude-webhook", _webhook, MEMBERS_A_BATCH),
    "census-synced-segments": (
        "census-synced-segments",
        _batch("user_id", "cohort_id", "cohort_name"),
        MEMBERS_A_BATCH,
    ),
    "fulcrum": ("fulcrum", _lists("included"), MEMBERS_A_BATCH),
    "heap-inbound": ("heap-inbound", _heap, MEMBERS_A_BATCH),
    "heap-inbound, raw": ("heap-inbound", _heap_raw, MEMBERS_A_BATCH),
    "hightouch": ("hightouch", _top("integration_distinct_id"), MEMBERS_A_BATCH),
    "mixpanel": (
        "mixpanel",
        _parameters(
            *("mixpanel", "mixpanel_distinct_id", "members"),
            mixpanel_session_id="s1",
            page_info={"total_pages": 2, "page_count": 1},
        ),
        MEMBERS_A_BATCH,
    ),
    "mparticle": ("mparticle", _mparticle, MEMBERS_A_BATCH),
    "rudderstack": ("rudderstack", _lists("listData"), MEMBERS_A_BATCH),
    "rudderstack-event": ("rudderstack-event", _rudderstack_event, MEMBERS_A_BATCH),
    "segment, one event a record": ("segment", _identify, 1),
    "segment-audiences": ("segment-audiences", _batch("userId", "cohortId", "cohortName"), MEMBERS_A_BATCH),
    "sumatra-synced-segments": ("sumatra-synced-segments", _lists("included"), MEMBERS_A_BATCH),
    "tealium-synced-segments": (
        "tealium-synced-segments",
        _parameters("tealium", "member_id", "add_member"),
        MEMBERS_A_BATCH,
    ),
    "zeotap": ("zeotap", _parameters("integration", "integration_distinct_id", "members"), MEMBERS_A_BATCH),
}
"""What is measured, by what the table calls it: the format, what makes a record of it, and its members."""


async def run(_ground: Ground, rounds: int) -> None:
    rates: dict[str, list[float]] = {name: [] for name in SHAPES}
    values = {
        name: [json.dumps(make(number)).encode() for number in range(MEMBERS // size)]
        for name, (_, make, size) in SHAPES.items()
    }
    for _ in range(rounds):
        for name, (form, _, _) in SHAPES.items():
            rates[name].append(_rate(form, values[name]))
    shown = table("Decoding and normalizing, in memory", "format", "members/s")
    for name, measured in rates.items():
        shown.add_row(name, spread(measured))
    console.print(shown)


def _rate(name: str, values: list[bytes]) -> float:
    normalizer = Normalizer(environments=Environments(), limits=Limits())
    feed = Feed(name="bench", format=name, topics=("bench",), environment="production", cohort_id="b1")
    records = [Record("bench", 0, offset, 1_692_206_763_000, None, value) for offset, value in enumerate(values)]
    started = time.perf_counter()
    members = sum(
        normalizer.normalize(record, feed, arrived_ms=origin_of(record).timestamp_ms, position=record.offset).members
        for record in records
    )
    return members / (time.perf_counter() - started)
