"""The promises of a segment store, run on every one of them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stores.model import Clearing, DeltaGroup
from tests.builders import a_clearing, a_group, a_version
from tests.memory_store import MemoryStore
from tests.stores import MemoryStoreUnderTest, StoreUnderTest


async def apply(store: StoreUnderTest, *groups: DeltaGroup) -> dict[int, int]:
    segments = await store.resolve(groups)
    applied = await store.apply([(segments[group.segment].id, group) for group in groups])
    return dict(applied.stale)


async def test_a_member_that_was_added_is_in(store: StoreUnderTest) -> None:
    await apply(store, a_group("u1"))

    assert await store.memberships() == {("amplitude-beta", "u1"): (True, a_version())}


async def test_applying_a_batch_twice_changes_nothing_and_says_so(store: StoreUnderTest) -> None:
    assert await apply(store, a_group("u1", "u2")) == {}
    before = await store.memberships()

    assert sum((await apply(store, a_group("u1", "u2"))).values()) == 2
    assert await store.memberships() == before


async def test_an_older_removal_does_not_put_a_member_out(store: StoreUnderTest) -> None:
    await apply(store, a_group("u1", version=a_version(2_000)))
    await apply(store, a_group("u1", included=False, version=a_version(1_000)))

    assert await store.included_counts() == {"amplitude-beta": 1}


async def test_a_late_add_does_not_bring_back_who_left(store: StoreUnderTest) -> None:
    await apply(store, a_group("u1", included=False, version=a_version(2_000)))
    await apply(store, a_group("u1", version=a_version(1_000)))

    assert await store.memberships() == {("amplitude-beta", "u1"): (False, a_version(2_000))}


async def test_at_one_event_time_the_later_offset_wins(store: StoreUnderTest) -> None:
    await apply(store, a_group("u1", included=False, version=a_version(offset=8)))
    await apply(store, a_group("u1", version=a_version(offset=7)))

    assert await store.included_counts() == {"amplitude-beta": 0}


async def test_of_several_deltas_of_a_member_in_one_batch_the_newest_wins(store: StoreUnderTest) -> None:
    await apply(
        store,
        a_group("u1", version=a_version(offset=1)),
        a_group("u1", included=False, version=a_version(offset=3)),
        a_group("u1", version=a_version(offset=2)),
    )

    assert await store.memberships() == {("amplitude-beta", "u1"): (False, a_version(offset=3))}


async def test_included_counts_are_exact_whatever_a_batch_holds(store: StoreUnderTest) -> None:
    await apply(store, a_group("u1", "u2", "u3"), a_group("u1", segment="amplitude-other"))
    await apply(
        store,
        a_group("u1", "nobody", included=False, version=a_version(offset=1)),
        a_group("u2", "u4", version=a_version(offset=2)),
    )

    assert await store.included_counts() == {"amplitude-beta": 3, "amplitude-other": 1}


async def test_the_first_context_kind_of_a_segment_stays(store: StoreUnderTest) -> None:
    first = a_group(context_kind="user")
    await store.resolve([first])
    segments = await store.resolve([a_group(context_kind="device")])

    assert segments[first.segment].context_kind == "user"


async def test_the_same_key_in_two_environments_is_two_segments(store: StoreUnderTest) -> None:
    production, staging = a_group(environment="production"), a_group(environment="staging")
    segments = await store.resolve([production, staging])

    assert segments[production.segment].id != segments[staging.segment].id


async def test_an_older_record_does_not_rename_a_cohort_back(store: StoreUnderTest) -> None:
    first = a_group(name="first", version=a_version(1_000))
    segment = (await store.resolve([first]))[first.segment]
    await store.rename(segment.id, a_group(name="third", version=a_version(3_000)))
    await store.rename(segment.id, a_group(name="second", version=a_version(2_000)))

    assert await store.cohort_names() == {"amplitude-beta": "third"}


async def test_a_topic_keeps_its_id(store: StoreUnderTest) -> None:
    first, second, again = await asyncio.gather(*map(store.topic_id, ("a", "b", "a")))

    assert first == again
    assert {first, second} == {1, 2}


async def clear(store: StoreUnderTest, *clearings: Clearing) -> None:
    segments = await store.resolve(clearings)
    await store.clear([(segments[clearing.segment].id, clearing) for clearing in clearings])


async def test_a_drain_puts_out_everybody_who_was_in(store: StoreUnderTest) -> None:
    await apply(store, a_group("u1", "u2", version=a_version(1_000)))
    await clear(store, a_clearing(drain=True, version=a_version(2_000)))

    assert await store.included_counts() == {"amplitude-beta": 0}
    assert await store.memberships() == {
        ("amplitude-beta", "u1"): (False, a_version(2_000)),
        ("amplitude-beta", "u2"): (False, a_version(2_000)),
    }


async def test_an_add_that_is_older_than_a_drain_stays_out_and_a_newer_one_is_in(store: StoreUnderTest) -> None:
    await clear(store, a_clearing(drain=True, version=a_version(2_000)))
    await apply(store, a_group("late", version=a_version(1_000)), a_group("new", version=a_version(3_000)))

    assert await store.included_counts() == {"amplitude-beta": 1}
    assert (await store.memberships())["amplitude-beta", "late"] == (False, a_version(2_000))


async def test_a_drain_of_one_segment_touches_no_other(store: StoreUnderTest) -> None:
    await apply(store, a_group(version=a_version(1)), a_group(segment="amplitude-other", version=a_version(1)))
    await clear(store, a_clearing(drain=True, version=a_version(2)))

    assert await store.included_counts() == {"amplitude-beta": 0, "amplitude-other": 1}


async def page(
    store: StoreUnderTest, time: int, number: int, pages: int | None, *keys: str, session: str = "s"
) -> None:
    """A page as the pipeline stores it: its members first."""
    clearing = a_clearing(session, number, pages, version=a_version(time))
    if keys:
        await apply(store, a_group(*keys, version=a_version(time)))
    await clear(store, clearing)


async def members(store: StoreUnderTest) -> set[str]:
    return {key for (_, key), (included, _) in (await store.memberships()).items() if included}


async def test_a_session_with_a_missing_page_removes_nobody(store: StoreUnderTest) -> None:
    await apply(store, a_group("leaver", version=a_version(1)))
    await page(store, 10, 1, 3, "u1")
    await page(store, 12, 3, 3, "u3")

    assert await members(store) == {"leaver", "u1", "u3"}


async def test_a_session_whose_pages_are_all_there_puts_out_who_is_on_none(store: StoreUnderTest) -> None:
    await apply(store, a_group("leaver", "u1", version=a_version(1)))
    for time, number in ((12, 3), (10, 1), (11, 2)):
        await page(store, time, number, 3, f"u{number}")

    assert await members(store) == {"u1", "u2", "u3"}
    assert (await store.memberships())["amplitude-beta", "leaver"] == (False, a_version(10))
    assert await store.included_counts() == {"amplitude-beta": 3}


async def test_pages_that_are_noted_in_one_batch_complete_a_session(store: StoreUnderTest) -> None:
    await apply(store, a_group("leaver", version=a_version(1)), a_group("u1", version=a_version(10)))
    await clear(store, *(a_clearing("s", number, 2, version=a_version(9 + number)) for number in (1, 2, 1)))

    assert await members(store) == {"u1"}


async def test_a_change_that_is_newer_than_a_session_is_not_touched_by_it(store: StoreUnderTest) -> None:
    await page(store, 10, 1, 2, "u1")
    await apply(store, a_group("joined", version=a_version(15)), a_group("u1", included=False, version=a_version(16)))
    await page(store, 11, 2, 2, "u2")

    assert await members(store) == {"joined", "u2"}


async def test_a_session_that_starts_from_the_top_again_is_the_newer_one(store: StoreUnderTest) -> None:
    await page(store, 10, 1, 3, "only on the first try")
    await page(store, 11, 2, 3, "u2")
    for time, number in ((20, 1), (21, 2), (22, 3)):
        await page(store, time, number, 3, f"u{number}")

    assert await members(store) == {"u1", "u2", "u3"}


async def test_a_page_that_comes_again_later_puts_out_nobody_of_its_session(store: StoreUnderTest) -> None:
    await page(store, 10, 1, 2, "u1")
    await page(store, 11, 2, 2, "u2")
    await page(store, 30, 1, 2, "u1")

    assert await members(store) == {"u1", "u2"}


async def test_pages_of_different_sessions_do_not_complete_each_other(store: StoreUnderTest) -> None:
    await apply(store, a_group("stays", version=a_version(1)))
    await page(store, 10, 1, 2, "u1", session="s1")
    await page(store, 20, 2, 2, "u2", session="s2")
    await page(store, 30, 2, 3, "u3", session="s1")

    assert await members(store) == {"stays", "u1", "u2", "u3"}


async def test_a_full_copy_by_nobody_empties_the_segment(store: StoreUnderTest) -> None:
    await apply(store, a_group("u1", version=a_version(1)))
    await page(store, 10, 1, 1)

    assert await members(store) == set()


@pytest.mark.parametrize("times", [(10, 11), (11, 10)])
async def test_records_of_a_session_without_a_number_of_pages_add_up_in_any_order(
    store: StoreUnderTest, times: tuple[int, int]
) -> None:
    await apply(store, a_group("leaver", version=a_version(1)))
    for time in times:
        await page(store, time, 1, None, f"u{time}")

    assert await members(store) == {"u10", "u11"}
    assert await store.included_counts() == {"amplitude-beta": 2}


async def test_a_change_between_two_records_of_such_a_session_is_in_whatever_comes_first(
    store: StoreUnderTest,
) -> None:
    await page(store, 20, 1, None, "u20")
    await apply(store, a_group("between", version=a_version(15)), a_group("before", version=a_version(5)))
    assert await store.included_counts() == {"amplitude-beta": 1}
    await page(store, 10, 1, None, "u10")

    assert await members(store) == {"u10", "u20", "between"}
    assert await store.included_counts() == {"amplitude-beta": 3}


async def test_members_that_were_covered_before_their_own_page_was_noted_come_back(store: StoreUnderTest) -> None:
    await apply(store, a_group("u10", version=a_version(10)))  # and the worker died before it could note the page
    await page(store, 20, 1, None, "u20")
    assert await store.included_counts() == {"amplitude-beta": 1}
    await page(store, 10, 1, None, "u10")

    assert await members(store) == {"u10", "u20"}
    assert await store.included_counts() == {"amplitude-beta": 2}


async def test_full_copies_without_a_session_replace_each_other(store: StoreUnderTest) -> None:
    for time, key in ((20, "new"), (10, "old")):
        clearing = a_clearing(version=a_version(time))
        await apply(store, a_group(key, version=a_version(time)))
        await clear(store, clearing)

    assert await members(store) == {"new"}


async def test_an_older_session_that_completes_late_changes_nothing(store: StoreUnderTest) -> None:
    await page(store, 10, 1, 2, "old", session="s1")
    await page(store, 20, 1, 1, "new", session="s2")
    await page(store, 11, 2, 2, "old too", session="s1")

    assert await members(store) == {"new"}
    assert await store.included_counts() == {"amplitude-beta": 1}


groups = st.builds(
    lambda keys, segment, included, time, offset: a_group(
        *keys, segment=segment, included=included, version=a_version(time, offset)
    ),
    keys=st.lists(st.sampled_from("abcde"), min_size=1, max_size=4, unique=True),
    segment=st.sampled_from(["amplitude-x", "amplitude-y"]),
    included=st.booleans(),
    time=st.integers(1, 4),
    offset=st.integers(0, 1_000_000),
)


# A record says one thing of a context, so two groups never have one version.
streams = st.lists(groups, min_size=1, max_size=12, unique_by=lambda group: group.version.position)


clearings = st.builds(
    lambda what, segment, time, offset: a_clearing(
        f"s{what[0]}", what[1], what[2], drain=what[0] == 0, segment=segment, version=a_version(time, offset)
    ),
    what=st.sampled_from([(0, 1, 1), (1, 1, 2), (1, 2, 2), (2, 1, 2), (2, 2, 2), (3, 1, None), (4, 1, None)]),
    segment=st.sampled_from(["amplitude-x", "amplitude-y"]),
    time=st.integers(1, 4),
    offset=st.integers(0, 1_000_000),
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    stream=st.lists(groups | clearings, min_size=1, max_size=12, unique_by=lambda change: change.version.position),
    randomness=st.randoms(use_true_random=False),
)
async def test_drains_and_sessions_among_deltas_end_in_the_same_state_in_any_order(
    store: StoreUnderTest, stream: Sequence[DeltaGroup | Clearing], randomness: random.Random
) -> None:
    await store.reset()
    reference = MemoryStoreUnderTest()
    await store_changes(reference, stream)

    shuffled = [*stream, *randomness.choices(stream, k=len(stream) // 2)]
    randomness.shuffle(shuffled)
    while shuffled:
        size = randomness.randint(1, len(shuffled))
        batch, shuffled = shuffled[:size], shuffled[size:]
        await store_changes(store, batch)
        if randomness.random() < 0.5:
            await store.included_counts()  # sweeps

    assert await store.memberships() == await reference.memberships()
    assert await store.included_counts() == await reference.included_counts()


async def store_changes(store: StoreUnderTest, changes: Sequence[DeltaGroup | Clearing]) -> None:
    if deltas := [change for change in changes if isinstance(change, DeltaGroup)]:
        await apply(store, *deltas)
    if clearings := [change for change in changes if isinstance(change, Clearing)]:
        await clear(store, *clearings)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(stream=streams, randomness=st.randoms(use_true_random=False))
async def test_any_order_any_repetition_and_any_split_into_batches_end_in_the_same_state(
    store: StoreUnderTest, stream: Sequence[DeltaGroup], randomness: random.Random
) -> None:
    await store.reset()
    reference = MemoryStore()
    await apply(reference, *stream)  # type: ignore[arg-type]

    shuffled = [*stream, *randomness.choices(stream, k=len(stream) // 2)]
    randomness.shuffle(shuffled)
    while shuffled:
        size = randomness.randint(1, len(shuffled))
        batch, shuffled = shuffled[:size], shuffled[size:]
        await apply(store, *batch)

    assert await store.memberships() == await reference.memberships()
    assert await store.included_counts() == await reference.included_counts()
