"""Payloads of the other manifest formats (`test_request_parser.py` has Amplitude's). Numbers: rows of domain.md 2.2.

Rows 31, 32 and 36 are about what LaunchDarkly's endpoint answers: here they are tried as far as records go, since
answers come with the gateway.
"""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from consumers.errors import InvalidRecord, Reject
from consumers.feeds import Environments, Limits
from consumers.formats import Formats
from consumers.manifest import load
from consumers.rules import Rules
from tests.unit.consumers.meaning import a_feed, as_json, meaning, normalized, rejects
from tests.unit.consumers.tools import (
    ADDING,
    AMPLITUDE,
    AUDIENCES,
    BY_LIST,
    CENSUS,
    HEAP,
    HIGHTOUCH,
    KINDS,
    MIXPANEL,
    NOTHING,
    RAW_HEAP,
    TEALIUM,
    ZEOTAP,
    audience,
    batch,
    census,
    format_of,
    heap,
    hightouch,
    known,
    mixpanel,
    raw_heap,
    tealium,
    without,
    zeotap,
)
from worker.commands.parse_outcome import JsonLines
from worker.gateway.templates import Template

Row = tuple[str, str, Any, list[str]]

RULES = Rules(limits=Limits(), environments=Environments())

NO_ACTIONS_OF_HEAP: tuple[object, ...] = ("segment.users.delete", "", "drain", ["segment.users.drain"], 0, True, {})
NO_LISTS: tuple[object, ...] = ("", "u1", {}, 0, False, 1.5)


def rows_by_value(tool: str, member: Callable[..., dict[str, object]]) -> list[Row]:
    key, cohort_field = f"{tool}-c1", next(name for name in member() if name.startswith("cohort"))
    u2, to_u2 = member("u2"), f"+u2 {tool}-c1"
    return [
        (f"1-false-removes-{tool}", tool, batch(member(value=False)), [f"-u1 {key}"]),
        (f"2-true-and-false-{tool}", tool, batch(member(value=False), u2), [f"-u1 {key}", to_u2]),
        (f"3-zero-removes-{tool}", tool, batch(member(value=0)), [f"-u1 {key}"]),
        (f"3-null-is-no-value-{tool}", tool, batch(member(value=None), u2), ["0: value_missing", to_u2]),
        (f"4-text-removes-{tool}", tool, batch(member(value="False"), u2), [f"-u1 {key}", to_u2]),
        (f"4-other-text-does-not-{tool}", tool, batch(member(value="no"), u2), ["0: value_invalid", to_u2]),
        (f"5-one-adds-{tool}", tool, batch(member(value=1)), [f"+u1 {key}"]),
        (f"6-an-integer-{tool}", tool, batch(member(2**53 + 1)), [f"+9007199254740993 {key}"]),
        (f"6-a-float-{tool}", tool, batch(member(42.0), u2), ["0: context_key_invalid", to_u2]),
        (f"7-zero-{tool}", tool, batch(member(0)), [f"+0 {key}"]),
        (f"8-an-object-{tool}", tool, batch(member({"a": 1}), u2), ["0: context_key_invalid", to_u2]),
        (f"9-blank-{tool}", tool, batch(member("  "), u2), ["0: context_key_blank", to_u2]),
        (f"10-an-empty-batch-{tool}", tool, batch(), ["ignored: no_members"]),
        (f"11-an-object-{tool}", tool, {"batch": {"0": member()}}, ["invalid: member_list_invalid"]),
        (f"12-text-and-null-{tool}", tool, batch("u1", None, u2), ["0: member_invalid", "1: member_invalid", to_u2]),
        (f"13-two-cohorts-{tool}", tool, batch(member(**{cohort_field: "c2"}), u2), [f"+u1 {tool}-c2", to_u2]),
        (f"18-no-batch-{tool}", tool, {}, ["invalid: no_members_field"]),
        (f"19-in-and-out-{tool}", tool, batch(member(), member(value=False)), [f"-u1 {key}"]),
    ]


def rows_by_list(tool: str, payload: Callable[..., dict[str, object]]) -> list[Row]:
    name = format_of(tool)
    key = f"{name}-c1"
    return [
        (f"6-integers-{tool}", name, payload(add=[42, 0], remove=[-1]), [f"+42 {key}", f"+0 {key}", f"--1 {key}"]),
        (f"12-no-object-{tool}", name, payload(add=[None, "u2"]), ["0: member_invalid", f"+u2 {key}"]),
        (f"17-nobody-{tool}", name, payload(add=[], remove=[]), ["ignored: no_members"]),
        (f"17-nobody-of-no-cohort-{tool}", name, payload(None, add=[], remove=[]), ["ignored: no_members"]),
        (f"18-no-lists-{tool}", name, payload(), ["invalid: no_members_field"]),
        (f"18-nothing-at-all-{tool}", name, {}, ["invalid: no_members_field"]),
        (f"18-only-one-list-{tool}", name, payload(remove=["u1"]), [f"-u1 {key}"]),
        (f"19-in-and-out-{tool}", name, payload(add=["u1"], remove=["u1"]), [f"-u1 {key}"]),
        (f"19-out-and-in-{tool}", name, payload(remove=["u1"], add=["u1"]), [f"-u1 {key}"]),
        (f"20-null-is-empty-{tool}", name, payload(add=None, remove=["u1"]), [f"-u1 {key}"]),
        (f"20-two-nulls-{tool}", name, payload(add=None, remove=None), ["ignored: no_members"]),
        *[
            (
                f"20-{odd!r}-is-no-list-{tool}",
                name,
                payload(add=odd, remove=["u1"]),
                ["None: member_list_invalid", f"-u1 {key}"],
            )
            for odd in NO_LISTS
        ],
        (f"20-no-list-alone-{tool}", name, payload(remove="u1"), ["None: member_list_invalid"]),
        (f"20-no-list-of-two-{tool}", name, payload(add="", remove={}), ["None: member_list_invalid"] * 2),
    ]


def rows_by_action(tool: str, payload: Callable[..., Any], adds: str, removes: str) -> list[Row]:
    key = f"{tool}-c1"
    unknown = ["invalid: unknown_action"]
    return [
        (f"21-{adds}-{tool}", tool, payload("u1", "u2"), [f"+u1 {key}", f"+u2 {key}"]),
        (f"22-{removes}-{tool}", tool, payload("u1", "u2", action=removes), [f"-u1 {key}", f"-u2 {key}"]),
        *[
            (f"23-{word!r}-{tool}", tool, payload("u1", action=word), unknown)
            for word in ("drop", "", "upsert", "drain")
        ],
        *[
            (f"24-{word!r}-{tool}", tool, payload("u1", action=word), unknown)
            for word in (
                f"{adds}ed",
                f"{adds}|{removes}",
                f"no {removes}",
                removes[:-1],
                removes.replace("_", " ") + "s",
            )
        ],
        *[
            (
                f"{33 if tool == HIGHTOUCH else 25}-{word!r}-{tool}",
                tool,
                payload("u1", action=word),
                [f"{sign}u1 {key}"],
            )
            for sign, usual in (("+", adds), ("-", removes))
            for word in (usual.upper(), usual.title(), f" {usual}", f"{usual} \n")
        ],
        *[
            (f"26-{'nothing' if odd is NOTHING else repr(odd)}-{tool}", tool, payload("u1", action=odd), unknown)
            for odd in ([adds], {"action": adds}, True, 1, None, NOTHING)
        ],
        (f"12-no-object-{tool}", tool, payload(None, "u2"), ["0: member_invalid", f"+u2 {key}"]),
        (f"19-twice-{tool}", tool, payload("u1", "u1"), [f"+u1 {key}"]),
        (f"18-no-list-{tool}", tool, payload(members=NOTHING), ["invalid: no_members_field"]),
        (f"20-null-is-empty-{tool}", tool, payload(members=None), ["ignored: no_members"]),
        *[
            (f"20-{odd!r}-is-no-list-{tool}", tool, payload(members=odd), ["invalid: member_list_invalid"])
            for odd in NO_LISTS
        ],
        (f"28-nobody-joins-{tool}", tool, payload(), ["ignored: no_members"]),
        (f"28-nobody-leaves-{tool}", tool, payload(action=removes), ["ignored: no_members"]),
        (f"28-nobody-does-anything-unknown-{tool}", tool, payload(action="drop"), unknown),
    ]


NO_COHORT = ["invalid: cohort_id_missing"]
DRAINED = ["drain heap-inbound-c1"]

ROWS: list[Row] = [
    *rows_by_value(CENSUS, census),
    *rows_by_value(AUDIENCES, audience),
    *[row for tool, payload in BY_LIST for row in rows_by_list(tool, payload)],
    *rows_by_action(HIGHTOUCH, hightouch, "add", "remove"),
    *rows_by_action(TEALIUM, tealium, "add_member", "remove_member"),
    *rows_by_action(ZEOTAP, zeotap, "add_members", "remove_members"),
    *rows_by_action(MIXPANEL, mixpanel, "add_members", "remove_members"),
    *[
        row
        for tool, payload in ADDING.items()
        for row in (
            (f"14-cohort-zero-{tool}", format_of(tool), payload(0, "u1"), [f"+u1 {format_of(tool)}-0"]),
            (
                f"14-no-cohort-{tool}",
                format_of(tool),
                payload(None, "u1"),
                ["0: cohort_id_missing"] if tool in (AMPLITUDE, CENSUS, AUDIENCES) else NO_COHORT,
            ),
            (
                f"30-a-numeric-cohort-{tool}",
                format_of(tool),
                payload(1338065, "u1"),
                [f"+u1 {format_of(tool)}-1338065"],
            ),
        )
    ],
    *[
        (
            f"15-{kind!r}-is-no-kind-{tool}",
            tool,
            ADDING[tool]("c1", "u1") | {field: kind},
            ["invalid: context_kind_invalid"],
        )
        for tool, field in KINDS.items()
        for kind in ("my kind!", {"kind": "user"}, ["user"], 42, True, "kind", "multi")
    ],
    *[
        (
            f"27-members-replaces-{tool}",
            tool,
            payload("u1", action=word),
            [f"replace {tool}-c1 None 1/?", f"+u1 {tool}-c1"],
        )
        for tool, payload in ((ZEOTAP, zeotap), (MIXPANEL, mixpanel))
        for word in ("members", " Members")
    ],
    (
        "27-a-session-zeotap",
        ZEOTAP,
        zeotap("u1", action="members", integration_session_id="s1"),
        ["replace zeotap-c1 s1 1/?", "+u1 zeotap-c1"],
    ),
    (
        "27-a-page-mixpanel",
        MIXPANEL,
        mixpanel("u1", action="members", mixpanel_session_id="s1", page_info={"total_pages": 10, "page_count": 6}),
        ["replace mixpanel-c1 s1 6/10", "+u1 mixpanel-c1"],
    ),
    ("28-members-nobody-zeotap", ZEOTAP, zeotap(action="members"), ["replace zeotap-c1 None 1/?"]),
    ("28-members-nobody-mixpanel", MIXPANEL, mixpanel(action="members"), ["replace mixpanel-c1 None 1/?"]),
    *[
        row
        for tool, payload in ((HEAP, heap), (RAW_HEAP, raw_heap))
        for row in (
            (f"29-a-drain-{tool}", HEAP, payload(action="segment.users.drain"), DRAINED),
            (f"29-a-drain-has-no-deltas-{tool}", HEAP, payload(action="segment.users.drain", add=["u1"]), DRAINED),
            (f"29-a-drain-reads-no-lists-{tool}", HEAP, payload(action="segment.users.drain", add="u1"), DRAINED),
            (f"29-any-case-{tool}", HEAP, payload(action=" Segment.Users.DRAIN"), DRAINED),
            (f"29-a-drain-of-none-{tool}", HEAP, payload(None, action="segment.users.drain"), NO_COHORT),
            (
                f"29-a-drain-of-nonsense-{tool}",
                HEAP,
                payload({}, action="segment.users.drain"),
                ["invalid: cohort_id_invalid"],
            ),
            *[
                (f"29-{odd!r}-{tool}", HEAP, payload(action=odd, add=["u1"]), ["invalid: unknown_action"])
                for odd in NO_ACTIONS_OF_HEAP
            ],
            (f"29-unknown-without-lists-{tool}", HEAP, payload(action="segment.users.x"), ["invalid: unknown_action"]),
            (
                f"29-null-lets-the-lists-speak-{tool}",
                HEAP,
                payload(action=None, remove=["u1"]),
                ["-u1 heap-inbound-c1"],
            ),
        )
    ],
    (
        "29-no-action-lets-the-lists-speak-heap",
        HEAP,
        {"heap": without(raw_heap(add=["u1"], remove=["u2"]), "action_type")},
        ["+u1 heap-inbound-c1", "-u2 heap-inbound-c1"],
    ),
    (
        "29-no-action-lets-the-lists-speak-raw",
        HEAP,
        without(raw_heap(add=["u1"], remove=["u2"]), "action_type"),
        ["+u1 heap-inbound-c1", "-u2 heap-inbound-c1"],
    ),
    ("29-no-action-and-no-lists", HEAP, without(raw_heap(), "action_type"), ["invalid: no_members_field"]),
]


@pytest.mark.parametrize(
    ("integration", "payload", "expected"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS]
)
def test_a_payload_means_what_domain_2_2_calls_correct(integration: str, payload: object, expected: list[str]) -> None:
    assert meaning(payload, format=integration) == expected


@pytest.mark.parametrize("kind", ["", None, NOTHING])
@pytest.mark.parametrize("tool", ADDING)
def test_16_where_a_payload_names_no_kind_it_is_the_feeds(tool: str, kind: object) -> None:
    payload = known(ADDING[tool]("c1", "u1") | {KINDS.get(tool, "no kind"): kind})

    (group,) = normalized(payload, format=format_of(tool)).groups
    (of_feed,) = normalized(payload, format=format_of(tool), context_kind="device").groups

    assert (group.context_kind, of_feed.context_kind) == ("user", "device")


@pytest.mark.parametrize(("tool", "field"), KINDS.items())
def test_16_a_payload_names_its_kind(tool: str, field: str) -> None:
    (group,) = normalized(ADDING[tool]("c1", "u1") | {field: "device"}, format=tool, context_kind="other").groups

    assert group.context_kind == "device"


@pytest.mark.parametrize(("tool", "payload"), BY_LIST)
def test_19_a_member_that_joins_and_leaves_is_counted(tool: str, payload: Callable[..., object]) -> None:
    result = normalized(payload(add=["u1", "u2"], remove=["u2", "u1"]), format=format_of(tool))

    assert result.conflicts == 2
    assert [(group.included, list(group.places)) for group in result.groups] == [(False, [2, 3])]


@pytest.mark.parametrize(("tool", "payload"), BY_LIST)
def test_20_places_count_through_both_lists(tool: str, payload: Callable[..., object]) -> None:
    result = rejects(payload(add=["u1", None], remove=[{}, "u2", "u3", ""]), format=format_of(tool))

    assert list(result) == [1, 2, 5]
    assert result[1].endswith("/add/1: it is not an object")
    assert result[2].endswith("/remove/0/id is missing")


@pytest.mark.parametrize("tool", ADDING)
def test_34_the_key_has_the_integrations_own_case(tool: str) -> None:
    payload = ADDING[tool]("c1", "u1")

    assert meaning(payload, format=format_of(tool).upper()) == [f"+u1 {format_of(tool)}-c1"]


@pytest.mark.parametrize("tool", ADDING)
def test_35_ten_thousand_members_are_read(tool: str) -> None:
    ids = [f"user-{number}@example.com" for number in range(10_000)]

    (group,) = normalized(ADDING[tool]("c1", *ids), format=format_of(tool)).groups
    one_bad = normalized(ADDING[tool]("c1", *ids, None), format=format_of(tool))

    assert list(group.context_keys) == ids
    assert [len(group) for group in one_bad.groups] == [10_000]
    assert [reject.place for reject in one_bad.rejects] == [10_000]


@pytest.mark.parametrize("tool", ADDING)
def test_37_what_is_odd_about_json(tool: str) -> None:
    value = as_json(ADDING[tool]("c1", "u1"))
    other = as_json(ADDING[tool]("c2", "u2"))
    added = [f"+u1 {format_of(tool)}-c1"]

    def says(odd: bytes) -> list[str]:
        return meaning(odd, format=format_of(tool))

    assert says(b"\xef\xbb\xbf" + value) == added
    assert says(other[:-1] + b"," + value[1:]) == added, "of two equal keys the last holds"
    assert says(value[:-1] + b',"n":NaN}') == ["invalid: json_invalid"]
    assert says(gzip.compress(value)) == ["invalid: json_invalid"]
    assert says(value + value) == ["invalid: json_invalid"]
    assert says(json.dumps(json.loads(value), indent=2).encode()) == added


def test_31_a_cohort_keeps_its_special_characters() -> None:
    payload = {
        "action_type": "segment.users.sync",
        "data": {"segment": {"id": "a&b\"'", "name": "<A&B>"}, "add": [{"id": "u"}]},
    }

    (group,) = normalized(payload, format="heap-inbound").groups

    assert (group.cohort.cohort_id, group.cohort.name) == ("a&b\"'", "<A&B>")
    assert "&amp;" not in group.segment.key


def test_32_what_is_wrong_is_told_by_a_serializer_whatever_is_in_it(tmp_path: Path) -> None:
    paths = {"environmentIdPath": "/e", "cohortIdPath": '/"co\\hort', "cohortNamePath": "/n", "memberArrayPath": "/m"}
    parser = {**paths, "memberArrayParser": {"memberIdPath": "/id", "booleanMembershipPath": "/in"}}
    manifest = tmp_path / "quoted.json"
    manifest.write_text(json.dumps({"capabilities": {"syncedSegment": {"requestParser": parser}}}))
    output = io.BytesIO()
    lines = JsonLines(output)
    try:
        load(manifest).parse(as_json({"m": [{"id": "u", "in": True}]}), a_feed(format="quoted"), RULES)
    except InvalidRecord as problem:
        lines.reject(0, Reject(None, problem.reason, problem.detail))
    lines.finish()

    assert json.loads(output.getvalue())["detail"] == '/"co\\hort is missing'


def test_36_only_heap_is_answered_with_a_body() -> None:
    formats = Formats()
    bodies = {name: getattr(formats.find(name), "response_body", None) for name in formats.names()}

    assert {name for name, body in bodies.items() if body} == {"heap-inbound"}
    template = Template(str(bodies["heap-inbound"]))
    assert template.render({"segmentKey": "heap-inbound-1338065"}) == {
        **dict.fromkeys(("projectId", "environmentId", "segmentUrl"), ""),
        "segmentId": "heap-inbound-1338065",
        "status": "success",
    }
    failed = template.render({"errorMessage": "no", "statusCode": 400})
    assert isinstance(failed, dict)
    assert failed["error"] == {"message": "no", "code": 400}
