"""What every step of the pipeline reports to."""

from __future__ import annotations

from typing import NamedTuple

from worker.health import Health
from worker.metrics import Metrics


class Instruments(NamedTuple):
    """Numbers for dashboards, and the state that probes ask for."""

    metrics: Metrics
    health: Health
