"""Policies as LaunchDarkly writes them."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.gateway.policies import ROLES, Policy, PolicyError, Resource, parse_policy

SYNC = ("createSegment", "updateIncluded")
A_SEGMENT = Resource("web", "production", "amplitude-c1")


def policy(*statements: dict[str, Any]) -> Policy:
    return parse_policy(json.dumps(statements))


def allow(*resources: str, actions: tuple[str, ...] = ("*",), **more: Any) -> dict[str, Any]:
    return {"effect": "allow", "resources": list(resources), "actions": list(actions), **more}


@pytest.mark.parametrize(
    ("resource", "is_allowed"),
    [
        ("proj/*:env/*:segment/*", True),
        ("proj/web:env/production:segment/amplitude-c1", True),
        ("proj/w*:env/*tion:segment/amplitude-*", True),
        ("proj/*:env/*:segment/a*e-*1", True),
        ("proj/*:env/*:segment/*c1c1", False),
        ("proj/*:env/*:segment/amplitude-c1?", None),
        ("proj/other:env/*:segment/*", False),
        ("proj/*:env/staging:segment/*", False),
        ("proj/*:env/*:segment/AMPLITUDE-c1", False),
        ("proj/*:env/*:flag/*", False),
        ("proj/*:env/*", False),
        ("proj/*", False),
        ("segment/*", None),
        ("proj/*:segment/*", None),
        ("env/*:proj/*:segment/*", None),
    ],
)
def test_a_resource_is_named_part_by_part_with_wildcards(resource: str, is_allowed: bool | None) -> None:
    if is_allowed is None:
        with pytest.raises(PolicyError, match="is no resource"):
            policy(allow(resource))
        return
    assert policy(allow(resource)).allows(A_SEGMENT, SYNC) is is_allowed


def test_what_no_statement_allows_is_denied_and_a_deny_wins_wherever_it_stands() -> None:
    everything = allow("proj/*:env/*:segment/*")
    deny = {"effect": "deny", "resources": ["proj/*:env/production:segment/*"], "actions": ["updateIncluded"]}

    assert not policy(allow("proj/*:env/staging:segment/*")).allows(A_SEGMENT, SYNC)
    assert not policy(everything, deny).allows(A_SEGMENT, SYNC)
    assert not policy(deny, everything).allows(A_SEGMENT, SYNC)
    assert policy(deny, everything).allows(A_SEGMENT, ["createSegment"])
    assert policy(deny, everything).allows(A_SEGMENT._replace(environment="staging"), SYNC)


def test_all_actions_are_needed_and_may_have_wildcards() -> None:
    assert not policy(allow("proj/*:env/*:segment/*", actions=("updateIncluded",))).allows(A_SEGMENT, SYNC)
    assert policy(allow("proj/*:env/*:segment/*", actions=SYNC)).allows(A_SEGMENT, SYNC)
    assert policy(allow("proj/*:env/*:segment/*", actions=("create*", "*Included"))).allows(A_SEGMENT, SYNC)


def test_not_resources_and_not_actions_mean_all_others() -> None:
    others = policy({"effect": "allow", "notResources": ["proj/*:env/production:segment/*"], "actions": ["*"]})
    assert not others.allows(A_SEGMENT, SYNC)
    assert others.allows(A_SEGMENT._replace(environment="staging"), SYNC)

    but_names = policy({"effect": "allow", "resources": ["proj/*:env/*:segment/*"], "notActions": ["updateName"]})
    assert but_names.allows(A_SEGMENT, SYNC)
    assert not but_names.allows(A_SEGMENT, ["updateName"])


def test_of_tags_the_segment_needs_all_and_a_policy_says_whether_it_asks_for_them() -> None:
    tagged = policy(allow("proj/*:env/*:segment/*;beta,eu"))

    assert tagged.needs_tags
    assert not policy(allow("proj/*:env/*:segment/*")).needs_tags
    assert tagged.allows(A_SEGMENT._replace(tags=frozenset(("beta", "eu", "x"))), SYNC)
    assert not tagged.allows(A_SEGMENT._replace(tags=frozenset(("beta",))), SYNC)
    assert not tagged.allows(A_SEGMENT, SYNC)


def test_a_writer_may_do_everything() -> None:
    writer = parse_policy(ROLES["writer"])

    assert writer.allows(A_SEGMENT, (*SYNC, "updateTags"))
    assert writer.allows(Resource("web"), ["viewProject"])


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        ({"effect": "permit", "resources": ["proj/*"], "actions": ["*"]}, "/0/effect"),
        ({"effect": "allow", "actions": ["*"]}, "either resources or notResources"),
        ({"effect": "deny", "resources": ["proj/*"], "notResources": ["proj/x"], "actions": ["*"]}, "either resources"),
        ({"effect": "allow", "resources": ["proj/*"]}, "either actions or notActions"),
        ({"effect": "allow", "resources": [], "actions": ["*"]}, "/0/resources"),
        ({"effect": "allow", "resources": ["proj/*:env/*;eu:segment/*"], "actions": ["*"]}, "only segments have"),
        ({"effect": "deny", "resources": ["proj/*"], "actions": ["updateIncuded"]}, "did you mean 'updateIncluded'"),
        ({"effect": "deny", "resources": ["proj/*"], "actions": ["update included"]}, "is no action"),
        ({"effect": "allow", "resources": ["proj/*"], "actions": ["*"], "condition": {}}, "/0/condition"),
    ],
)  # fmt: skip
def test_a_policy_that_may_not_mean_what_it_says_is_refused(statement: dict[str, Any], problem: str) -> None:
    with pytest.raises(PolicyError, match=problem):
        policy(statement)


@pytest.mark.parametrize("document", ["", "{}", "[]", "null", "[1]", "{", "[" * 10_000])
def test_what_is_no_list_of_statements_is_refused(document: str) -> None:
    with pytest.raises(PolicyError):
        parse_policy(document)


@given(st.text("ab*", max_size=30), st.text("ab", max_size=30))
def test_a_wildcard_matches_as_a_regular_expression_would(glob: str, key: str) -> None:
    if not glob:
        return
    matches = re.fullmatch(re.sub(r"\*+", ".*", glob), key) is not None
    assert policy(allow(f"proj/{glob}")).allows(Resource(key), ["viewProject"]) is matches


def test_many_wildcards_cost_no_time() -> None:
    slow = policy(allow("proj/" + "*a" * 100 + "*b"))

    assert not slow.allows(Resource("a" * 100_000), ["viewProject"])
