from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from consumers.feeds import Environments, Limits
from consumers.formats import Formats, known_integrations
from consumers.manifest import ManifestError, load
from consumers.normalize import Normalizer
from tests.unit.consumers.meaning import meaning, normalized

PARSER: dict[str, Any] = {
    "environmentIdPath": "/environment_id",
    "contextKindPath": "/context_kind",
    "cohortIdPath": "/batch/0/cohort_id",
    "cohortNamePath": "/batch/0/cohort_name",
    "memberArrayPath": "/batch",
    "memberArrayParser": {"memberIdPath": "/user_id", "booleanMembershipPath": "/value", "cohortIdPath": "/cohort_id"},
}
WHERE = "/capabilities/syncedSegment/requestParser"
BOOLEAN = f"{WHERE}/memberArrayParser/booleanMembershipPath"
COMMON: dict[str, Any] = {
    "environmentIdPath": "/environment_id",
    "cohortIdPath": "/cohort_id",
    "cohortNamePath": "/cohort_name",
    "memberArrayParser": {"memberIdPath": "/id"},
}
LISTS: dict[str, Any] = {**COMMON, "addMemberArrayPath": "/in", "removeMemberArrayPath": "/out"}
MATCHER = {"path": "/action", "matcher": "^(add|join)$"}
ACTION: dict[str, Any] = {**COMMON, "memberArrayPath": "/members", "arrayInclusion": MATCHER}
WORDS: dict[str, Any] = {**COMMON, "memberArrayPath": "/members"}
REPLACING = {"cohortSync": {"actionPath": "/action", "actions": {"a": "replace"}}}


def manifest(parser: dict[str, Any] = PARSER, **others: Any) -> dict[str, Any]:
    return {"name": "Any", "capabilities": {"syncedSegment": {"requestParser": parser, **others}}}


def member_parser(**changes: Any) -> dict[str, Any]:
    merged = {**PARSER["memberArrayParser"], **changes}
    return {**PARSER, "memberArrayParser": {name: path for name, path in merged.items() if path is not None}}


@pytest.fixture
def normalizer_of(tmp_path: Path) -> Any:
    def make(content: Any) -> Normalizer:
        path = tmp_path / "census.json"
        path.write_text(json.dumps(content))
        return Normalizer(environments=Environments(), limits=Limits(), formats=Formats([path]))

    return make


def test_a_manifest_of_launchdarkly_works_as_it_is(normalizer_of: Any) -> None:
    payload = {
        "environment_id": "production",
        "context_kind": "device",
        "batch": [{"user_id": 1, "cohort_id": "c", "value": True}, {"user_id": 2, "cohort_id": "c", "value": False}],
    }
    content = manifest(jsonResponseBody="{}") | {"version": "1.0.0", "otherCapabilities": ["synced-segments"]}

    result = normalized(payload, normalizer_of(content), format="Census")

    assert [(g.segment.key, g.context_kind, g.included, list(g.context_keys)) for g in result.groups] == [
        ("census-c", "device", True, ["1"]),
        ("census-c", "device", False, ["2"]),
    ]


@pytest.mark.parametrize("kind", ["my kind!", "kind", "multi", 42, {}, ["user"], "é"])
def test_a_context_kind_that_no_sdk_accepts_is_refused(kind: object, normalizer_of: Any) -> None:
    payload = {"context_kind": kind, "batch": [{"user_id": "u", "cohort_id": "c", "value": True}]}

    assert meaning(payload, normalizer_of(manifest()), format="census") == ["invalid: context_kind_invalid"]


@pytest.mark.parametrize("kind", ["", None])
def test_a_context_kind_that_is_empty_is_the_feeds(kind: object, normalizer_of: Any) -> None:
    payload = {"context_kind": kind, "batch": [{"user_id": "u", "cohort_id": "c", "value": True}]}

    (group,) = normalized(payload, normalizer_of(manifest()), format="census", context_kind="account").groups

    assert group.context_kind == "account"


def test_pointers_may_lead_deep_and_have_escapes(normalizer_of: Any) -> None:
    parser = {
        "environmentIdPath": "/a~1b/env",
        "cohortIdPath": "/heap/data/0/id",
        "cohortNamePath": "/heap/name.x",
        "memberArrayPath": "/heap/list",
        "memberArrayParser": {"memberIdPath": "/m~0/id", "booleanMembershipPath": "/m~0/in"},
    }
    payload = {
        "a/b": {"env": "production"},
        "heap": {"data": [{"id": 7}], "name.x": "Seven", "list": [{"m~": {"id": "u", "in": True}}, {"m~": 3}]},
    }

    result = normalized(payload, normalizer_of(manifest(parser)), format="census")

    assert [(group.cohort.cohort_id, group.cohort.name) for group in result.groups] == [("7", "Seven")]
    assert [(reject.place, reject.detail) for reject in result.rejects] == [(1, "/heap/list/1/m~0/id is missing")]


def test_without_a_pointer_to_a_members_cohort_the_records_must_be_good(normalizer_of: Any) -> None:
    normalizer = normalizer_of(manifest(member_parser(cohortIdPath=None)))
    payload = {"batch": [{"user_id": "u", "value": True}]}

    assert meaning(payload, normalizer, format="census") == ["invalid: cohort_id_missing"]


def test_a_pointer_to_a_member_as_a_whole_is_followed(normalizer_of: Any) -> None:
    normalizer = normalizer_of(manifest({**PARSER, "cohortIdPath": "/batch/0"}))
    payload = {"batch": [{"user_id": "u", "value": True, "cohort_id": "c"}, {"user_id": "v", "value": True}]}

    assert meaning(payload, normalizer, format="census") == ["+u census-c", "1: cohort_id_invalid"]


def test_pointers_that_no_type_can_follow_are_followed_one_by_one(normalizer_of: Any) -> None:
    normalizer = normalizer_of(
        manifest({**PARSER, "cohortIdPath": "/batch/1/cohort_id"} | {"cohortNamePath": "/batch"})
    )
    payload = {"batch": [{"user_id": "u", "value": True}, {"user_id": "v", "value": True, "cohort_id": "c"}]}

    assert meaning(payload, normalizer, format="census") == ["+u census-c", "+v census-c"]


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        ("add", ["+u census-c"]),
        ("join", ["+u census-c"]),
        ("remove", ["-u census-c"]),
        ("ADD", ["-u census-c"]),
        ("added", ["-u census-c"]),
        ("", ["-u census-c"]),
        (None, ["invalid: unknown_action"]),
        (["add"], ["invalid: unknown_action"]),
        ({}, ["invalid: unknown_action"]),
        (True, ["invalid: unknown_action"]),
        (1, ["invalid: unknown_action"]),
    ],
)
def test_what_a_matcher_matches_adds_and_any_other_text_removes(
    action: object, expected: list[str], normalizer_of: Any
) -> None:
    payload = {"action": action, "cohort_id": "c", "members": [{"id": "u"}]}

    assert meaning(payload, normalizer_of(manifest(ACTION)), format="census") == expected


def test_a_matcher_without_an_action_to_match_removes_nobody(normalizer_of: Any) -> None:
    payload = {"cohort_id": "c", "members": [{"id": "u"}]}

    assert meaning(payload, normalizer_of(manifest(ACTION)), format="census") == ["invalid: unknown_action"]


def test_a_matcher_is_followed_also_where_it_means_everything(normalizer_of: Any) -> None:
    """LaunchDarkly's own definition for Tealium has this mistake; ours, which says the words, is in `integrations/`."""
    content = manifest({**ACTION, "arrayInclusion": {"path": "/action", "matcher": "^(add_member|remove_member)$"}})
    payload = {"action": "remove_member", "cohort_id": "c", "members": [{"id": "u"}]}

    assert meaning(payload, normalizer_of(content), format="census") == ["+u census-c"]


def test_a_users_own_words_are_a_closed_set(normalizer_of: Any) -> None:
    words = {"in": "add", "out": "remove", "all": "replace", "none": "drain"}
    content = manifest({**WORDS, "cohortSync": {"actionPath": "/action", "actions": words}})
    normalizer = normalizer_of(content)

    def says(action: object) -> list[str]:
        payload = {"action": action, "cohort_id": "c", "members": [{"id": "u"}]}
        return meaning(payload, normalizer, format="census")

    assert says(" In ") == ["+u census-c"]
    assert says("out") == ["-u census-c"]
    assert says("all") == ["replace census-c None 1/?", "+u census-c"]
    assert says("none") == ["drain census-c"]
    assert says("no") == ["invalid: unknown_action"]


@pytest.mark.parametrize("members", ["u", [], [{"id": "u"}], [{"id": "u"}, None]])
def test_of_two_problems_a_drain_has_the_same_one_whatever_it_lists(members: object, normalizer_of: Any) -> None:
    sync = {"actionPath": "/action", "actions": {"none": "drain"}}
    content = manifest({**WORDS, "contextKindPath": "/kind", "cohortSync": sync})

    payload = {"action": "none", "kind": "my kind!", "members": members}

    assert meaning(payload, normalizer_of(content), format="census") == ["invalid: cohort_id_missing"]


@pytest.mark.parametrize(
    ("content", "where", "what"),
    [
        ({}, "/capabilities", "Field required"),
        ([], "the file", "object"),
        ({"capabilities": {}}, "/capabilities/syncedSegment", "Field required"),
        (manifest({**PARSER, "environmentIdPath": "environment"}), f"{WHERE}/environmentIdPath", "no JSON pointer"),
        (manifest({**PARSER, "environmentIdPath": "/a~2"}), f"{WHERE}/environmentIdPath", "no JSON pointer"),
        (manifest({**PARSER, "memberArrayPath": ""}), f"{WHERE}/memberArrayPath", "within the document"),
        (manifest({**PARSER, "cohortIdPath": 3}), f"{WHERE}/cohortIdPath", "must be a JSON pointer"),
        (manifest({**PARSER, "memberPath": "/m"}), f"{WHERE}/memberPath", "not permitted"),
        (manifest(member_parser(inversePath="/x")), f"{WHERE}/memberArrayParser/inversePath", "not permitted"),
        (manifest(member_parser(booleanMembershipPath=None)), f"{BOOLEAN}:", "is missing"),
        (manifest({**LISTS, "addMemberArrayPath": None}), f"{WHERE}/addMemberArrayPath", "is missing"),
        (manifest({**LISTS, "removeMemberArrayPath": None}), f"{WHERE}/removeMemberArrayPath", "is missing"),
        (manifest({**LISTS, "removeMemberArrayPath": "/in"}), f"{WHERE}/removeMemberArrayPath", "the list to add"),
        (manifest({**LISTS, "memberArrayPath": "/all"}), f"{WHERE}/memberArrayPath", "no meaning"),
        (manifest({**LISTS, "arrayInclusion": MATCHER}), f"{WHERE}/arrayInclusion", "no meaning"),
        (manifest({**PARSER, "arrayInclusion": MATCHER}), f"{WHERE}/arrayInclusion", "no meaning"),
        (manifest({**ACTION, "arrayInclusion": {"path": "/a"}}), f"{WHERE}/arrayInclusion/matcher", "required"),
        (manifest({**ACTION, "arrayInclusion": {"path": "/a", "matcher": "(a"}}), "/arrayInclusion/matcher", "RE2"),
        (manifest({**ACTION, "arrayInclusion": {"path": "/a", "matcher": "(?=a)"}}), "/arrayInclusion/matcher", "RE2"),
        (manifest({**ACTION, "arrayInclusion": {"path": "/a", "matcher": ""}}), "/arrayInclusion/matcher", "every"),
        (
            manifest({**ACTION, "arrayInclusion": {"path": "a", "matcher": "a"}}),
            "/arrayInclusion/path",
            "no JSON pointer",
        ),
        (manifest({**PARSER, "memberArrayPath": None}), f"{WHERE}/memberArrayPath", "is missing"),
        (manifest({**WORDS, "cohortSync": {"actions": {"a": "add"}}}), f"{WHERE}/cohortSync/actionPath", "is missing"),
        (manifest({**WORDS, "cohortSync": {"actions": {"a": "join"}}}), f"{WHERE}/cohortSync/actions/a", "replace"),
        *[
            (
                manifest({**LISTS, "cohortSync": {"actionPath": "/action", "actions": {"a": action, "b": "lists"}}}),
                f"{WHERE}/cohortSync/actions",
                "one list",
            )
            for action in ("add", "remove", "replace")
        ],
        (
            manifest({**WORDS, "cohortSync": {"actionPath": "/action", "actions": {"a": "add", "b": "lists"}}}),
            f"{WHERE}/cohortSync/actions",
            "only beside addMemberArrayPath",
        ),
        (
            manifest({**PARSER, "memberArrayParser": {"memberIdPath": "/id", "cohortIdPath": "/c"}} | REPLACING),
            f"{WHERE}/memberArrayParser/cohortIdPath",
            "replaces",
        ),
        (
            manifest({**WORDS, "cohortSync": {"actionPath": "/a", "actions": {"Add": "add", "add ": "remove"}}}),
            f"{WHERE}/cohortSync/actions/Add",
            "another action",
        ),
        (
            manifest({**WORDS, "cohortSync": {"actionPath": "/a", "actions": {"a": "add"}, "pagePath": "/p"}}),
            f"{WHERE}/cohortSync/pagePath",
            "no action replaces",
        ),
        (
            manifest({**WORDS, "cohortSync": {**REPLACING["cohortSync"], "pagesPath": "/p"}}),
            f"{WHERE}/cohortSync/pagesPath",
            "need each other",
        ),
        (manifest(member_parser(booleanMembershipPath="/user_id")), BOOLEAN, "the id"),
        (manifest({**PARSER, "environmentIdPath": "/batch"}), f"{WHERE}/environmentIdPath", "members are listed"),
        (
            manifest({**LISTS, "removeMemberArrayPath": "/in/0/b"}),
            f"{WHERE}/removeMemberArrayPath",
            "within each other",
        ),
    ],
)
def test_what_cannot_be_done_is_refused_when_the_file_is_loaded(
    content: Any, where: str, what: str, tmp_path: Path
) -> None:
    path = tmp_path / "any.json"
    path.write_text(json.dumps(content))

    with pytest.raises(ManifestError) as problem:
        load(path)

    assert str(path) in str(problem.value)
    assert where in str(problem.value)
    assert what in str(problem.value)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"NaN"])
def test_a_file_that_is_no_json_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "any.json"
    path.write_bytes(content)

    with pytest.raises(ManifestError, match=r"any\.json"):
        load(path)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="cannot be read"):
        load(tmp_path / "none.json")


def test_a_manifest_is_called_as_its_file_or_its_folder(tmp_path: Path) -> None:
    (tmp_path / "my-tool").mkdir()
    (tmp_path / "my-tool" / "manifest.json").write_text(json.dumps(manifest()))
    (tmp_path / "other.json").write_text(json.dumps(manifest()))

    assert load(tmp_path / "my-tool" / "manifest.json").name == "my-tool"
    assert load(tmp_path / "other.json").name == "other"


def test_a_name_that_no_segment_key_can_begin_with_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "my tool.json"
    path.write_text(json.dumps(manifest()))

    with pytest.raises(ManifestError, match="rename"):
        load(path)


def test_a_users_manifest_wins_over_ours_of_the_same_name(tmp_path: Path) -> None:
    path = tmp_path / "Amplitude.json"
    path.write_text(json.dumps(manifest()))

    names = Formats([path]).names()

    assert "Amplitude" in names
    assert "amplitude" not in names


def test_the_integrations_of_the_project_are_known() -> None:
    assert set(known_integrations()) == {
        *("amplitude", "census-synced-segments", "heap-inbound", "hightouch", "rudderstack", "segment-audiences"),
        *("tealium-synced-segments", "zeotap", "fulcrum", "sumatra-synced-segments"),
        *("segment", "amplitude-webhook", "rudderstack-event", "mixpanel", "mparticle"),
    }


def test_the_body_that_launchdarkly_answers_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "any.json"
    path.write_text(json.dumps(manifest(jsonResponseBody='{"status": "{{status}}"}')))

    assert load(path).response_body == '{"status": "{{status}}"}'


@pytest.mark.parametrize("name", ['a"b', "a\\b", "a\tb"])
def test_a_property_may_have_a_name_that_no_typed_decoder_takes(normalizer_of: Any, name: str) -> None:
    parser = {**LISTS, "cohortIdPath": f"/{name}", "memberArrayParser": {"memberIdPath": f"/{name}"}}
    payload = {"environment_id": "production", name: "c1", "cohort_name": "Beta", "in": [{name: "u1"}], "out": []}

    assert meaning(payload, normalizer_of(manifest(parser)), format="census") == ["+u1 census-c1"]
