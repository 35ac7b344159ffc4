"""A short campaign for each of three seeds: nothing lost, nothing wrong, whatever breaks. `make faults` runs long."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.campaign import run

SECONDS = 15.0


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_whatever_breaks_every_membership_is_what_the_oracle_says(seed: int, tmp_path: Path) -> None:
    report = await run(seed, seconds=SECONDS, folder=tmp_path)

    assert report.problems == []
    assert report.outcomes
    assert report.compared.memberships > 0
    assert report.compared.dead_letters > 0
