"""The metrics of the gateway. The names are fixed in interface.md 7."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus

from prometheus_client import Counter, Histogram

from worker.process_metrics import ProcessMetrics

OURS = HTTPStatus.INTERNAL_SERVER_ERROR, HTTPStatus.SERVICE_UNAVAILABLE
"""Answers that are counted from 0 on, so that an alert sees the first ones: a rise needs a value before it."""
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)


class GatewayMetrics(ProcessMetrics):
    """What a gateway reports, for each of its routes from 0 on."""

    def __init__(self, routes: Iterable[str]) -> None:
        super().__init__()
        self.gateway_requests_total = self._counter(
            "gateway_requests",
            "Answers by route and status. 403: somebody's token is wrong. 503: Kafka, or too much at once.",
            "route",
            "code",
        )
        self.gateway_request_seconds = self._histogram(
            "gateway_request_seconds",
            "From the headers to the answer, Kafka's acknowledgement included. Amplitude gives up after a second.",
            SECONDS,
            "route",
        )
        self.gateway_in_flight = self._gauge(
            "gateway_in_flight_requests",
            "Bodies that are read or published now, of known tokens. At 512: answers of 503.",
        )
        self._of: dict[tuple[str, int], tuple[Counter, Histogram]] = {}
        """By route and status, so that labels are looked up once. Both are from short lists."""
        for route in routes:
            self.gateway_request_seconds.labels(route)
            for code in OURS:
                self.gateway_requests_total.labels(route, str(int(code)))

    def answered(self, route: str, code: int, seconds: float) -> None:
        """One request came to its end."""
        place = route, code
        found = self._of.get(place)
        if found is None:
            found = self._of[place] = (
                self.gateway_requests_total.labels(route, str(code)),
                self.gateway_request_seconds.labels(route),
            )
        requests, times = found
        requests.inc()
        times.observe(seconds)
