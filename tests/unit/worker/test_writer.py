from __future__ import annotations

from stores.base import SegmentStore
from stores.model import DeltaGroup
from tests.builders import a_group, a_version
from tests.fakes import FlakyStore, RefusingStore
from tests.memory_store import MemoryStore
from worker.health import Health
from worker.instruments import Instruments
from worker.metrics import Metrics
from worker.segments import SegmentResolver
from worker.writer import BatchWriter, Written


async def write(store: SegmentStore, *groups: DeltaGroup, health: Health | None = None) -> Written:
    resolved = await SegmentResolver(store).resolve(groups)
    return await BatchWriter(store, instruments=Instruments(Metrics(()), health or Health())).write(
        resolved.deltas, in_two=True
    )


def refused_groups(written: Written) -> list[DeltaGroup]:
    return [refused.change for refused in written.refused if isinstance(refused.change, DeltaGroup)]


async def test_of_a_batch_with_one_refused_delta_every_other_is_stored() -> None:
    store = RefusingStore("u500")
    keys = [f"u{number}" for number in range(1_000)]

    written = await write(store, a_group(*keys[:700]), a_group(*keys[700:], version=a_version(offset=1)))

    assert [group.context_keys for group in refused_groups(written)] == [["u500"]]
    assert [group.places for group in refused_groups(written)] == [range(500, 501)]
    assert await store.included_counts() == {"amplitude-beta": 999}


async def test_several_refused_deltas_are_each_found() -> None:
    store = RefusingStore("u1", "u2", "u9")

    written = await write(store, a_group(*(f"u{number}" for number in range(10))))

    assert sorted(group.context_keys[0] for group in refused_groups(written)) == ["u1", "u2", "u9"]
    assert {refused.sqlstate for refused in written.refused} == {"22021"}


async def test_finding_one_refused_delta_takes_a_logarithm_of_tries() -> None:
    store = RefusingStore("u0")

    await write(store, a_group(*(f"u{number}" for number in range(512))))

    assert store.calls <= 2 * 9 + 1


async def test_an_unavailable_store_is_waited_for_with_the_same_batch() -> None:
    store = MemoryStore()
    flaky = FlakyStore(failures=0)
    health = Health()
    resolved = await SegmentResolver(flaky).resolve([a_group("u1")])
    flaky._failures = 2

    await BatchWriter(flaky, instruments=Instruments(Metrics(()), health)).write(resolved.deltas, in_two=True)

    await write(store, a_group("u1"))
    assert await flaky.memberships() == await store.memberships()
    assert health.ready()[1]["checks"]["postgres"] == {"ok": True}


async def test_what_changed_nothing_is_counted_by_segment() -> None:
    store = MemoryStore()
    await write(store, a_group("u1", "u2"))

    written = await write(store, a_group("u1", "u2"))

    assert written.stale == {1: 2}
