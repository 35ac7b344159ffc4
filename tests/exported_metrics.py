"""The names of all series that our processes export, and those that an expression asks for."""

from __future__ import annotations

import re
from collections.abc import Iterable

from worker.gateway.metrics import GatewayMetrics
from worker.metrics import Metrics
from worker.projection_metrics import ProjectionMetrics

PARTS = {"counter": [""], "gauge": [""], "histogram": ["_bucket", "_count", "_sum"], "summary": ["_count", "_sum"]}


def names_in(*expositions: str) -> set[str]:
    """What can be asked for where these are scraped, also the series that have had no value yet."""
    kinds = re.findall(r"^# TYPE (\S+) (\S+)$", "\n".join(expositions), re.MULTILINE)
    return {name + part for name, kind in kinds for part in PARTS.get(kind, [""])}


def defined_names() -> set[str]:
    """The same of worker, projector and gateway, by their definitions."""
    processes = (Metrics(), ProjectionMetrics(["sdk"]), GatewayMetrics(["route"]))
    return names_in(*(process.exposition().decode() for process in processes))


def asked_for(expressions: Iterable[str]) -> set[str]:
    """The names in expressions of PromQL that are ours or the process's."""
    return set(re.findall(r"\b((?:cohort_sync[_:]|process_|python_)[a-z0-9_:]+)", " ".join(expressions)))
