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

MEMBERS = 200_000


def _webhook(number: int) -> dict[str, Any]:
    return {
        "cohort_name": "Bench",
        "cohort_id": "b1",
        "in_cohort": True,
        "computed_time": "1692206763",
        "users": [{"user_id": f"user-{number}-{place}@example.com"} for place in range(MEMBERS_A_BATCH)],
    }


def _amplitude(number: int) -> dict[str, Any]:
    return {
        "environmentId": "production",
        "batch": [
            {"userId": f"user-{number}-{place}@example.com", "cohortId": "b1", "cohortName": "Bench", "value": True}
            for place in range(MEMBERS_A_BATCH)
        ],
    }


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


FORMATS: dict[str, tuple[Callable[[int], dict[str, Any]], int]] = {
    "amplitude-webhook": (_webhook, MEMBERS_A_BATCH),
    "amplitude": (_amplitude, MEMBERS_A_BATCH),
    "segment": (_identify, 1),
}


async def run(_ground: Ground, rounds: int) -> None:
    rates: dict[str, list[float]] = {name: [] for name in FORMATS}
    values = {
        name: [json.dumps(make(number)).encode() for number in range(MEMBERS // size)]
        for name, (make, size) in FORMATS.items()
    }
    for _ in range(rounds):
        for name in FORMATS:
            rates[name].append(_rate(name, values[name]))
    shown = table("Decoding and normalizing, in memory", "format", "members/s")
    for name, measured in rates.items():
        shown.add_row(name, spread(measured))
    console.print(shown)


def _rate(name: str, values: list[bytes]) -> float:
    normalizer = Normalizer(environments=Environments(), limits=Limits())
    feed = Feed(name="bench", format=name, topics=("bench",), environment="production")
    records = [Record("bench", 0, offset, 1_692_206_763_000, None, value) for offset, value in enumerate(values)]
    started = time.perf_counter()
    members = sum(
        normalizer.normalize(record, feed, arrived_ms=origin_of(record).timestamp_ms, position=record.offset).members
        for record in records
    )
    return members / (time.perf_counter() - started)
