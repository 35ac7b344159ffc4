"""Edits of segments."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import Any

import pytest

from stores.postgres.segments import Edit, SegmentView
from worker.gateway.answers import Refused
from worker.gateway.segment_patches import parse_patch

SEMANTIC = "application/json; domain-model=launchdarkly.semanticpatch"
SEGMENT = SegmentView(
    id=1,
    environment="production",
    key="amplitude-c1",
    context_kind="user",
    integration="amplitude",
    cohort_url=None,
    name="Theirs",
    description="",
    tags=["a", "b"],
    generation=1,
    included_count=0,
    created_at=datetime.now(UTC),
    last_change_at=None,
    edited_at=None,
    edits=2,
)


def applied(document: Any, content_type: str = "application/json") -> Edit:
    return parse_patch(json.dumps(document).encode(), content_type).apply(SEGMENT)


@pytest.mark.parametrize(
    ("patch", "edit"),
    [
        ([{"op": "replace", "path": "/name", "value": "Ours"}], Edit(name="Ours")),
        ([{"op": "replace", "path": "/description", "value": "x"}], Edit(description="x")),
        ([{"op": "remove", "path": "/description"}], Edit(description="")),
        ([{"op": "add", "path": "/tags/-", "value": "c"}], Edit(tags=["a", "b", "c"])),
        ([{"op": "add", "path": "/tags/0", "value": "c"}], Edit(tags=["a", "b", "c"])),
        ([{"op": "replace", "path": "/tags/0", "value": "z"}], Edit(tags=["b", "z"])),
        ([{"op": "remove", "path": "/tags/1"}], Edit(tags=["a"])),
        ([{"op": "remove", "path": "/tags"}], Edit(tags=[])),
        ([{"op": "replace", "path": "/tags", "value": ["x", "x"]}], Edit(tags=["x"])),
        ([{"op": "test", "path": "/version", "value": 3}], Edit()),
        ({"patch": [{"op": "replace", "path": "/name", "value": "Ours"}], "comment": "why"}, Edit(name="Ours")),
        ([], Edit()),
    ],
)
def test_a_json_patch_becomes_an_edit_of_what_it_names(patch: Any, edit: Edit) -> None:
    assert applied(patch) == edit


def test_a_semantic_patch_becomes_an_edit() -> None:
    instructions = [
        {"kind": "updateName", "value": "Ours"},
        {"kind": "addTags", "values": ["c", "a"]},
        {"kind": "removeTags", "values": ["b", "none"]},
    ]
    assert applied({"instructions": instructions}, SEMANTIC) == Edit(name="Ours", tags=["a", "c"])


def test_a_patch_says_which_actions_it_needs() -> None:
    patch = [{"op": "replace", "path": "/name", "value": "x"}, {"op": "add", "path": "/tags/-", "value": "x"}]

    assert parse_patch(json.dumps(patch).encode(), "").actions == ["updateName", "updateTags"]
    assert parse_patch(b"[]", "").actions == []


@pytest.mark.parametrize(
    ("patch", "status"),
    [
        ([{"op": "replace", "path": "/key", "value": "other"}], 400),
        ([{"op": "add", "path": "/included/-", "value": "u1"}], 400),
        ([{"op": "replace", "path": "/name/x", "value": "u1"}], 400),
        ([{"op": "move", "path": "/name", "from": "/description"}], 400),
        ([{"op": "replace", "path": "/name", "value": " "}], 400),
        ([{"op": "remove", "path": "/name"}], 400),
        ([{"op": "replace", "path": "/name", "value": 1}], 400),
        ([{"op": "replace", "path": "/description", "value": "a\0"}], 400),
        ([{"op": "add", "path": "/tags/-", "value": "no tag"}], 400),
        ([{"op": "replace", "path": "/tags", "value": "a"}], 400),
        ([{"op": "remove", "path": "/tags/2"}], 400),
        ([{"op": "add", "path": "/tags/4", "value": "x"}], 400),
        ([{"op": "remove", "path": "/tags/-"}], 400),
        ([{"op": "add", "path": "/description"}], 400),
        ([{"op": "test", "path": "/name"}], 400),
        ([{"op": "test", "path": "/version", "value": 2}], 409),
        ([{"op": "test", "path": "/tags/0", "value": "other"}], 409),
        ([{"op": "test", "path": "/tags/100", "value": "other"}], 409),
        ([{"op": "test", "path": "/generation", "value": 1}], 409),
        ([{"op": "replace", "path": "/name", "value": "x"}] * 1_501, 400),
        ([{"op": "add", "path": "/tags/-", "value": f"t{number}"} for number in range(101)], 400),
        ({"instructions": []}, 400),
        (42, 400),
    ],
)
def test_what_may_not_be_edited_so_is_refused(patch: Any, status: int) -> None:
    with pytest.raises(Refused) as refused:
        applied(patch)
    assert refused.value.status == status


@pytest.mark.parametrize("kind", ["addTags", "removeTags"])
def test_tags_by_the_ten_thousand_are_refused_at_once(kind: str) -> None:
    instructions = [{"kind": each, "values": [f"{each}{n}" for n in range(20_000)]} for each in ("addTags", kind)]
    began = time.process_time()
    with pytest.raises(Refused):
        applied({"instructions": instructions}, SEMANTIC)
    assert time.process_time() - began < 1


@pytest.mark.parametrize("kind", ["addBigSegmentIncludedTargets", "addIncludedTargets", "nonsense"])
def test_members_are_not_edited_by_instructions(kind: str) -> None:
    with pytest.raises(Refused):
        applied({"instructions": [{"kind": kind, "values": ["u1"]}]}, SEMANTIC)
