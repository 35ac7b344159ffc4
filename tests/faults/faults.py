"""All faults, by name."""

from __future__ import annotations

from tests.faults import kafka_faults, network_faults, postgres_faults, projection_faults, worker_faults
from tests.faults.ground import FAULTS

__all__ = ["FAULTS", "kafka_faults", "network_faults", "postgres_faults", "projection_faults", "worker_faults"]
