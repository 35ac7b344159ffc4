"""The soak's verdict: a leak is seen through noise, and noise is no leak."""

from __future__ import annotations

import random

from tests.faults.soak import Sample, flatness

RATE = 1_000.0


def samples(*, leaked_mib_a_minute: float = 0.0, behind_a_second: float = 0.0) -> list[Sample]:
    noise = random.Random(1)
    return [
        Sample(
            at_s=float(at_s),
            memory_mib=noise.uniform(90, 110) + leaked_mib_a_minute * at_s / 60,
            open_files=noise.choice((19, 20, 21)),
            tasks=noise.choice((18, 19, 22)),
            lag_records=noise.uniform(0, 2 * RATE) + behind_a_second * at_s,
            loop_lag_s=noise.uniform(0, 0.05),
        )
        for at_s in range(0, 1_200, 2)
    ]


def growing(found: list[Sample]) -> list[str]:
    return [each.name for each in flatness(found, RATE) if each.grew > each.may_grow]


def test_noise_is_flat() -> None:
    assert growing(samples()) == []


def test_a_leak_of_a_mebibyte_a_minute_grows() -> None:
    assert growing(samples(leaked_mib_a_minute=1)) == ["memory, MiB"]


def test_workers_that_fall_behind_by_two_records_a_second_grow() -> None:
    assert growing(samples(behind_a_second=2)) == ["lag, records"]


def test_what_fills_in_the_first_minutes_only_is_no_growth() -> None:
    warming = [sample._replace(memory_mib=60 + min(sample.at_s, 200) / 5) for sample in samples()]

    assert growing(warming) == []
