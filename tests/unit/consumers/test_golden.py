"""Payloads as the tools send them, beside what they mean: `tests/golden/<format>/*.json`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from consumers.errors import InvalidRecord, Reject
from consumers.feeds import Feed
from consumers.parsed import Change, Operation
from tests.builders import a_record
from tests.unit.consumers.meaning import a_normalizer

GOLDEN = Path(__file__).parents[2] / "golden"
FILES = sorted(GOLDEN.glob("*/*.json"))


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(GOLDEN)) for path in FILES])
def test_a_payload_means_what_stands_beside_it(path: Path) -> None:
    case = json.loads(path.read_text())

    assert outcome(case["payload"], Feed(name="golden", **case["feed"])) == case["expected"]


def test_every_payload_that_adds_has_a_twin_that_removes() -> None:
    adding = {path for path in FILES if any(change.get("included") for change in changes_in(path))}
    twins = {path.with_stem(f"{path.stem}-removal") for path in adding if not path.stem.endswith("-removal")}

    assert {path for path in twins if not path.exists()} == {
        GOLDEN / "amplitude" / "bad-members-removal.json",  # adds and removes itself
        GOLDEN / "segment" / "journeys-v2-removal.json",  # such a journey never removes
    }


def changes_in(path: Path) -> list[dict[str, Any]]:
    expected = json.loads(path.read_text())["expected"]
    return expected.get("members", []) if isinstance(expected, dict) else []


def outcome(payload: object, feed: Feed) -> dict[str, Any]:
    """What `Normalizer.parse` makes of it, as JSON."""
    try:
        parsed = a_normalizer().parse(a_record(json.dumps(payload).encode()), feed)
    except InvalidRecord as problem:
        return {"invalid": problem.reason, "detail": problem.detail}
    if parsed.ignored is not None:
        return {"ignored": parsed.ignored}
    return {
        "environment": parsed.environment,
        "context_kind": parsed.context_kind,
        "members": [member(item) for item in parsed.in_order()],
    }


def member(item: Operation | Change | Reject) -> dict[str, Any]:
    if isinstance(item, Operation):
        said = {"operation": item.name, "cohort_id": item.cohort.cohort_id, "cohort_name": item.cohort.name}
        return said | (msgspec.structs.asdict(item.page) if item.page else {})
    if isinstance(item, Reject):
        return {"place": item.place, "rejected": item.reason, "detail": item.detail}
    return {
        "place": item.place,
        "segment": item.segment_key,
        "cohort_id": item.cohort.cohort_id,
        "cohort_name": item.cohort.name,
        "cohort_url": item.cohort.url,
        "context_key": item.context_key,
        "included": item.included,
        "event_time_us": item.event_time_us,
    }
