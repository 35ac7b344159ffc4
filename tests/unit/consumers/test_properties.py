"""What must hold for every payload, also for those that nobody thought of."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from consumers.errors import InvalidRecord
from consumers.feeds import Environments, Feed, Limits
from consumers.formats import Formats, known_integrations
from consumers.normalize import Normalized
from consumers.parsed import Parsed
from consumers.record import origin_of
from consumers.rules import Rules
from tests.builders import a_record
from tests.unit.consumers.meaning import NOW_MS, a_feed, a_normalizer, normalized

NAMES = st.sampled_from(
    [
        *(
            "batch",
            "users",
            "userId",
            "user_id",
            "value",
            "in_cohort",
            "cohortId",
            "cohort_id",
            "cohortName",
            "cohort_name",
        ),
        *("environmentId", "computed_time", "type", "context", "personas", "computation_class", "computation_id"),
        *(
            "computation_key",
            "traits",
            "properties",
            "event",
            "audience_key",
            "beta",
            "timestamp",
            "integration",
            "name",
        ),
        *("amplitude_beta_c1", "[Amplitude] Beta (c1)", "Beta (c1)", "email", "anonymousId"),
    ]
)
WORDS = st.sampled_from(
    [
        *("identify", "track", "audience", "journey_step", "trait", "beta", "c1", "true", "False", "Audience Exited"),
        *("deleted", "Amplitude Cohort Sync", "", " ", "1692206763", "2023-08-16T17:26:03Z"),
    ]
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | WORDS | st.text(max_size=5)
DOCUMENTS = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=6), max_leaves=25
)

FALSE: tuple[object, ...] = (False, 0, "false", "False", "0")

IDS = st.integers() | st.text(max_size=4) | st.sampled_from(["u1", "u2", "x" * 513, "é" * 257, "a\0", " ", ""])
ODD = st.none() | st.floats(allow_nan=False) | st.booleans() | st.lists(st.none(), max_size=1)
COHORT_IDS = st.sampled_from(["c1", "c1", "c1", "c2", "a b", 7, "7", None, "", " ", 4.2])
TEXTS = st.sampled_from([None, "", "Beta", "Gamma", " ", 3])


def mostly(usual: st.SearchStrategy[Any], odd: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.integers(0, 19).flatmap(lambda roll: odd if roll == 0 else usual)


def objects(**optional: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=optional)


MEMBERS = st.builds(
    lambda sure, perhaps: {**sure, **perhaps},
    st.fixed_dictionaries({"userId": mostly(IDS, ODD), "value": mostly(st.booleans(), SCALARS)}),
    objects(cohortId=COHORT_IDS, cohortName=TEXTS, cohortUrl=TEXTS, extra=SCALARS),
)
BATCHES = st.builds(
    lambda members, others: {"batch": members, **others},
    mostly(st.lists(mostly(MEMBERS, SCALARS), max_size=6), SCALARS),
    objects(environmentId=st.sampled_from([None, "", "staging", 7, False]), sentAt=SCALARS),
)
USERS = st.fixed_dictionaries({"user_id": mostly(IDS, ODD)}, optional={"user_properties": DOCUMENTS})
WEBHOOKS = st.fixed_dictionaries(
    {"users": mostly(st.lists(mostly(USERS, SCALARS), max_size=6), SCALARS)},
    optional={
        "cohort_id": COHORT_IDS,
        "cohort_name": TEXTS,
        "in_cohort": mostly(st.booleans(), SCALARS),
        "computed_time": SCALARS,
        "compute_time": SCALARS,
    },
)


def is_false(value: object) -> bool:
    return any(value is word or (type(value) is type(word) and value == word) for word in FALSE)


def says_false(document: object) -> bool:
    """Whether anything in the document says out: a value that is false, or an event with such a name."""
    if isinstance(document, dict):
        named = str(document.get("event", "")).strip().casefold()
        return named in ("audience exited", "deleted") or any(map(says_false, document.values()))
    return any(map(says_false, document)) if isinstance(document, list) else is_false(document)


def outcome(document: object, integration: str) -> Normalized | None:
    record = a_record(json.dumps(document).encode(), timestamp_ms=NOW_MS)
    feed = a_feed(format=integration, cohort_id="c9")
    try:
        return a_normalizer().normalize(record, feed, arrived_ms=origin_of(record).timestamp_ms, position=7)
    except InvalidRecord:
        return None


@settings(max_examples=400)
@given(DOCUMENTS, st.sampled_from(known_integrations()))
def test_any_json_is_read_or_refused_and_nobody_is_removed_who_is_not_named(document: object, integration: str) -> None:
    result = outcome(document, integration)

    removals = [group for group in result.groups if not group.included] if result else []
    assert not removals or says_false(document)


@given(st.binary(max_size=40), st.sampled_from(known_integrations()))
def test_any_bytes_are_read_or_refused(value: bytes, integration: str) -> None:
    record = a_record(value)
    with suppress(InvalidRecord):
        a_normalizer().normalize(
            record, a_feed(format=integration), arrived_ms=origin_of(record).timestamp_ms, position=7
        )


@settings(max_examples=300)
@given(BATCHES)
def test_a_member_is_removed_only_where_its_own_value_says_so(payload: dict[str, Any]) -> None:
    result = outcome(payload, "amplitude")

    for group in result.groups if result else []:
        for place in group.places:
            assert is_false(payload["batch"][place]["value"]) is not group.included


def both_ways(integration: str, payload: object) -> tuple[Parsed | str | None, Parsed | str]:
    """The short way (None where it declines) and the long way through one format."""
    known: Any = Formats().find(integration)
    value, feed, rules = json.dumps(payload).encode(), a_feed(), Rules(limits=Limits(), environments=Environments())
    return attempt(known.parse_columns, value, feed, rules), attempt(known.parse_each, value, feed, rules)


def attempt(parse: Any, value: bytes, feed: Feed, rules: Rules) -> Any:
    try:
        return parse(value, feed, rules)
    except InvalidRecord as problem:
        return str(problem)


def comparable(parsed: Parsed | str) -> object:
    if isinstance(parsed, str):
        return parsed
    groups = [
        (group.cohort, group.included, list(group.context_keys), list(group.places), group.event_time_us)
        for group in parsed.changes
    ]
    return parsed.environment, parsed.context_kind, groups, list(parsed.rejects), parsed.members, parsed.conflicts


@settings(max_examples=400)
@given(BATCHES)
def test_the_short_way_through_a_manifests_payload_ends_where_the_long_one_does(payload: object) -> None:
    short, long = both_ways("amplitude", payload)

    assert short is None or comparable(short) == comparable(long)


@settings(max_examples=400)
@given(WEBHOOKS)
def test_the_short_way_through_a_webhook_ends_where_the_long_one_does(payload: object) -> None:
    short, long = both_ways("amplitude-webhook", payload)

    assert short is None or comparable(short) == comparable(long)


@given(st.lists(st.text(min_size=1, max_size=8).filter(lambda key: "\0" not in key and not key.isspace()), unique=True))
def test_the_short_way_is_taken_for_good_batches(keys: list[str]) -> None:
    payload = {"batch": [{"userId": key, "value": True, "cohortId": "c1"} for key in keys]}

    short, _ = both_ways("amplitude", payload)

    assert short is not None or not keys


@given(
    st.lists(IDS.filter(lambda key: str(key).strip() and "\0" not in str(key)), unique_by=str, min_size=1, max_size=5)
)
def test_ids_come_out_as_they_went_in(keys: list[str | int]) -> None:
    fitting = [key for key in keys if len(str(key).encode()) <= Limits().context_key_bytes]
    payload = {"batch": [{"userId": key, "value": True, "cohortId": "c1"} for key in fitting]}

    assert [key for group in normalized(payload).groups for key in group.context_keys] == list(map(str, fitting))


@given(st.integers(min_value=-(10**60), max_value=10**60))
def test_integers_keep_all_their_digits(number: int) -> None:
    payload = {"cohort_id": "c1", "in_cohort": True, "users": [{"user_id": number}]}

    assert [list(group.context_keys) for group in normalized(payload, format="amplitude-webhook").groups] == [
        [str(number)]
    ]
