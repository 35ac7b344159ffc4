"""What every target promises, as the official SDK's own reader sees it. One suite for all of them."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stores.target import Change, Reference, TargetDamagedError, context_reference
from tests.targets import TargetUnderTest, seen, synchronized_on

FACTS = st.tuples(st.sampled_from("abc"), st.integers(1, 2), st.sampled_from("xyz"), st.booleans())


def joined(segment: str, *context_keys: str, generation: int = 1) -> list[Change]:
    return [Change(segment, generation, key, included=True) for key in context_keys]


def left(segment: str, *context_keys: str, generation: int = 1) -> list[Change]:
    return [Change(segment, generation, key, included=False) for key in context_keys]


def reference(segment: str, context_key: str, generation: int = 1) -> Reference:
    return Reference(segment, generation, context_reference(context_key))


async def standing(target: TargetUnderTest) -> set[Reference]:
    return {each async for page in target.target.references() for each in page}


async def test_who_joined_is_in_and_who_left_is_not(target: TargetUnderTest) -> None:
    assert list(await target.target.apply([*joined("beta", "ann", "bob"), *left("beta", "cleo")])) == []

    assert seen(target, "ann") == seen(target, "bob") == {"beta.g1"}
    assert seen(target, "cleo") == seen(target, "stranger") == set()


async def test_applying_twice_changes_nothing(target: TargetUnderTest) -> None:
    changes = [*joined("beta", "ann", "bob"), *left("beta", "bob")]
    for _ in range(2):
        await target.target.apply(changes)

        assert await standing(target) == {reference("beta", "ann")}


async def test_of_several_changes_in_one_call_the_last_counts(target: TargetUnderTest) -> None:
    await target.target.apply(
        [*joined("beta", "ann"), *left("beta", "ann"), *left("beta", "bob"), *joined("beta", "bob")]
    )

    assert seen(target, "ann") == set()
    assert seen(target, "bob") == {"beta.g1"}


async def test_a_context_can_join_some_segments_and_leave_others_in_one_call(target: TargetUnderTest) -> None:
    await target.target.apply([*joined("beta", "ann"), *joined("old", "ann"), *joined("kept", "ann")])
    await target.target.apply(
        [*left("beta", "ann"), *joined("new", "ann"), *left("old", "ann"), *joined("more", "ann")]
    )

    assert seen(target, "ann") == {"kept.g1", "new.g1", "more.g1"}


async def test_generations_of_a_segment_are_apart(target: TargetUnderTest) -> None:
    await target.target.apply([*joined("beta", "ann"), *joined("beta", "ann", generation=2)])
    await target.target.apply(left("beta", "ann"))

    assert seen(target, "ann") == {"beta.g2"}


async def test_nothing_that_an_sdk_would_see_is_left_of_who_left_everything(target: TargetUnderTest) -> None:
    await target.target.apply([*joined("beta", "ann"), *joined("other", "ann")])
    await target.target.apply([*left("beta", "ann"), *left("other", "ann")])

    assert target.sdk.get_membership(context_reference("ann")) is None
    assert await standing(target) == set()


async def test_many_changes_in_one_call_are_all_applied(target: TargetUnderTest) -> None:
    await target.target.apply(joined("beta", *map(str, range(1_500))))

    assert await standing(target) == {reference("beta", str(number)) for number in range(1_500)}


async def test_no_changes_are_no_changes(target: TargetUnderTest) -> None:
    assert list(await target.target.apply([])) == []
    assert await standing(target) == set()


async def test_a_target_remembers_its_marker_until_it_is_emptied(target: TargetUnderTest) -> None:
    assert await target.target.marker() is None
    await target.target.mark("first")
    assert await target.target.marker() == "first"
    await target.target.mark("second")
    assert await target.target.marker() == "second"

    await target.empty()

    assert await target.target.marker() is None


async def test_only_a_marked_target_is_called_fresh(target: TargetUnderTest) -> None:
    assert not await target.target.synchronize(1_000)
    assert synchronized_on(target) is None

    await target.target.mark("ours")
    assert await target.target.synchronize(2_000)
    assert synchronized_on(target) == 2_000
    assert await target.target.synchronize(3_000)
    assert synchronized_on(target) == await target.target.synchronized_on() == 3_000


async def test_a_target_that_was_emptied_meanwhile_is_not_called_fresh(target: TargetUnderTest) -> None:
    await target.target.mark("ours")
    await target.target.synchronize(1_000)

    await target.empty()

    assert not await target.target.synchronize(2_000)
    assert synchronized_on(target) is None


async def test_a_new_marker_takes_the_freshness_away(target: TargetUnderTest) -> None:
    await target.target.mark("ours")
    await target.target.synchronize(1_000)

    await target.target.mark("anew")

    assert synchronized_on(target) is None
    assert await target.target.synchronized_on() is None


async def test_what_stands_in_it_is_listed_looked_up_and_taken_out(target: TargetUnderTest) -> None:
    await target.target.apply([*joined("beta", "ann", "bob"), *joined("odd.g7", "ann", generation=12)])
    there = [reference("beta", "ann"), reference("beta", "bob"), reference("odd.g7", "ann", 12)]
    absent = [reference("beta", "cleo"), reference("beta", "ann", 2), reference("other", "ann")]
    assert await standing(target) == set(there)
    assert await target.target.hold([*there, *absent, *there]) == [True] * 3 + [False] * 3 + [True] * 3
    assert await target.target.hold([]) == []

    await target.target.remove([there[0], there[2], *absent])
    await target.target.remove([])

    assert await standing(target) == {there[1]}
    assert seen(target, "ann") == set()


async def test_what_is_looked_up_may_be_much(target: TargetUnderTest) -> None:
    await target.target.apply(joined("beta", *(str(number) for number in range(0, 250, 2))))

    held = await target.target.hold([reference("beta", str(number)) for number in range(250)])

    assert held == [number % 2 == 0 for number in range(250)]


@pytest.mark.parametrize("changes", [joined("beta", "ann"), left("beta", "ann")], ids=["joining", "leaving"])
async def test_what_is_of_another_type_is_told_and_whole_once_all_is_applied_again(
    target: TargetUnderTest, changes: Sequence[Change]
) -> None:
    everything = [*joined("other", "ann"), *joined("beta", "bob"), *changes]
    await target.target.apply(everything)
    await target.damage("ann")

    with pytest.raises(TargetDamagedError):
        await target.target.apply([*changes, *joined("beta", "cleo")])
    await target.target.apply(everything)

    assert seen(target, "ann") - {"beta.g1"} == {"other.g1"}
    assert ("beta.g1" in seen(target, "ann")) == changes[0].included
    assert seen(target, "bob") == seen(target, "cleo") == {"beta.g1"}


async def test_nothing_to_settle_takes_no_time(target: TargetUnderTest) -> None:
    await target.target.apply(joined("beta", "ann"))
    async with asyncio.timeout(1):
        await target.target.settle()


@given(facts=st.lists(FACTS, max_size=25), cuts=st.lists(st.integers(0, 25), max_size=4), repeated=st.integers(0, 9))
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_any_changes_in_any_batches_with_repetitions_end_as_a_fold_says(
    target: TargetUnderTest, facts: list[tuple[str, int, str, bool]], cuts: list[int], repeated: int
) -> None:
    # Contexts of each example's own, so that they need not be taken out before the next.
    own = uuid.uuid4().hex
    changes = [Change(segment, generation, f"{own}-{key}", included) for segment, generation, key, included in facts]
    bounds = [0, *sorted(min(cut, len(changes)) for cut in cuts), len(changes)]
    for start, end in pairwise(bounds):
        await target.target.apply(changes[start:end])
        # As after a failure: from an older cursor on, a second time.
        await target.target.apply(changes[max(0, end - repeated) : end])

    expected = {change[:3]: change.included for change in changes}
    for key in "xyz":
        wanted = {f"{each[0]}.g{each[1]}" for each, is_in in expected.items() if is_in and each[2] == f"{own}-{key}"}
        assert seen(target, f"{own}-{key}") == wanted


async def test_of_a_context_that_is_forgotten_nothing_is_left(target: TargetUnderTest) -> None:
    await target.target.apply([*joined("beta", "ann", "bob"), *joined("other", "ann", generation=7)])
    for _ in range(2):
        await target.target.forget(context_reference("ann"))

        assert await standing(target) == {reference("beta", "bob")}
        assert seen(target, "ann") == set()
