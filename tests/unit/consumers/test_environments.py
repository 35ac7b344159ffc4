"""Which environment a payload of a manifest format is for: domain.md 2.5, rule 13."""

from __future__ import annotations

from typing import Any

import pytest

from consumers.errors import InvalidRecord
from consumers.feeds import Environment, Environments, Limits
from consumers.normalize import Normalizer
from tests.unit.consumers.meaning import meaning, normalized
from tests.unit.consumers.tools import (
    AUDIENCES,
    CENSUS,
    FULCRUM,
    HEAP,
    HIGHTOUCH,
    MIXPANEL,
    NOTHING,
    RUDDERSTACK,
    SUMATRA,
    TEALIUM,
    ZEOTAP,
    audience,
    batch,
    census,
    heap,
    hightouch,
    included,
    mixpanel,
    raw_heap,
    rudderstack,
    tealium,
    zeotap,
)

LISTED = Environments(
    (
        Environment(key="production", client_side_id="61a0"),
        *(Environment(key=key) for key in ("staging", "fallback", "7", "True")),
    )
)


def normalizer_of(environments: Environments, *, skip: bool = False) -> Normalizer:
    return Normalizer(environments=environments, limits=Limits(), skip_unknown_environment=skip)


@pytest.mark.parametrize(
    ("project", "environment"),
    [
        ("production", "production"),
        ("61a0", "production"),
        ("staging", "staging"),
        (7, "7"),
        ("2195193", "fallback"),
        (2195193, "fallback"),
        ("STAGING", "fallback"),
        ("", "fallback"),
        (None, "fallback"),
        (True, "fallback"),
        ({}, "fallback"),
        (["staging"], "fallback"),
        (NOTHING, "fallback"),
    ],
)
def test_a_project_of_mixpanel_is_an_environment_only_where_it_is_one_of_ours(
    project: object, environment: str
) -> None:
    payload = mixpanel("u1", mixpanel_project_id=project)

    (group,) = normalized(payload, normalizer_of(LISTED), format=MIXPANEL, environment="fallback").groups

    assert group.segment.environment == environment


@pytest.mark.parametrize("project", ["2195193", "staging"])
def test_where_no_environment_is_listed_a_project_of_mixpanel_is_none(project: str) -> None:
    (group,) = normalized(mixpanel("u1", mixpanel_project_id=project), format=MIXPANEL).groups

    assert group.segment.environment == "production"


@pytest.mark.parametrize(
    ("payload", "integration"),
    [
        (mixpanel("u1", mixpanel_project_id="2195193"), MIXPANEL),
        (raw_heap(add=["u1"]) | {"customer_config": {"fields": [{"value": {"id": "workspace_1"}}]}}, HEAP),
    ],
    ids=["mixpanel", "raw-heap"],
)
def test_a_foreign_project_leaves_the_environment_to_the_feed_in_every_respect(
    payload: object, integration: str
) -> None:
    def says(*, skip: bool = False, **feed: Any) -> list[str]:
        return meaning(payload, normalizer_of(LISTED, skip=skip), format=integration, **feed)

    added = [f"+u1 {integration}-c1"]
    assert says(environment="staging") == added
    assert says(environment="staging", skip=True) == added
    assert says(environment="other") == ["invalid: environment_unknown"]
    assert says(environment="other", skip=True) == ["ignored: other_environment"]
    with pytest.raises(InvalidRecord, match="environment_missing"):
        normalized(payload, normalizer_of(LISTED), format=integration, environment=None)


@pytest.mark.parametrize(
    ("payload", "integration"),
    [
        (batch(census(), environment_id="other"), CENSUS),
        (batch(audience(), environmentId="other"), AUDIENCES),
        (rudderstack(add=["u1"]) | {"environmentId": "other"}, RUDDERSTACK),
        (included(add=["u1"]) | {"environmentId": "other"}, FULCRUM),
        (included(add=["u1"]) | {"environmentId": "other"}, SUMATRA),
        (heap(add=["u1"]) | {"parameters": {"environment_id": "other"}}, HEAP),
        (hightouch("u1", environmentId="other"), HIGHTOUCH),
        (tealium("u1", tealium_project_id="other"), TEALIUM),
        (zeotap("u1", integration_project_id="other"), ZEOTAP),
    ],
)
def test_any_other_tool_names_an_environment_of_ours_or_is_refused(payload: object, integration: str) -> None:
    assert meaning(payload, normalizer_of(LISTED), format=integration) == ["invalid: environment_unknown"]
