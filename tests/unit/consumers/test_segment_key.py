from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.segment_key import segment_key, segment_of
from stores.model import SegmentKey

KEY = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")


@pytest.mark.parametrize("cohort_id", ["7khm89cz", "segment-1234", "0", "a.b_c-d", "X" * 1024, "a--b"])
def test_an_id_that_fits_stands_as_it_is(cohort_id: str) -> None:
    assert segment_of("production", "amplitude", cohort_id) == SegmentKey("production", f"amplitude-{cohort_id}")


@pytest.mark.parametrize(
    ("cohort_id", "slug"),
    [
        ("my cohort", "my-cohort"),
        ("a/b:c", "a-b-c"),
        ("_hidden", "hidden"),
        ("Saturday's cohort & héllo", "Saturday-s-cohort-hello"),
        ("日本", "cohort"),
        ("-", "cohort"),
        (" " + "x" * 500, "x" * 64),
    ],
)
def test_another_id_is_slugged_and_gets_a_short_hash(cohort_id: str, slug: str) -> None:
    assert re.fullmatch(rf"amplitude-{slug}--[a-z2-7]{{16}}", segment_key("amplitude", cohort_id))


def test_ids_with_the_same_slug_have_different_keys() -> None:
    assert len({segment_key("amplitude", cohort_id) for cohort_id in ("a b", "a/b", "a  b", "á b", "a-b")}) == 5


def test_an_id_that_is_another_ones_slug_has_a_key_of_its_own() -> None:
    slug = segment_key("amplitude", "a b").removeprefix("amplitude-")

    assert segment_key("amplitude", slug) != segment_key("amplitude", "a b")


def test_a_key_never_changes_between_releases() -> None:
    assert segment_key("amplitude", "a b") == "amplitude-a-b--ayvr4qzg6cpx6rim"


@given(st.text(min_size=1, max_size=1024))
def test_every_key_is_one_that_launchdarkly_accepts(cohort_id: str) -> None:
    key = segment_key("amplitude", cohort_id)

    assert KEY.fullmatch(key)
    assert len(key) <= len("amplitude-") + 1024


@given(st.lists(st.text(alphabet="ab -/é", min_size=1, max_size=6), unique=True, max_size=50))
def test_distinct_ids_have_distinct_keys(cohort_ids: list[str]) -> None:
    assert len({segment_key("amplitude", cohort_id) for cohort_id in cohort_ids}) == len(cohort_ids)
