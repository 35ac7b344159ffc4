"""What must hold for every payload, also for those that nobody thought of."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumers.errors import InvalidRecord
from consumers.feeds import Environment, Environments, Feed, Limits
from consumers.formats import Formats, known_integrations
from consumers.normalize import Normalized
from consumers.parsed import Parsed
from consumers.record import origin_of
from consumers.request_parser import RequestParser
from consumers.rules import Rules
from tests.builders import a_record
from tests.unit.consumers.meaning import NOW_MS, a_feed, a_normalizer, normalized
from tests.unit.consumers.payloads import COHORT_IDS, IDS, ODD, PARSERS, SCALARS, TEXTS, mostly, objects, payloads_of

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
DOCUMENTS = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=6), max_leaves=25
)

FALSE: tuple[object, ...] = (False, 0, "false", "False", "0")

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


ENVIRONMENTS = Environments(tuple(Environment(key=key) for key in ("production", "staging", "7")))


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


def both_ways(known: Any, payload: object, feed: Feed | None = None) -> tuple[Parsed | str | None, Parsed | str]:
    """The short way (None where it declines) and the long way through one format."""
    value, rules = json.dumps(payload).encode(), Rules(limits=Limits(), environments=ENVIRONMENTS)
    ways = known.parse_columns, known.parse_each
    short, long = (attempt(way, value, feed or a_feed(), rules) for way in ways)
    return short, long


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
    return (
        *(parsed.environment, parsed.context_kind, groups, list(parsed.rejects), parsed.members, parsed.conflicts),
        *(parsed.ignored, parsed.operation),
    )


@pytest.mark.parametrize("parser", PARSERS.values(), ids=PARSERS)
@given(st.data())
def test_the_short_way_through_a_manifests_payload_ends_where_the_long_one_does(
    parser: RequestParser, data: st.DataObject
) -> None:
    payload = data.draw(payloads_of(parser))
    feed = data.draw(st.sampled_from([a_feed(), a_feed(cohort_id="c9", cohort_name="Nine", context_kind="account")]))

    short, long = both_ways(parser, payload, feed)

    assert short is None or comparable(short) == comparable(long)


@pytest.mark.parametrize("parser", PARSERS.values(), ids=PARSERS)
@given(st.data())
def test_the_short_way_is_taken_wherever_a_types_shape_can_follow_the_pointers(
    parser: RequestParser, data: st.DataObject
) -> None:
    payload = data.draw(payloads_of(parser, good=True))

    short, _ = both_ways(parser, payload)

    # Raw Heap payloads have their environment in a list, where no type can follow.
    assert (short is None) is (parser is PARSERS["heap-inbound-2"])


@pytest.mark.parametrize("parser", PARSERS.values(), ids=PARSERS)
@given(st.data())
def test_a_member_leaves_only_where_its_value_its_list_or_the_action_says_so(
    parser: RequestParser, data: st.DataObject
) -> None:
    payload = data.draw(payloads_of(parser))
    _, parsed = both_ways(parser, payload)
    leaving = [group for group in parsed.changes if not group.included] if isinstance(parsed, Parsed) else []

    for place in (place for group in leaving for place in group.places):
        assert leaves(parser, payload, place)


def leaves(parser: RequestParser, payload: object, place: int) -> bool:
    """Whether the member at this place is said to be out, by whatever says it in this format."""
    members = [(each, member) for each in parser._lists for member in listed(each.pointer.find(payload))]
    (stands_in, member), paths = members[place], parser._paths
    if paths.member_included is not None:
        return is_false(paths.member_included.find(member))
    if stands_in.included is not None:
        return not stands_in.included
    return paths.action is not None and str(paths.action.find(payload)).casefold().startswith("remove")


def listed(found: object) -> list[object]:
    return found if isinstance(found, list) else []


@settings(max_examples=400)
@given(WEBHOOKS)
def test_the_short_way_through_a_webhook_ends_where_the_long_one_does(payload: object) -> None:
    short, long = both_ways(Formats().find("amplitude-webhook"), payload)

    assert short is None or comparable(short) == comparable(long)


@given(st.lists(st.text(min_size=1, max_size=8).filter(lambda key: "\0" not in key and not key.isspace()), unique=True))
def test_the_short_way_is_taken_for_good_batches(keys: list[str]) -> None:
    payload = {"batch": [{"userId": key, "value": True, "cohortId": "c1"} for key in keys]}

    short, _ = both_ways(Formats().find("amplitude"), payload)

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
