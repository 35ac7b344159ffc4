"""What a gateway counts, from its start on."""

from __future__ import annotations

import pytest

from worker.gateway.metrics import GatewayMetrics

REQUESTS = "cohort_sync_gateway_requests_total"


@pytest.mark.parametrize("code", ["500", "503"])
def test_failures_of_ours_start_at_zero_on_each_route_so_that_the_first_ones_are_a_rise(code: str) -> None:
    metrics = GatewayMetrics(["lists", "other"])

    assert metrics.registry.get_sample_value(REQUESTS, {"route": "lists", "code": code}) == 0
    metrics.answered("other", int(code), 0.1)

    assert metrics.registry.get_sample_value(REQUESTS, {"route": "other", "code": code}) == 1
