"""The campaign itself can be trusted: its records mean what they were made from, and the oracle is the plain rule."""

from __future__ import annotations

from itertools import islice

import pytest

from consumers.errors import InvalidRecord, Reject
from consumers.feeds import Environments, Feed, Limits
from consumers.normalize import Normalizer
from consumers.parsed import Change, Operation
from consumers.record import Record
from tests.faults.oracle import FUTURE_SKEW_US, Oracle, Stored
from tests.faults.stream import Clears, Made, Meaning, Said, Stream, Topics

TOPICS = Topics("webhook", "amplitude", "segment", "any")
FORMATS = {"webhook": "amplitude-webhook", "amplitude": "amplitude", "segment": "segment", "any": "header"}
NORMALIZER = Normalizer(environments=Environments(), limits=Limits())


def some_of(seed: int, count: int = 2_000) -> list[Made]:
    return list(islice(Stream(seed, TOPICS, start_ms=1_700_000_000_000), count))


def read(made: Made) -> Meaning:
    """What the parsers make of a record."""
    record = Record(made.topic, made.partition, 0, made.timestamp_ms, None, made.value, made.headers)
    feed = Feed(name=made.topic, format=FORMATS[made.topic], environment="production")
    try:
        items = list(NORMALIZER.parse(record, feed).in_order())
    except InvalidRecord as problem:
        return Meaning(dead=frozenset({problem.reason.value}))
    said = tuple(
        Said(item.segment_key, item.context_key, item.included, item.event_time_us)
        for item in items
        if isinstance(item, Change)
    )
    dead = frozenset(item.reason.value for item in items if isinstance(item, Reject))
    operation = next((item for item in items if isinstance(item, Operation)), None)
    # What the pipeline makes of a page that was not understood as a whole.
    clears = _clears(operation) if operation and not dead else None
    return Meaning(said, clears, dead)


def _clears(operation: Operation) -> Clears:
    segment = f"{operation.cohort.integration}-{operation.cohort.cohort_id}"
    page = operation.page
    return Clears(segment, page.session, page.number, page.pages or 1) if page else Clears(segment)


def last_of_each(said: tuple[Said, ...]) -> dict[tuple[str, str], Said]:
    return {(each.segment, each.context_key): each for each in said}


@pytest.mark.parametrize("seed", [1, 2])
def test_a_record_of_the_stream_means_what_it_was_made_from(seed: int) -> None:
    for made in some_of(seed):
        found = read(made)
        assert last_of_each(found.said) == last_of_each(made.meaning.said)
        assert (found.clears, found.dead) == (made.meaning.clears, made.meaning.dead)


def test_a_seed_makes_the_same_stream_again() -> None:
    assert some_of(7) == some_of(7)
    assert some_of(7) != some_of(8)


def said(key: str, *, included: bool = True, clock_us: int | None = None) -> Meaning:
    return Meaning((Said("s", key, included, clock_us),))


def test_the_oracle_takes_the_newest_and_breaks_ties_by_topic_partition_and_offset() -> None:
    oracle = Oracle({"a": 1, "b": 2})
    oracle.take("b", 0, 5, 1_000, said("u"))
    oracle.take("a", 9, 99, 1_000, said("u", included=False))
    oracle.take("b", 0, 4, 1_000, said("u", included=False))
    oracle.take("a", 0, 0, 999, said("u", included=False))

    assert oracle.members() == {("s", "u"): Stored(included=True, version=(1_000_000, 2, 0, 5))}


def test_the_oracle_does_not_believe_a_clock_that_is_far_ahead() -> None:
    oracle = Oracle({"a": 1})
    oracle.take("a", 0, 0, 1_000, said("u", clock_us=1_000_000 + FUTURE_SKEW_US + 1))
    oracle.take("a", 0, 1, 1_000, said("v", clock_us=1_000_000 + FUTURE_SKEW_US))

    times = {key: stored.version[0] for (_, key), stored in oracle.members().items()}
    assert times == {"u": 1_000_000, "v": 1_000_000 + FUTURE_SKEW_US}


def test_the_oracle_puts_out_who_is_older_than_a_drain_or_a_whole_session() -> None:
    oracle = Oracle({"a": 1})
    oracle.take("a", 0, 0, 1, said("leaver"))
    oracle.take("a", 0, 1, 2, Meaning((Said("s", "one", included=True),), Clears("s", "x", 1, 2)))
    assert oracle.members()["s", "leaver"].included
    oracle.take("a", 0, 2, 3, Meaning((Said("s", "two", included=True),), Clears("s", "x", 2, 2)))
    assert {key for (_, key), stored in oracle.members().items() if stored.included} == {"one", "two"}
    oracle.take("a", 0, 3, 3, Meaning(clears=Clears("s")))
    assert not any(stored.included for stored in oracle.members().values())
