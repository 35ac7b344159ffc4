"""The promises of a segment store, run on every one of them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stores.model import DeltaGroup
from tests.builders import a_group, a_version
from tests.memory_store import MemoryStore
from tests.stores import StoreUnderTest


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


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
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
